"""The checks that run on Airflow's host: how they read what a command printed, and how it ended."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from contracts import contract_of

from barflow.operations.verify.deployed import Deployed, NotAsExpectedError
from barflow.operations.verify.hops import rows_agree, tick_runs

HOST = {"Orchestration": {"HostId": "i-1", "HostLog": "the-log"}}
EQUAL = {"session": "2025-07-02", "equal": True, "rows": {"bar_1d": 5, "bar_1h": 35}, "differing": 0, "differences": []}


class Ssm:
    """Session Manager whose command ends at the third look, with this exit code and output."""

    exceptions = SimpleNamespace(InvocationDoesNotExist=KeyError)

    def __init__(self, code: int, out: str, errors: str, states: tuple[str, ...] = ("Pending", "InProgress")) -> None:
        self.ended = {
            "Status": "Failed" if code else "Success", "ResponseCode": code,
            "StandardOutputContent": out, "StandardErrorContent": errors,
        }  # fmt: skip
        self._states = iter(states)
        self.sent: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.looks = 0

    def send_command(self, **given: Any) -> dict[str, Any]:
        self.sent.append(given)
        return {"Command": {"CommandId": "c-1"}}

    def get_command_invocation(self, **given: Any) -> dict[str, Any]:
        self.looks += 1
        if self.looks == 1:
            raise KeyError("not there yet")
        state = next(self._states, None)
        return {"Status": state, "ResponseCode": -1} if state else self.ended

    def cancel_command(self, **given: Any) -> None:
        self.cancelled.append(given["CommandId"])


def deployed(ssm: Ssm, **more: Any) -> Deployed:
    contract = contract_of("dev", ingestion={"runner": "host", "function_name": None})
    return Deployed("dev", contract, HOST, datetime.now(UTC), lambda service: ssm, print, sleep=lambda s: None, **more)


def test_a_tick_runs_where_the_environment_runs_its_ticks() -> None:
    ssm = Ssm(0, "a table", "")
    assert tick_runs(deployed(ssm)) == "`barflow ingest` on the host stored every symbol"
    (sent,) = ssm.sent
    assert sent["DocumentName"] == "AWS-RunShellScript"
    assert sent["InstanceIds"] == ["i-1"]
    assert sent["Parameters"]["commands"] == ["PATH=/usr/local/bin:$PATH barflow ingest"]
    assert ssm.cancelled == []


def test_a_tick_that_fails_on_the_host_has_its_reason() -> None:
    ssm = Ssm(3, "", "working\nerror: the key is wrong\n")
    with pytest.raises(NotAsExpectedError, match="exit code 3: error: the key is wrong") as raised:
        tick_runs(deployed(ssm))
    assert raised.value.fix == "aws logs tail the-log --since 10m"


def test_the_chosen_session_is_compared() -> None:
    ssm = Ssm(0, json.dumps(EQUAL), "")
    assert rows_agree(deployed(ssm, session="2025-07-02")) == "40 rows of 2025-07-02 equal the oracle's"
    assert ssm.sent[0]["Parameters"]["commands"][0].endswith("barflow compare --json --session 2025-07-02")


@pytest.mark.parametrize(
    ("code", "out", "found"),
    [
        (1, json.dumps(EQUAL | {"equal": False, "differing": 3, "differences": ["bar_1d AAPL x"]}), "3 values of"),
        (1, "", "ended with exit code 1: error: the archive has no bar"),
    ],
)
def test_a_difference_and_a_failure_are_found(code: int, out: str, found: str) -> None:
    with pytest.raises(NotAsExpectedError, match=found):
        rows_agree(deployed(Ssm(code, out, "error: the archive has no bar")))


def test_a_command_that_is_not_waited_for_is_cancelled() -> None:
    ssm = Ssm(0, "", "", states=("InProgress",) * 10)
    opened = deployed(ssm)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    opened.sleep = interrupted
    with pytest.raises(KeyboardInterrupt):
        tick_runs(opened)
    assert ssm.cancelled == ["c-1"]
