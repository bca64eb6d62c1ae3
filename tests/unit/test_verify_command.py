"""`barflow verify`: it says what it does and costs, asks before it starts, and prints one JSON object."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from contracts import contract_of
from typer.testing import CliRunner

from barflow.cli.main import app
from barflow.errors import BadInputError, BarflowError
from barflow.operations.verify import run
from barflow.operations.verify.deployed import Deployed, NotAsExpectedError, missing_permission
from barflow.operations.verify.run import Step


def fails(deployed: Deployed) -> str:
    raise NotAsExpectedError("nothing arrived", "look there")


def breaks(deployed: Deployed) -> str:
    raise BarflowError("the cluster did not start")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the steps and the environment. Return the names of the steps that ran."""
    ran: list[str] = []

    def passes(deployed: Deployed) -> str:
        ran.append("passes")
        return "all there"

    made = (
        Step("passes", "costs {credits} credits and {dollars:.2f} USD in {minutes} minutes, see {channel}", passes),
        Step("fails", "looks", fails),
        Step("breaks", "looks", breaks),
    )
    monkeypatch.setattr(run, "STEPS", made)
    monkeypatch.setattr(run, "NAMES", tuple(step.name for step in made))
    found = Deployed("dev", contract_of("dev"), {}, datetime.now(UTC), lambda service: None, print)
    monkeypatch.setattr(Deployed, "open", lambda *given: found)
    return ran


def command(*options: str) -> Any:
    return CliRunner().invoke(app, ["verify", "--env", "dev", *options])


def test_a_failed_check_does_not_stop_the_others_and_the_json_has_all(steps: list[str]) -> None:
    ended = command("--yes", "--json")
    assert ended.exit_code == 1
    printed = next(line for line in ended.output.splitlines() if line.startswith("{"))
    assert json.loads(printed) == {
        "ok": False,
        "checks": [
            {"name": "passes", "ok": True, "found": "all there", "fix": ""},
            {"name": "fails", "ok": False, "found": "nothing arrived", "fix": "look there"},
            {
                "name": "breaks",
                "ok": False,
                "found": "the cluster did not start",
                "fix": "fix the cause, then run `barflow verify --env dev --only breaks`",
            },
        ],
    }
    assert "2 of 3 checks failed: fails, breaks" in ended.output


def test_it_says_what_it_does_and_costs_before_it_starts(steps: list[str]) -> None:
    ended = command("--yes", "--only", "passes")
    assert ended.exit_code == 0
    assert "passes      costs 5 credits and 0.26 USD in 20 minutes, see #barflow" in ended.output
    assert "✓ passes      all there" in ended.output
    assert "looks" not in ended.output


def test_without_a_terminal_and_without_yes_nothing_starts(steps: list[str]) -> None:
    ended = command()
    assert isinstance(ended.exception, BadInputError)
    assert "Nothing was started. Pass --yes" in str(ended.exception)
    assert steps == []


@pytest.mark.parametrize(("answer", "ran"), [(True, ["passes"]), (False, [])])
def test_it_asks_in_a_terminal(steps: list[str], monkeypatch: pytest.MonkeyPatch, answer: bool, ran: list[str]) -> None:
    monkeypatch.setattr("barflow.cli.verify.can_answer", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *given, **more: answer)
    assert command("--only", "passes").exit_code == (0 if answer else 1)
    assert steps == ran


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--only", "nothing"), "--only nothing: choose from"), (("--session", "today"), "--session today: give a day")],
)
def test_a_wrong_option_is_rejected(steps: list[str], options: tuple[str, ...], message: str) -> None:
    ended = command("--yes", *options)
    assert isinstance(ended.exception, BadInputError)
    assert message in str(ended.exception)
    assert steps == []


class DeniedError(Exception):
    """An error of botocore for a call that AWS denied."""

    operation_name = "FilterLogEvents"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.response = {"Error": {"Code": code}}


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("AccessDenied", "User: x is not authorized to perform: ssm:SendCommand on resource: y", "ssm:SendCommand"),
        ("AccessDeniedException", "no", "FilterLogEvents"),
        ("Throttling", "not authorized to perform: ssm:SendCommand", None),
    ],
)
def test_a_denied_call_names_its_permission(code: str, message: str, expected: str | None) -> None:
    assert missing_permission(DeniedError(code, message)) == expected
