"""Tells Slack what the operations topic says: an alarm that changed its state, or a job that failed.

Slack being down raises: Lambda tries again, and the message is on its way by e-mail all the same.
"""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

import boto3
from slack_sdk import WebClient

MARKS = {"ALARM": ":red_circle:", "OK": ":large_green_circle:", "INSUFFICIENT_DATA": ":white_circle:"}
LONGEST = 1500


def handler(event: dict[str, Any], context: object) -> None:
    """Posts each record of an SNS event."""
    for record in event["Records"]:
        message = record["Sns"]
        _client().chat_postMessage(channel=os.environ["SLACK_CHANNEL"], text=as_text(message))


def as_text(message: dict[str, Any]) -> str:
    """The message of a record in one or two lines, whether it is an alarm's, an event's or plain text."""
    try:
        body = json.loads(message["Message"])
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return f"*{message.get('Subject') or 'Barflow'}*\n{message['Message'][:LONGEST]}"
    if "AlarmName" in body:
        mark = MARKS.get(body["NewStateValue"], "")
        words = body.get("AlarmDescription") or body.get("NewStateReason", "")
        return f"{mark} *{body['AlarmName']}* is {body['NewStateValue']}\n{words[:LONGEST]}"
    detail = body.get("detail", {})
    name = detail.get("jobName") or detail.get("name") or detail.get("clusterId", "")
    reason = detail.get("message") or detail.get("stateChangeReason") or ""
    return (
        f":red_circle: *{body.get('detail-type', 'event')}*: {name} {detail.get('state', '')}\n{str(reason)[:LONGEST]}"
    )


@cache
def _client() -> WebClient:
    secret = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["SLACK_SECRET"])
    return WebClient(token=secret["SecretString"], base_url=os.environ.get("BARFLOW_SLACK_URL", WebClient.BASE_URL))
