"""
### Twelve Data to MongoDB

One tick: fetches the newest bars of every symbol, validates and stages them, and sends the alerts that they give. Where
the host ingests (`ingest.runner` of the environment), every five minutes of a session, through SSH, and skipped while
the market is closed. Where a function does, its own schedule invokes it, and this DAG does so by hand.

A tick that fails loses nothing: the next one fetches from the newest stored bar on.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

from airflow.sdk import MultipleCronTriggerTimetable, Param, chain, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException
from barflow_tasks import (
    DEFAULTS,
    LOCAL,
    NEW_YORK,
    RUNBOOK,
    START,
    TAGS,
    VENDOR_POOL,
    contract,
    final,
    log,
    open_stores,
)

RUNNER = "here" if LOCAL else os.environ.get("BARFLOW_INGEST_RUNNER", "lambda")
# Of a session, with the tick that takes the closing bars for certain. Holidays and half days: the calendar.
SESSION = ("30/5 9 * * MON-FRI", "*/5 10-15 * * MON-FRI", "0,5,10 16 * * MON-FRI")
WITHIN = timedelta(minutes=15)


@task.short_circuit
def market_is_open() -> bool:
    """Whether a bar can have closed since the last tick. By hand, `force` asks for a tick whatever the hour."""
    from barflow.market.sessions import bars_due, utc_now

    return bool(get_current_context()["params"]["force"] or bars_due(utc_now()))


@task(task_id="ingest", pool=VENDOR_POOL)
def ingest_here() -> dict[str, int]:
    """The tick, in this process."""
    from barflow.pipeline import ingest
    from barflow.pipeline.ingest import raise_errors

    stores = open_stores()
    with final():
        report = ingest.run(stores, stores.settings.symbols, log.info)
        raise_errors(report)
    return vars(report.total)


@task
def function_name() -> str:
    name = contract().ingestion.function_name
    if name is None:
        raise AirflowFailException("this deployment has no ingest function: its host ingests")
    return name


@task
def judge(answer: str) -> None:
    """The function ends well where the vendor refused, so as not to be tried again; here that is a failure."""
    said = json.loads(answer)
    if said["outcome"] in ("refused", "failed"):
        raise AirflowFailException(f"the tick was {said['outcome']}: {said.get('error') or said.get('errors')}")
    log.info("%s", answer)


# Each way in imports its own operator: the other's would take as long again to parse.
def by_function() -> Any:
    from airflow.providers.amazon.aws.operators.lambda_function import LambdaInvokeFunctionOperator

    name = function_name()
    ingest = LambdaInvokeFunctionOperator(
        task_id="ingest", function_name=name, payload=json.dumps({"force": True}), pool=VENDOR_POOL
    )
    judge(ingest.output)
    return name


def on_host() -> Any:
    from barflow_ssh import BarflowOverSsh

    return BarflowOverSsh(
        task_id="ingest", command="barflow ingest --json", cmd_timeout=WITHIN.total_seconds(), pool=VENDOR_POOL
    )


@dag(
    dag_id="ingest_bars",
    schedule=MultipleCronTriggerTimetable(*SESSION, timezone=NEW_YORK) if RUNNER == "host" else None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=2 * WITHIN,
    default_args=DEFAULTS | {"execution_timeout": WITHIN, "retries": min(1, DEFAULTS["retries"])},
    params={"force": Param(RUNNER != "host", type="boolean", description="a tick whatever the hour")},
    tags=TAGS,
    doc_md=f"{__doc__}\n{RUNBOOK}",
)
def ingest_bars() -> None:
    tick = {"here": ingest_here, "lambda": by_function, "host": on_host}[RUNNER]()
    chain(market_is_open(), tick)


ingest_bars()
