"""Ask for what is due about corporate actions: splits and dividends before the open, daily bars after the close.

If the host ingests (`ingest.runner` of the environment), the DAG runs `barflow actions refresh --due` over SSH at 08:00
and 16:25 New York time. If a function ingests, its own schedules do that; trigger this DAG by hand to run it once more.

A symbol that was asked for since the last close is not asked for again, so a run can be repeated. The ticks of the day
keep their API credits. On a holiday, only a missing daily bar is due.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import MultipleCronTriggerTimetable, dag, task
from barflow_tasks import (
    DEFAULTS,
    LOCAL,
    NEW_YORK,
    START,
    TAGS,
    VENDOR_POOL,
    dag_doc,
    log,
    no_retry_after_refusal,
    open_stores,
)

ON_HOST = not LOCAL and os.environ.get("BARFLOW_INGEST_RUNNER", "lambda") == "host"
SCHEDULE = ("0 8 * * MON-FRI", "25 16 * * MON-FRI")
# From 08:00 to the open: many symbols take more than an hour of the plan's credits.
TIMEOUT = timedelta(minutes=90)


@task(task_id="refresh", pool=VENDOR_POOL)
def refresh_here() -> dict[str, Any]:
    """Ask in this process. Return what was done."""
    from barflow.operations.daily_actions import run_due

    with no_retry_after_refusal():
        return run_due(open_stores(), log.info).to_json()


def refresh_over_ssh() -> Any:
    """Return the task that runs the command on the host over SSH."""
    from barflow_ssh import BarflowOverSsh

    command = "barflow actions refresh --due --json"
    return BarflowOverSsh(task_id="refresh", command=command, cmd_timeout=TIMEOUT.total_seconds(), pool=VENDOR_POOL)


@dag(
    dag_id="refresh_actions",
    schedule=MultipleCronTriggerTimetable(*SCHEDULE, timezone=NEW_YORK) if ON_HOST else None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=2 * TIMEOUT,
    default_args=DEFAULTS | {"execution_timeout": TIMEOUT},
    tags=TAGS,
    doc_md=dag_doc("Splits, dividends and daily bars", __doc__),
)
def refresh_actions() -> None:
    """Define the DAG."""
    if LOCAL:
        refresh_here()
    else:
        refresh_over_ssh()


refresh_actions()
