"""The evaluation of the archive's data quality rules by AWS Glue: on what was published since the last one.

Glue reads only the months that the evaluation names, so its cost follows the new data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from barflow.contract import Glue
from barflow.lake.manifest_files import manifests_since
from barflow.lake.partitions import Lake
from barflow.operations.polling import Execution
from barflow.progress import Log

TIMEOUT_MINUTES = 30


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of the rules: Glue's id of it, the months, the number of rules, and a line per failed rule."""

    run_id: str
    months: tuple[str, ...]
    rules: int
    failed: tuple[str, ...]


def published_months(lake: Lake, since: datetime | None) -> list[str]:
    """Return the months (2025-07) of all partitions published after ``since`` (UTC), or of all without it."""
    return sorted({item.month for manifest in manifests_since(lake, since) for item in manifest.partitions})


def evaluate(
    client: Any, glue: Glue, months: list[str], token: str, log: Log, sleep: Callable[[float], None]
) -> Evaluation:
    """Evaluate the rules on these months and wait for the result. The same ``token`` starts no second evaluation.

    ``client`` is Glue's boto3 client. Raises BarflowError if the evaluation itself fails or takes too long.
    """
    table = {
        "DatabaseName": glue.database,
        "TableName": glue.bars_table,
        "AdditionalOptions": {"pushDownPredicate": month_predicate(months)},
    }
    run_id = client.start_data_quality_ruleset_evaluation_run(
        DataSource={"GlueTable": table},
        Role=glue.evaluation_role,
        NumberOfWorkers=glue.evaluation_workers,
        Timeout=TIMEOUT_MINUTES,
        ClientToken=token,
        RulesetNames=[glue.ruleset],
    )["RunId"]
    log(f"evaluation {run_id} of {', '.join(months)} is starting")
    _execution(client, run_id).wait(TIMEOUT_MINUTES, log, sleep)
    results = [
        rule
        for result in client.get_data_quality_ruleset_evaluation_run(RunId=run_id)["ResultIds"]
        for rule in client.get_data_quality_result(ResultId=result)["RuleResults"]
    ]
    failed = [
        f"{rule['Description']} ({rule.get('EvaluationMessage', 'no reason given')})"
        for rule in results
        if rule["Result"] != "PASS"
    ]
    return Evaluation(run_id, tuple(months), len(results), tuple(failed))


def month_predicate(months: list[str]) -> str:
    """Return the predicate with which Glue reads only these months."""
    listed = ", ".join(f"'{month}'" for month in months)
    return f"month in ({listed})"


def _execution(client: Any, run_id: str) -> Execution:
    def read_state() -> tuple[str, str]:
        run = client.get_data_quality_ruleset_evaluation_run(RunId=run_id)
        return run["Status"], run.get("ErrorString") or ""

    failed = ("FAILED", "STOPPED", "TIMEOUT")
    return Execution("evaluation of the rules", read_state, "SUCCEEDED", failed, f"Glue Data Quality, the run {run_id}")
