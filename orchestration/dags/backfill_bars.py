"""Fetch past sessions of chosen symbols, from `start` to `end`.

The first task computes how many of the vendor's credits the backfill needs, and on how many days. If it needs more days
than `days` allows, the run fails before anything is fetched. When a day's credits are used up, the run waits for the
next day. Complete sessions are not fetched again, so you can stop the run and trigger it again.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException
from barflow_tasks import (
    DEFAULTS,
    LINEAGE_PARENT,
    LOCAL,
    START,
    TAGS,
    VENDOR_POOL,
    contract,
    dag_doc,
    log,
    no_retry_after_refusal,
    open_stores,
)

# The time between two tries to fetch when the day's credits are used up, and the limit of the whole wait.
RETRY_INTERVAL, MAX_WAIT = timedelta(hours=1), timedelta(days=60)


def requested() -> tuple[tuple[str, ...], date, date]:
    """Return the symbols, the first day and the last day from the form of the DAG run."""
    from barflow.symbol import parse_symbols

    params = get_current_context()["params"]
    return (
        parse_symbols(",".join(params["symbols"])),
        date.fromisoformat(params["start"]),
        date.fromisoformat(params["end"]),
    )


@task
def plan() -> dict[str, Any]:
    """Return the backfill's calls, credits, days and finish time. Fail if it needs more days than allowed.

    On AWS, the log names the timeouts and the disk that are too small for its bars.
    """
    from barflow.pipeline.backfill import plan_for
    from barflow.pipeline.capacity import Limits, demand, too_small

    allowed = get_current_context()["params"]["days"]
    stores = open_stores()
    with no_retry_after_refusal():
        symbols, first, last = requested()
        planned = plan_for(stores.settings, symbols, first, last, stores.clock())
    log.info("%s", planned.describe())
    if not LOCAL:
        limits = Limits.of(contract())
        log.info("too small: %s", "; ".join(too_small(demand(planned.bars, limits), limits)) or "nothing")
    if planned.days > allowed:
        raise AirflowFailException(
            f"the backfill needs {planned.credits:,} credits on {planned.days} days, and {allowed} are allowed. "
            f"Nothing was fetched. Allow {planned.days} days, or choose fewer symbols or sessions."
        )
    return planned.to_json()


@task.sensor(
    mode="reschedule",
    poke_interval=RETRY_INTERVAL.total_seconds(),
    timeout=MAX_WAIT.total_seconds(),
    execution_timeout=timedelta(hours=24),
    pool=VENDOR_POOL,
)
def fetch(lineage_parent: str | None = None) -> bool:
    """Fetch the sessions. Return False if the day's credits are used up: Airflow then calls this again later."""
    from barflow.errors import DayIsSpentError
    from barflow.pipeline import backfill
    from barflow.pipeline.ingest_report import raise_errors

    stores = open_stores()
    stores.lineage_parent = lineage_parent
    try:
        with no_retry_after_refusal():
            report = backfill.run(
                stores, *requested(), log.info, lambda done: log.info("%d more symbols are done", done)
            )
            raise_errors(report)
    except DayIsSpentError as error:
        log.info("%s", error)
        return False
    return True


@dag(
    dag_id="backfill_bars",
    schedule=None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params={
        "symbols": Param(
            ["AAPL"],
            type="array",
            minItems=1,
            items={"type": "string", "pattern": "^[A-Za-z0-9.:/-]{1,24}$"},
            description="one symbol per line",
        ),
        "start": Param("2026-01-02", type="string", format="date", description="first day, New York time"),
        "end": Param("2026-01-30", type="string", format="date", description="last day, inclusive"),
        "days": Param(
            1, type="integer", minimum=1, maximum=MAX_WAIT.days, description="days that the backfill may take"
        ),
    },
    tags=TAGS,
    doc_md=dag_doc("Past bars of chosen symbols", __doc__),
)
def backfill_bars() -> None:
    """Define the DAG."""
    plan() >> fetch(LINEAGE_PARENT)


backfill_bars()
