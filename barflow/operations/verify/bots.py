"""Check that an alert reaches each bot's queue: publish a test alert, receive it from the queues, and delete it.

A running bot may receive the alert first. The alert is valid and harmless: its symbol does not exist, its bar is old.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from barflow.alerts.message import Message
from barflow.market.sessions import utc_now
from barflow.operations.verify.deployed import Deployed, NotAsExpectedError

SYMBOL = "BARFLOW.TEST"
RECEIVE_SECONDS, METRIC_SECONDS, STOPPED_SECONDS = 30, 300, 10


def reached(deployed: Deployed) -> str:
    """Publish a test alert and wait until each queue has it. Raise NotAsExpectedError if a queue does not get it."""
    topic, urls = deployed.output("Alerts", "AlertsTopic"), deployed.output("Alerts", "BotQueues")
    queues = [] if urls == "none" else urls.split(",")
    if not queues:
        return "the environment has no bot"
    alert = test_alert()
    published = utc_now()
    deployed.client("sns").publish(
        TopicArn=topic,
        Message=alert.model_dump_json(),
        MessageGroupId=alert.symbol,
        MessageDeduplicationId=alert.id.rsplit("|", 1)[-1],
    )
    try:
        found = [_arrived(deployed, queue, alert.id, published) for queue in queues]
    except BaseException:  # Ctrl-C too
        for queue in queues:
            with suppress(Exception):
                deployed.wait_for(partial(_take, deployed, queue, alert.id), STOPPED_SECONDS)
        raise
    if "" in found:
        queue = queues[found.index("")]
        raise NotAsExpectedError(
            f"the test alert did not reach {queue}",
            f"aws sqs get-queue-attributes --attribute-names All --queue-url {queue}",
        )
    return "; ".join(found)


def test_alert() -> Message:
    """Return an alert that no bot acts on: an unknown symbol, and a bar of the year 2000."""
    return Message(
        schema_version=1,
        id=f"barflow_verify|{SYMBOL}|{uuid.uuid4().hex[:12]}",
        rule="barflow_verify",
        kind="level",
        symbol=SYMBOL,
        severity="info",
        session_date=date(2000, 1, 3),
        bar_start=datetime(2000, 1, 3, 14, 30, tzinfo=UTC),
        direction=None,
        value=0.0,
        unit="dollars",
        reference=None,
        price=0.0,
        text="Test by `barflow verify`: nothing to do.",
        created_at=utc_now(),
    )


def _arrived(deployed: Deployed, queue: str, alert_id: str, published: datetime) -> str:
    """Return how the alert reached a queue, or an empty text if it did not."""
    name = queue.rsplit("/", 1)[-1]
    if deployed.wait_for(lambda: _take(deployed, queue, alert_id), RECEIVE_SECONDS):
        return f"{name}: received and deleted"
    if deployed.wait_for(lambda: _was_sent(deployed, name, published), METRIC_SECONDS):
        return f"{name}: a running bot received it"
    return ""


def _take(deployed: Deployed, queue: str, alert_id: str) -> bool:
    """Receive messages and delete the test alert if it is one of them. Make every other alert visible again at once."""
    sqs = deployed.client("sqs")
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
    taken = False
    for message in messages:
        if json.loads(message["Body"])["id"] == alert_id:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            taken = True
        else:
            sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    return taken


def _was_sent(deployed: Deployed, name: str, since: datetime) -> bool:
    """Return whether CloudWatch has counted a message that was sent to the queue since then."""
    metric: dict[str, Any] = {
        "Namespace": "AWS/SQS",
        "MetricName": "NumberOfMessagesSent",
        "Dimensions": [{"Name": "QueueName", "Value": name}],
    }
    found = deployed.client("cloudwatch").get_metric_data(
        MetricDataQueries=[{"Id": "sent", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}],
        StartTime=since.replace(second=0, microsecond=0),
        EndTime=utc_now() + timedelta(minutes=1),
    )
    return bool(sum(found["MetricDataResults"][0]["Values"]))
