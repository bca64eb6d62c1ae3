"""What CloudWatch does by itself: an alarm that changes its state notifies topics, and functions have metrics.

A function's metrics are those of Lambda itself, and those that it prints in the embedded metric format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from moto.awslambda.models import LambdaFunction
from moto.cloudwatch.models import Alarm, CloudWatchBackend, cloudwatch_backends
from moto.sns.models import sns_backends

from emulators.aws import lambda_functions  # noqa: F401  its patch of an invocation comes first
from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.patches import Function, wrap

ACTIONS = {"ALARM": "alarm_actions", "OK": "ok_actions", "INSUFFICIENT_DATA": "insufficient_data_actions"}


@wrap(CloudWatchBackend, "set_alarm_state")
def _set_alarm_state(
    original: Function, backend: CloudWatchBackend, alarm_name: str, reason: str, reason_data: str, state_value: str
) -> None:
    """Set the state, and publish to the topics of the new state if it is another one."""
    before = backend.alarms[alarm_name].state_value if alarm_name in backend.alarms else state_value
    original(backend, alarm_name, reason, reason_data, state_value)
    alarm = backend.alarms[alarm_name]
    if before != state_value and alarm.actions_enabled:
        for action in getattr(alarm, ACTIONS[state_value]):
            if action.split(":")[2] == "sns":
                sns_backends[ACCOUNT][REGION].publish(_notification(alarm, before), arn=action)


def _notification(alarm: Alarm, before: str) -> str:
    """Return the message that CloudWatch publishes about an alarm."""
    return json.dumps(
        {
            "AlarmName": alarm.name,
            "AlarmDescription": alarm.description,
            "AWSAccountId": ACCOUNT,
            "NewStateValue": alarm.state_value,
            "NewStateReason": alarm.state_reason,
            "StateChangeTime": alarm.state_updated_timestamp.isoformat(),
            "OldStateValue": before,
        }
    )


@wrap(LambdaFunction, "_invoke_lambda")
def _count_invocation(original: Function, function: LambdaFunction, event: Any = None) -> tuple[str, bool, str]:
    """Run a function, and store the metrics of the invocation."""
    started = datetime.now(UTC)
    answer, failed, log = original(function, event)
    milliseconds = (datetime.now(UTC) - started).total_seconds() * 1000
    of_function = [{"Name": "FunctionName", "Value": function.function_name}]
    counted = {"Invocations": 1.0, "Errors": float(failed), "Duration": milliseconds}
    backend = cloudwatch_backends[ACCOUNT][REGION]
    backend.put_metric_data("AWS/Lambda", [_metric(name, value, of_function) for name, value in counted.items()])
    for namespace, metric in _embedded(log or ""):
        backend.put_metric_data(namespace, [metric])
    return answer, failed, log


def _embedded(log: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the namespace and value of each metric that a log contains in the embedded metric format."""
    for line in log.splitlines():
        if not line.startswith('{"_aws"'):
            continue
        body = json.loads(line)
        for directive in body["_aws"]["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                dimensions = [{"Name": name, "Value": body[name]} for name in names]
                for metric in directive["Metrics"]:
                    yield directive["Namespace"], _metric(metric["Name"], body[metric["Name"]], dimensions)


def _metric(name: str, value: float, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    # moto compares times without a zone.
    now = datetime.now(UTC).replace(tzinfo=None)
    return {"MetricName": name, "Value": value, "Dimensions": dimensions, "Timestamp": now}
