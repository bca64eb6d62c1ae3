"""What does Slack read of an alarm, a failed job and plain text?"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def notify() -> ModuleType:
    path = Path(__file__).parents[2] / "lambda" / "notify" / "handler.py"
    spec = importlib.util.spec_from_file_location("notify_handler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_alarm_says_its_name_state_and_what_to_do(notify: ModuleType) -> None:
    body = {"AlarmName": "Barflow-dev-StaleBars", "NewStateValue": "ALARM", "AlarmDescription": "See the runbook."}
    text = notify.as_text({"Message": json.dumps(body)})
    assert text == ":red_circle: *Barflow-dev-StaleBars* is ALARM\nSee the runbook."


def test_a_failed_job_says_which_and_why(notify: ModuleType) -> None:
    body = {
        "detail-type": "Glue Job State Change",
        "detail": {"jobName": "Aggregate", "state": "FAILED", "message": "error: the warehouse could not be reached"},
    }
    text = notify.as_text({"Message": json.dumps(body)})
    assert text == (":red_circle: *Glue Job State Change*: Aggregate FAILED\nerror: the warehouse could not be reached")


@pytest.mark.parametrize("message", ["over budget", "[1, 2]", '"text"'])
def test_what_is_neither_is_passed_on_as_it_is(notify: ModuleType, message: str) -> None:
    assert notify.as_text({"Subject": "AWS Budgets", "Message": message}) == f"*AWS Budgets*\n{message}"


def test_a_long_message_is_cut(notify: ModuleType) -> None:
    assert len(notify.as_text({"Message": "x" * 10_000})) < 2_000
