"""Notify function: post messages of the operations topic to Slack, such as an alarm's new state or a failed job.

It raises if Slack does not accept a message: Lambda retries, and the topic sends the message by e-mail in any case.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

import boto3
from slack_sdk import WebClient

MARKS = {"ALARM": ":red_circle:", "OK": ":large_green_circle:", "INSUFFICIENT_DATA": ":white_circle:"}
MAX_LENGTH = 1500


def handler(event: dict[str, Any], context: object) -> None:
    """Post each record of an SNS event."""
    for record in event["Records"]:
        message = record["Sns"]
        _client().chat_postMessage(channel=os.environ["SLACK_CHANNEL"], text=as_text(message))


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
        reason = body.get("AlarmDescription") or body.get("NewStateReason", "")
        return f"{mark} *{body['AlarmName']}* is {body['NewStateValue']}\n{reason[:MAX_LENGTH]}"
    detail = body.get("detail", {})
    kind, state = body.get("detail-type", "event"), detail.get("state", "")
    name = detail.get("jobName") or detail.get("name") or detail.get("clusterId", "")
    reason = str(detail.get("message") or detail.get("stateChangeReason") or "")
    return f":red_circle: *{kind}*: {name} {state}\n{reason[:MAX_LENGTH]}"


@cache
def _client() -> WebClient:
    """Return the Slack client with the token of the secret, once per execution environment."""
    secret = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["SLACK_SECRET"])
    return WebClient(token=secret["SecretString"], base_url=os.environ.get("BARFLOW_SLACK_URL", WebClient.BASE_URL))
