"""
### What others left behind

Ends clusters of this environment whose run is over, deletes sessions from MongoDB that are old and held by archive and
warehouse, and sends the alerts that a channel did not take before.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowRuntimeError
from barflow_tasks import DEFAULTS, ENV, LOCAL, RUNBOOK, START, TAGS, contract, log, open_stores

LIVE = ("queued", "running")
# For a run started by hand, whose end nobody here hears of: its step's limit and this.
START_AND_END = timedelta(minutes=60)


def is_live(run_id: str) -> bool | None:
    """Whether a run of process_bars goes on; None where there is none of that id."""
    try:
        return get_current_context()["ti"].get_dagrun_state("process_bars", run_id) in LIVE
    except AirflowRuntimeError:
        return None


@task
def end_strays() -> list[str]:
    """Ends the clusters without a live run. Returns their ids."""
    from airflow.providers.amazon.aws.hooks.emr import EmrHook

    from barflow.operations.clusters import alive, strays

    emr, limit = EmrHook().conn, timedelta(minutes=contract().emr.step_timeout_minutes) + START_AND_END
    found = [item.cluster_id for item in strays(alive(emr, ENV), is_live, datetime.now(UTC) - limit)]
    if found:
        emr.terminate_job_flows(JobFlowIds=found)
    log.info("ended %s", ", ".join(found) or "none")
    return found


@task
def expire_staging() -> int:
    """Deletes old sessions that are loaded. Returns how many."""
    from barflow.operations.expiry import expire_staging

    stores = open_stores()
    gone = expire_staging(stores, stores.clock())
    log.info("%d sessions left MongoDB", gone)
    return gone


@task
def send_alerts() -> int:
    """Sends what is due. Returns how many messages went out; fails where a channel takes none."""
    from barflow.errors import UnavailableError

    done = open_stores().alerts.delivery.run()
    log.info("%d messages were sent", done.sent)
    if done.down:
        raise UnavailableError(" ".join(done.down.values()))
    return done.sent


@dag(
    dag_id="sweep",
    schedule=None if LOCAL else "17 * * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    default_args=DEFAULTS,
    tags=TAGS,
    doc_md=f"{__doc__}\n{RUNBOOK}",
)
def sweep() -> None:
    expire_staging()
    send_alerts()
    if not LOCAL:
        end_strays()


sweep()
