"""The Glue job: load the published bars that no load has consumed into the warehouse, with their aggregates.

The program takes plain arguments, so it runs the same under `python`, spark-submit and AWS Glue. The warehouse's DSN
is a secret and comes from the environment (BARFLOW_WAREHOUSE_DSN: the DSN or a secretsmanager: reference). Glue does
not let a job set environment variables, so arguments can name the reference and other settings there. Airflow starts
the job by a Glue workflow, which adds the last two arguments.
Progress goes to stderr; the last line on stdout is one JSON object.

    python glue/aggregate_bars.py --lake s3://bucket/lake
    python glue/aggregate_bars.py --lake .barflow/lake --full --symbols AAPL,MSFT
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from barflow.pipeline import aggregate
from barflow.pipeline.lineage import Run, parse_parent, reported
from barflow.pipeline.lineage_warehouse import AGGREGATE
from barflow.pipeline.program import WorkflowRun, read_workflow_run, run_program
from barflow.progress import Log
from barflow.secrets import reference
from barflow.settings import load_settings
from barflow.staging.ledger import new_run_id
from barflow.symbol import parse_symbols


def parser() -> argparse.ArgumentParser:
    """Return the parser of the job's arguments."""
    options = argparse.ArgumentParser(
        prog="aggregate_bars.py", description=__doc__.split("\n", 1)[0], allow_abbrev=False
    )
    options.add_argument("--lake", help="folder or s3:// URI of the lake (default: BARFLOW_LAKE_URI)")
    options.add_argument(
        "--warehouse", type=reference, help="secretsmanager: reference to its DSN (default: BARFLOW_WAREHOUSE_DSN)"
    )
    options.add_argument("--run-id", help="the load's id, for the ledger and the rows (default: a new one)")
    options.add_argument("--full", action="store_true", help="load everything in the lake again, not only what is new")
    options.add_argument("--symbols", type=parse_symbols, help="with --full: only these symbols, comma separated")
    options.add_argument("--environment", help="environment of its lineage (default: BARFLOW_ENV)")
    options.add_argument("--openlineage-url", help="backend of its lineage (default: BARFLOW_OPENLINEAGE_URL)")
    options.add_argument(
        "--openlineage-reference",
        type=reference,
        help="secretsmanager: reference to the backend's key (default: BARFLOW_OPENLINEAGE_API_KEY)",
    )
    options.add_argument("--lineage-parent", help="OpenLineage run that started this one")
    options.add_argument("--WORKFLOW_NAME", dest="workflow", help="Glue's workflow; its run gives the load's id")
    options.add_argument("--WORKFLOW_RUN_ID", dest="workflow_run", help="the run of Glue's workflow")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_program(parser(), argv, _aggregate)


def _aggregate(arguments: argparse.Namespace, log: Log) -> dict[str, Any]:
    given = {
        "lake_uri": arguments.lake,
        "warehouse_dsn": arguments.warehouse,
        "env": arguments.environment,
        "openlineage_url": arguments.openlineage_url,
        "openlineage_api_key": arguments.openlineage_reference,
    }
    settings = load_settings(**{name: value for name, value in given.items() if value})
    workflow = WorkflowRun(None, None)
    if arguments.run_id is None and arguments.workflow_run:
        workflow = read_workflow_run(arguments.workflow, arguments.workflow_run)
    run_id = arguments.run_id or workflow.run_id or new_run_id(aggregate.HOP)
    parent = arguments.lineage_parent or workflow.lineage_parent
    with reported(Run(AGGREGATE, settings, run_id, parent and parse_parent(parent)), log) as done:
        report = aggregate.run(settings, read_sql, log, run_id=run_id, symbols=arguments.symbols, full=arguments.full)
        done(report)
    return report.to_json()


def read_sql(name: str) -> str:
    """Return the SQL file of that name: beside this program, or in the working folder, where Glue puts extra files."""
    beside = Path(__file__).with_name(f"{name}.sql")
    return (beside if beside.exists() else Path(beside.name)).read_text()


if __name__ == "__main__" and (code := main()):
    raise SystemExit(code)  # Glue takes any SystemExit for a failure, also SystemExit(0)
