"""Notify function: post messages of the operations topic to Slack, such as an alarm's new state or a failed job.

EventBridge invokes the function with failure events of AWS, and the function publishes them to the topic. EventBridge
itself could publish only if the topic's policy had no condition on the source. The function raises if Slack does not
accept a message, and Lambda retries. The topic sends each message by e-mail, too. Without a Slack token, the function
logs the message.
"""

from __future__ import annotations

import json
import os
from typing import Any

import boto3
from slack_sdk import WebClient

from barflow.text import slack_escaped

MARKS = {"ALARM": ":red_circle:", "OK": ":large_green_circle:", "INSUFFICIENT_DATA": ":white_circle:"}
# The reason of an alarm starts with this if an operator or `barflow verify` set it as a test.
TEST = "Test "
TOKEN_PREFIX = "xox"  # noqa: S105  # of every Slack token; the secret's first value is random


def handler(event: dict[str, Any], context: object) -> None:
    """Post each record of an SNS event to Slack, or publish an event of EventBridge to the topic."""
    if "Records" not in event:
        boto3.client("sns").publish(TopicArn=os.environ["OPERATIONS_TOPIC"], Message=json.dumps(event))
        return
    for record in event["Records"]:
        _post(as_text(record.get("Sns")))


def _post(text: str) -> None:
    token = _token()
    if token is None:
        print(f"no Slack token is stored, so this message was not posted: {text}")
        return
    client = WebClient(token=token, base_url=os.environ.get("BARFLOW_SLACK_URL", WebClient.BASE_URL))
    posted = client.chat_postMessage(
        channel=os.environ["SLACK_CHANNEL"], text=text, unfurl_links=False, unfurl_media=False
    )
    # `barflow verify` finds and deletes its own messages by this line.
    print(json.dumps({"posted": posted["ts"], "channel": posted["channel"], "text": text}))


def as_text(message: Any) -> str:
    """Return the text of a record in two lines. Its message is an alarm, an event or plain text, in any form."""
    given = message if isinstance(message, dict) else {"Message": message}
    text = given.get("Message") or ""
    try:
        body = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return f"*{slack_escaped(given.get('Subject') or 'Barflow')}*\n{slack_escaped(text, lines=True)}"
    if "AlarmName" in body:
        state, reason = _first(body, "NewStateValue"), _first(body, "NewStateReason")
        if not reason.startswith(TEST):
            reason = _first(body, "AlarmDescription") or reason
        return f"{MARKS.get(state, '')} *{_first(body, 'AlarmName')}* is {state or 'in an unknown state'}\n{reason}"
    detail = body.get("detail")
    detail = detail if isinstance(detail, dict) else {}
    name, state = _first(detail, "jobName", "name", "clusterId"), _first(detail, "state")
    kind = _first(body, "detail-type") or "event"
    return f":red_circle: *{kind}*: {name} {state}\n{_first(detail, 'message', 'stateChangeReason')}"


def _first(values: dict[str, Any], *names: str) -> str:
    """Return the first of these values that is not empty, as plain text for Slack."""
    return slack_escaped(next((values[name] for name in names if values.get(name)), ""))


def _token() -> str | None:
    """Return the Slack token, or None before an operator has stored it."""
    secret = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["SLACK_SECRET"])["SecretString"]
    token: str = secret.strip()
    return token if token.startswith(TOKEN_PREFIX) else None
