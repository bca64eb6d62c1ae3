"""Run one tick: fetch the newest bars of every symbol, validate and stage them, and send their alerts.

If the host ingests (`ingest.runner` of the environment), the DAG runs a tick every five minutes of a session over SSH,
and skips it while the market is closed. If a function ingests, its own schedule invokes it; trigger this DAG by hand
for one more tick.

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
    LINEAGE_PARENT,
    LOCAL,
    NEW_YORK,
    START,
    TAGS,
    VENDOR_POOL,
    contract,
    dag_doc,
    log,
    no_retry_after_refusal,
    open_stores,
)

RUNNER = "here" if LOCAL else os.environ.get("BARFLOW_INGEST_RUNNER", "lambda")
# The ticks of a session; those after the close fetch the closing bars. `market_is_open` skips ticks on holidays and
# after the close of half days.
SESSION = ("30/5 9 * * MON-FRI", "*/5 10-15 * * MON-FRI", "0,5,10 16 * * MON-FRI")
TICK_TIMEOUT = timedelta(minutes=15)


@task.short_circuit
def market_is_open() -> bool:
    """Return whether a bar can have closed since the last tick, or whether the run's `force` is set."""
    from barflow.market.sessions import bars_due, utc_now

    return bool(get_current_context()["params"]["force"] or bars_due(utc_now()))


@task(task_id="ingest", pool=VENDOR_POOL)
def ingest_here(lineage_parent: str | None) -> dict[str, int]:
    """Run the tick in this process. Return its counts."""
    from barflow.pipeline import ingest
    from barflow.pipeline.ingest_report import raise_errors

    stores = open_stores()
    stores.lineage_parent = lineage_parent
    with no_retry_after_refusal():
        report = ingest.run(stores, stores.settings.symbols, log.info)
        raise_errors(report)
    return vars(report.total)


@task
def function_name() -> str:
    """Return the name of the ingest function. Fail if the host ingests."""
    name = contract().ingestion.function_name
    if name is None:
        raise AirflowFailException(
            "this deployment has no ingest function, because its host ingests. Nothing was fetched. "
            "Restart the host's services, then trigger this DAG again: sudo systemctl restart barflow-settings"
        )
    return name


@task
def check_outcome(answer: str) -> None:
    """Fail if the vendor refused the tick or all symbols. The function succeeds, so that Lambda does not retry it."""
    result = json.loads(answer)
    if result["outcome"] in ("refused", "failed"):
        raise AirflowFailException(
            f"the outcome of the tick is {result['outcome']}: {result.get('error') or result.get('errors')}"
        )
    log.info("%s", answer)


# Each runner imports only its own operator: importing both would double the parse time.
def by_function() -> Any:
    """Return the tasks that invoke the ingest function."""
    from airflow.providers.amazon.aws.operators.lambda_function import LambdaInvokeFunctionOperator

    name = function_name()
    payload = {"force": True, **({"lineage_parent": LINEAGE_PARENT} if LINEAGE_PARENT else {})}
    ingest = LambdaInvokeFunctionOperator(
        task_id="ingest", function_name=name, payload=json.dumps(payload), pool=VENDOR_POOL
    )
    check_outcome(ingest.output)
    return name


def on_host() -> Any:
    """Return the task that runs `barflow ingest` on the host over SSH."""
    from barflow_ssh import BarflowOverSsh

    command = "barflow ingest --json" + (f" --lineage-parent {LINEAGE_PARENT}" if LINEAGE_PARENT else "")
    return BarflowOverSsh(task_id="ingest", command=command, cmd_timeout=TICK_TIMEOUT.total_seconds(), pool=VENDOR_POOL)


@dag(
    dag_id="ingest_bars",
    schedule=MultipleCronTriggerTimetable(*SESSION, timezone=NEW_YORK) if RUNNER == "host" else None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=2 * TICK_TIMEOUT,
    default_args=DEFAULTS | {"execution_timeout": TICK_TIMEOUT, "retries": min(1, DEFAULTS["retries"])},
    params={"force": Param(RUNNER != "host", type="boolean", description="run the tick even if the market is closed")},
    tags=TAGS,
    doc_md=dag_doc("Twelve Data to MongoDB", __doc__),
)
def ingest_bars() -> None:
    """Define the DAG."""
    tick = {"here": lambda: ingest_here(LINEAGE_PARENT), "lambda": by_function, "host": on_host}[RUNNER]()
    chain(market_is_open(), tick)


ingest_bars()
