"""A trading bot: receive alerts from an SQS FIFO queue, act on each once, and delete it from the queue.

    python examples/bot.py QUEUE_URL [SEEN.sqlite]

Delivery is at least once, so an alert can arrive twice. The bot stores the ids of handled alerts in a small file. It
deletes an alert only after it has acted on it. An alert that fails is delivered again, and in the end goes to the
dead-letter queue.
"""

import json
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

import boto3

WAIT_SECONDS = 20


def act(alert: dict[str, Any]) -> None:
    """Print the alert: replace this with what your bot does.

    Do not trade on an alert that arrives late: compare bar_start with the clock.
    """
    if alert["kind"] == "test":  # of `barflow alerts test-channel`: no bar fired it
        print(alert["text"], flush=True)
        return
    print(alert["bar_start"], alert["severity"], alert["text"], flush=True)


def run(
    queue_url: str, seen_file: str, act: Callable[[dict[str, Any]], None] = act, *, wait: int = WAIT_SECONDS
) -> None:
    """Handle alerts until the queue has been empty for ``wait`` seconds."""
    sqs, seen = boto3.client("sqs"), sqlite3.connect(seen_file, isolation_level=None)
    seen.execute("create table if not exists acted (id text primary key)")
    while messages := sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=wait).get(
        "Messages"
    ):
        for message in messages:
            alert = json.loads(message["Body"])
            if not seen.execute("select 1 from acted where id = ?", [alert["id"]]).fetchone():
                act(alert)
                seen.execute("insert into acted values (?)", [alert["id"]])
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    while True:
        run(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "seen.sqlite")
