"""
### Past bars of chosen symbols

Fetches the sessions from `start` to `end`. The plan comes first: how many of the vendor's credits it takes, and on how
many days; more days than `days` allows are refused before anything is fetched. Where a day's credits are used up, it
waits. Sessions that are stored whole are not asked for again, so it can be stopped and triggered again.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException
from barflow_tasks import DEFAULTS, RUNBOOK, START, TAGS, VENDOR_POOL, final, log, open_stores

# How often it is looked whether the next day's credits are there, and when to give up.
EVERY, LONGEST = timedelta(hours=1), timedelta(days=60)


def asked_for() -> tuple[tuple[str, ...], date, date]:
    """The symbols and days of the run's form."""
    from barflow.settings import parse_symbols

    given = get_current_context()["params"]
    return (
        parse_symbols(",".join(given["symbols"])),
        date.fromisoformat(given["start"]),
        date.fromisoformat(given["end"]),
    )


@task
def plan() -> dict[str, Any]:
    """Calls, credits, days and the finish time. Refuses what the vendor's plan cannot pay for in the days allowed."""
    from barflow.pipeline.backfill import plan_for

    allowed = get_current_context()["params"]["days"]
    stores = open_stores()
    with final():
        symbols, first, last = asked_for()
        planned = plan_for(stores.settings, symbols, first, last, stores.clock())
    log.info("%s", planned.describe())
    if planned.days > allowed:
        raise AirflowFailException(
            f"it takes {planned.credits:,} credits on {planned.days} days, and {allowed} are allowed. "
            f"Nothing was fetched. Allow {planned.days} days, or choose fewer symbols or sessions."
        )
    return planned.to_json()


@task.sensor(
    mode="reschedule",
    poke_interval=EVERY.total_seconds(),
    timeout=LONGEST.total_seconds(),
    execution_timeout=timedelta(hours=24),
    pool=VENDOR_POOL,
)
def fetch() -> bool:
    """Fetches until all is there, or the day's credits are used up: then it looks again later."""
    from barflow.errors import DayIsSpentError
    from barflow.pipeline import backfill
    from barflow.pipeline.ingest import raise_errors

    stores = open_stores()
    try:
        with final():
            report = backfill.run(
                stores, *asked_for(), log.info, lambda done: log.info("%d more symbols are done", done)
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
            description="one symbol a line",
        ),
        "start": Param("2026-01-02", type="string", format="date", description="first day, New York"),
        "end": Param("2026-01-30", type="string", format="date", description="last day, included"),
        "days": Param(1, type="integer", minimum=1, maximum=LONGEST.days, description="days that it may take"),
    },
    tags=TAGS,
    doc_md=f"{__doc__}\n{RUNBOOK}",
)
def backfill_bars() -> None:
    plan() >> fetch()


backfill_bars()
