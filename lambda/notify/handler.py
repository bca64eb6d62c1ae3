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

MARKS = {"ALARM": ":red_circle:", "OK": ":large_green_circle:", "INSUFFICIENT_DATA": ":white_circle:"}
MAX_LENGTH = 1500
# The reason of an alarm starts with this if an operator or `barflow verify` set it as a test.
TEST = "Test "
TOKEN_PREFIX = "xox"  # noqa: S105  # of every Slack token; the secret's first value is random


def handler(event: dict[str, Any], context: object) -> None:
    """Post each record of an SNS event to Slack, or publish an event of EventBridge to the topic."""
    if "Records" not in event:
        boto3.client("sns").publish(TopicArn=os.environ["OPERATIONS_TOPIC"], Message=json.dumps(event))
        return
    for record in event["Records"]:
        _post(as_text(record["Sns"]))


def _post(text: str) -> None:
    token = _token()
    if token is None:
        print(f"no Slack token is stored, so this message was not posted: {text}")
        return
    client = WebClient(token=token, base_url=os.environ.get("BARFLOW_SLACK_URL", WebClient.BASE_URL))
    posted = client.chat_postMessage(channel=os.environ["SLACK_CHANNEL"], text=text)
    # `barflow verify` finds and deletes its own messages by this line.
    print(json.dumps({"posted": posted["ts"], "channel": posted["channel"], "text": text}))


def as_text(message: dict[str, Any]) -> str:
    """Return the text of a record in two lines. Its message is an alarm, an event or plain text."""
    try:
        body = json.loads(message["Message"])
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return f"*{message.get('Subject') or 'Barflow'}*\n{message['Message'][:MAX_LENGTH]}"
    if "AlarmName" in body:
        mark = MARKS.get(body["NewStateValue"], "")
        reason = body.get("NewStateReason", "")
        if not reason.startswith(TEST):
            reason = body.get("AlarmDescription") or reason
        return f"{mark} *{body['AlarmName']}* is {body['NewStateValue']}\n{reason[:MAX_LENGTH]}"
    detail = body.get("detail", {})
    kind, state = body.get("detail-type", "event"), detail.get("state", "")
    name = detail.get("jobName") or detail.get("name") or detail.get("clusterId", "")
    reason = str(detail.get("message") or detail.get("stateChangeReason") or "")
    return f":red_circle: *{kind}*: {name} {state}\n{reason[:MAX_LENGTH]}"


def _token() -> str | None:
    """Return the Slack token, or None before an operator has stored it."""
    secret = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["SLACK_SECRET"])["SecretString"]
    token: str = secret.strip()
    return token if token.startswith(TOKEN_PREFIX) else None
