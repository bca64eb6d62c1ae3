"""The evaluation of the archive's rules: which months it reads, and what it reports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from contracts import contract_of

from barflow.errors import BarflowError
from barflow.lake.manifests import Manifest, Partition
from barflow.lake.partitions import Lake
from barflow.operations.quality import evaluate, published_months

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
RULES = [
    {"Description": "RowCount > 0", "Result": "PASS"},
    {"Description": 'IsComplete "ts"', "Result": "FAIL", "EvaluationMessage": "Value: 0.9"},
    {"Description": 'IsComplete "open"', "Result": "ERROR"},
]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(str(tmp_path))
    for hours, months in ((0, ["2026-11", "2026-10"]), (2, ["2026-11"]), (4, ["2020-03"])):
        partitions = tuple(Partition("AAPL", month, 78, {f"{month}-02": 1}) for month in months)
        found.publish(Manifest(f"run-{hours}", NOON + timedelta(hours=hours), partitions))
    return found


def test_the_months_are_those_published_since_the_last_evaluation(lake: Lake) -> None:
    assert published_months(lake, None) == ["2020-03", "2026-10", "2026-11"]
    assert published_months(lake, NOON) == ["2020-03", "2026-11"]
    assert published_months(lake, NOON + timedelta(hours=4)) == []


class FakeGlue:
    """Glue with one run, which has ``states`` one after the other."""

    def __init__(self, *states: str) -> None:
        self.given: dict[str, Any] = {}
        self._states = list(states)

    def start_data_quality_ruleset_evaluation_run(self, **given: Any) -> dict[str, str]:
        self.given = given
        return {"RunId": "dqrun-1"}

    def get_data_quality_ruleset_evaluation_run(self, RunId: str) -> dict[str, Any]:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"Status": state, "ErrorString": "AccessDenied on the table", "ResultIds": ["dqresult-1"]}

    def get_data_quality_result(self, ResultId: str) -> dict[str, Any]:
        return {"RuleResults": RULES}


def run(glue: FakeGlue) -> Any:
    contract = contract_of("dev", glue={"database": "barflow_dev"}).glue
    return evaluate(glue, contract, ["2026-10", "2026-11"], "token", lambda line: None, lambda seconds: None)


def test_an_evaluation_reads_only_its_months_with_the_deployed_role_rules_and_workers() -> None:
    glue = FakeGlue("STARTING", "RUNNING", "SUCCEEDED")
    done = run(glue)
    table = glue.given["DataSource"]["GlueTable"]
    assert (table["DatabaseName"], table["TableName"]) == ("barflow_dev", "bars_5min")
    assert table["AdditionalOptions"] == {"pushDownPredicate": "month in ('2026-10', '2026-11')"}
    assert glue.given["RulesetNames"] == ["barflow-dev-bars"]
    assert (glue.given["NumberOfWorkers"], glue.given["ClientToken"]) == (2, "token")
    assert done.rules == 3
    assert done.failed == ('IsComplete "ts" (Value: 0.9)', 'IsComplete "open" (no reason given)')


def test_an_evaluation_that_does_not_run_to_its_end_is_an_error_with_its_reason() -> None:
    with pytest.raises(BarflowError, match=r"the evaluation of the rules is FAILED: AccessDenied on the table\."):
        run(FakeGlue("RUNNING", "FAILED"))
