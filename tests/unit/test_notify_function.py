"""Texts of the notify function: an alarm, a failed job, and plain text."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
from harness import program


@pytest.fixture(scope="module")
def notify() -> ModuleType:
    return program("lambda/notify/handler.py")


def test_an_alarm_is_shown_with_name_state_and_description(notify: ModuleType) -> None:
    body = {"AlarmName": "Barflow-dev-StaleBars", "NewStateValue": "ALARM", "AlarmDescription": "See the runbook."}
    text = notify.as_text({"Message": json.dumps(body)})
    assert text == ":red_circle: *Barflow-dev-StaleBars* is ALARM\nSee the runbook."


def test_a_failed_job_is_shown_with_its_name_and_reason(notify: ModuleType) -> None:
    body = {
        "detail-type": "Glue Job State Change",
        "detail": {"jobName": "Aggregate", "state": "FAILED", "message": "error: the warehouse could not be reached"},
    }
    text = notify.as_text({"Message": json.dumps(body)})
    assert text == ":red_circle: *Glue Job State Change*: Aggregate FAILED\nerror: the warehouse could not be reached"


@pytest.mark.parametrize("message", ["over budget", "[1, 2]", '"text"'])
def test_any_other_message_is_shown_unchanged(notify: ModuleType, message: str) -> None:
    assert notify.as_text({"Subject": "AWS Budgets", "Message": message}) == f"*AWS Budgets*\n{message}"


def test_a_long_message_is_shortened(notify: ModuleType) -> None:
    assert len(notify.as_text({"Message": "x" * 10_000})) < 2_000
