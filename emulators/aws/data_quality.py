"""Glue Data Quality, which moto lacks: runs that evaluate rulesets on the catalog's tables.

A run reads from the emulator's S3 the partitions that its push-down predicate selects. It has the permissions of the
role that the caller passes.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.glue.exceptions import EntityNotFoundException, InvalidInputException
from moto.glue.models import glue_backends
from moto.glue.responses import GlueResponse

from emulators.aws import athena, dqdl
from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.authorization import authorize, role_name
from emulators.aws.patches import add
from emulators.aws.permissions import of_evaluation

STARTING = 0.25  # seconds
WORDS = re.compile(r"'[^']*'|(?P<word>[A-Za-z_]\w*)")
KEYWORDS = {"and", "or", "not", "in", "between", "like", "is", "null"}
GIVEN = ("DataSource", "Role", "NumberOfWorkers", "Timeout", "ClientToken", "RulesetNames")
OPTIONS = {"pushDownPredicate", "catalogPartitionPredicate"}


@dataclass
class Run:
    """An evaluation run and, when it has succeeded, the results of its rules."""

    given: dict[str, Any]
    run_id: str = field(default_factory=lambda: f"dqrun-{secrets.token_hex(20)}")
    result_id: str = field(default_factory=lambda: f"dqresult-{secrets.token_hex(20)}")
    status: str = "STARTING"
    error: str = ""
    started: datetime = field(default_factory=utcnow)
    completed: datetime | None = None
    results: list[dict[str, str]] = field(default_factory=list)

    def execute(self) -> None:
        """Evaluate the rules, store the results or the error, and set the status last."""
        time.sleep(STARTING)
        self.status = "RUNNING"
        try:
            authorize(role_name(self.given["Role"]), of_evaluation(self.given))
            self.results = list(_evaluate(self.given))
            status = "SUCCEEDED"
        except Exception as error:
            self.error, status = f"{type(error).__name__}: {error}".splitlines()[0], "FAILED"
        self.completed = utcnow()
        self.status = status

    def described(self) -> dict[str, Any]:
        """Return the run as GetDataQualityRulesetEvaluationRun describes it."""
        found = {"RunId": self.run_id, "Status": self.status, "StartedOn": self.started, "CompletedOn": self.completed}
        found |= {name: value for name, value in self.given.items() if name != "ClientToken"}
        found |= {"ErrorString": self.error or None, "ResultIds": [self.result_id] if self.results else None}
        found["ExecutionTime"] = int(((self.completed or utcnow()) - self.started).total_seconds())
        return {name: value for name, value in found.items() if value is not None}


RUNS: dict[str, Run] = {}


def _evaluate(given: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the result of each rule."""
    source = given["DataSource"]["GlueTable"]
    table = glue_backends[ACCOUNT][REGION].get_table(source["DatabaseName"], source["TableName"])
    predicate = source.get("AdditionalOptions", {}).get("pushDownPredicate", "true")
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        db.execute(dqdl.MACROS)
        athena.create_view(db, table, Path(folder))
        db.execute(f'create view "primary" as select * from "{table.name}" where {_checked(predicate, table)}')
        for number, rule in enumerate(_rules(given), 1):
            try:
                reason = dqdl.evaluate(db, rule)
                outcome = "PASS" if reason is None else "FAIL"
            except duckdb.Error as error:
                reason, outcome = str(error).splitlines()[0], "ERROR"
            result = {"Name": f"Rule_{number}", "Description": rule.text, "Result": outcome}
            yield result | ({"EvaluationMessage": reason} if reason else {})


def _rules(given: dict[str, Any]) -> list[dqdl.Rule]:
    return [rule for name in given["RulesetNames"] for rule in dqdl.parse(dqdl.RULESETS[name])]


def _checked(predicate: str, table: Any) -> str:
    """Return the predicate. Raise ValueError if it names anything but partition columns, as Glue does."""
    keys = [column["Name"] for column in table.as_dict()["PartitionKeys"]]
    words = {found["word"].lower() for found in WORDS.finditer(predicate) if found["word"]} - {"true"}
    if words - KEYWORDS - set(keys):
        raise ValueError(
            f"User's pushdown predicate: {predicate} can not be resolved against partition columns: {keys}"
        )
    return predicate


@add(GlueResponse, "start_data_quality_ruleset_evaluation_run")
def _start_run(response: GlueResponse) -> ActionResult:
    """Answer StartDataQualityRulesetEvaluationRun. The same client token starts no second run."""
    given = {name: found for name in GIVEN if (found := response._get_param(name)) is not None}
    source = given["DataSource"]["GlueTable"]
    for name in given["RulesetNames"]:
        if name not in dqdl.RULESETS:
            raise EntityNotFoundException(f"Entity not found: Ruleset {name}")
    response.glue_backend.get_table(source["DatabaseName"], source["TableName"])
    if unknown := source.get("AdditionalOptions", {}).keys() - OPTIONS:
        raise InvalidInputException("StartDataQualityRulesetEvaluationRun", f"Unknown options {sorted(unknown)}")
    token = given.get("ClientToken")
    run = next((item for item in RUNS.values() if token and item.given.get("ClientToken") == token), None)
    if run is None:
        run = Run(given)
        RUNS[run.run_id] = run
        dqdl.EVALUATED |= dict.fromkeys((run.run_id, run.result_id), given["RulesetNames"])
        threading.Thread(target=run.execute, daemon=True).start()
    return ActionResult({"RunId": run.run_id})


@add(GlueResponse, "get_data_quality_ruleset_evaluation_run")
def _get_run(response: GlueResponse) -> ActionResult:
    """Answer GetDataQualityRulesetEvaluationRun."""
    run_id = response._get_param("RunId")
    if run_id not in RUNS:
        raise EntityNotFoundException(f"Entity not found: {run_id}")
    return ActionResult(RUNS[run_id].described())


@add(GlueResponse, "get_data_quality_result")
def _get_result(response: GlueResponse) -> ActionResult:
    """Answer GetDataQualityResult."""
    result_id = response._get_param("ResultId")
    run = next((item for item in RUNS.values() if item.result_id == result_id and item.results), None)
    if run is None:
        raise EntityNotFoundException(f"Entity not found: {result_id}")
    passed = sum(item["Result"] == "PASS" for item in run.results)
    return ActionResult(
        {
            "ResultId": result_id,
            "Score": passed / len(run.results),
            "DataSource": run.given["DataSource"],
            "RulesetName": run.given["RulesetNames"][0],
            "RulesetEvaluationRunId": run.run_id,
            "StartedOn": run.started,
            "CompletedOn": run.completed,
            "RuleResults": run.results,
        }
    )
