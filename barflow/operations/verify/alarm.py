"""Check that an alarm reaches Slack: set it, find the message in the log, set it back, and delete the messages.

The notify function logs each message that it posted. The log is the proof, because a bot's token often has no
permission to read a channel.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from barflow.operations.deployment import settings_of
from barflow.operations.verify.deployed import Deployed, NotAsExpectedError
from barflow.secrets import resolve

POST_SECONDS, LATE_SECONDS = 120, 20
PREFERRED = "UndeliveredAlerts"
ALARM, OK = "ALARM", "OK"
# If a reason starts with this, the notify function posts it instead of the alarm's description.
TEST = "Test"
READ_LOG = "read the function's log: aws logs tail {group} --since 10m"


def reaches_slack(deployed: Deployed) -> str:
    """Set an alarm that is not active, and wait for its message in Slack. Raise NotAsExpectedError without it."""
    cloudwatch = deployed.client("cloudwatch")
    alarm, group = _choose_alarm(deployed), _log_group(deployed)
    name, state = alarm["AlarmName"], alarm["StateValue"]
    reason = f"{TEST} {uuid.uuid4().hex[:12]} by `barflow verify`: nothing to do."
    posted: list[dict[str, Any]] = []

    def look() -> list[dict[str, Any]]:
        return _posted(deployed, group, name, ALARM, reason)

    try:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=ALARM, StateReason=reason)
        posted = deployed.wait_for(look, POST_SECONDS)
    finally:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=reason)
        posted = posted or deployed.wait_for(look, LATE_SECONDS)  # after Ctrl-C, the message may still come
        if posted and state == OK:
            # CloudWatch may have set it back before, with its own reason.
            posted = posted + deployed.wait_for(lambda: _posted(deployed, group, name, OK), POST_SECONDS)
        _delete(deployed, posted)
    if not posted:
        raise NotAsExpectedError(
            f"{name} was set to ALARM, and no message was posted within {POST_SECONDS} s. It is set back.",
            READ_LOG.format(group=group),
        )
    return f"{name} reached {posted[0]['channel']}; its {len(posted)} test messages were deleted"


def _choose_alarm(deployed: Deployed) -> dict[str, Any]:
    """Return an inactive alarm that only notifies the operations topic. Raise NotAsExpectedError if there is none."""
    topic = deployed.output("Observability", "OperationsTopic")
    pages = deployed.client("cloudwatch").get_paginator("describe_alarms")
    alarms = [
        alarm
        for page in pages.paginate(AlarmNamePrefix=f"Barflow-{deployed.env}-")
        for alarm in page["MetricAlarms"]
        if alarm["AlarmActions"] == [topic] and alarm["ActionsEnabled"] and alarm["StateValue"] != ALARM
    ]
    if not alarms:
        raise NotAsExpectedError(
            f"no alarm of {deployed.env} can be tested: each is active or disabled, or does not notify only {topic}",
            f"aws cloudwatch describe-alarms --alarm-name-prefix Barflow-{deployed.env}-",
        )
    return min(alarms, key=lambda alarm: (not alarm["AlarmName"].endswith(PREFERRED), alarm["AlarmName"]))


def _log_group(deployed: Deployed) -> str:
    """Return the log group of the function that is subscribed to the operations topic. Raise NotAsExpectedError."""
    topic = deployed.output("Observability", "OperationsTopic")
    subscriptions = deployed.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    functions = [item["Endpoint"] for item in subscriptions if item["Protocol"] == "lambda"]
    if not functions:
        raise NotAsExpectedError(
            f"no function is subscribed to {topic}", f"deploy Barflow-{deployed.env}-Observability again"
        )
    found = deployed.client("lambda").get_function_configuration(FunctionName=functions[0])
    return str(found.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{found['FunctionName']}")


def _posted(deployed: Deployed, group: str, alarm: str, state: str, reason: str = "") -> list[dict[str, Any]]:
    """Return the messages about the alarm's state that the function has posted since the checks began."""
    pages = deployed.client("logs").get_paginator("filter_log_events")
    found = pages.paginate(
        logGroupName=group,
        startTime=int(deployed.started.timestamp() * 1000),
        filterPattern=f'"{alarm}"',
    )
    lines = [event["message"] for page in found for event in page["events"] if event["message"].startswith("{")]
    messages = [message for line in lines if "posted" in (message := json.loads(line))]
    return [item for item in messages if f"*{alarm}* is {state}" in item["text"] and reason in item["text"]]


def _delete(deployed: Deployed, posted: list[dict[str, Any]]) -> None:
    """Delete messages that the bot posted. Raise NotAsExpectedError if Slack does not allow it."""
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError

    if not posted:
        return
    settings = settings_of(deployed.contract)
    client = WebClient(resolve(settings.slack_token, "BARFLOW_SLACK_TOKEN"), base_url=settings.slack_url)
    try:
        for message in posted:
            client.chat_delete(channel=message["channel"], ts=message["posted"])
    except SlackApiError as error:
        raise NotAsExpectedError(
            f"Slack did not delete a test message ({error.response.get('error')})", "delete it by hand"
        ) from None
