"""Terminate orphaned clusters, expire what MongoDB no longer needs, send waiting alerts, and reconcile every session.

A cluster of this environment is orphaned if its run has ended, or if Airflow does not know its run and the cluster is
too old. A staged session expires when it is old and the archive and the warehouse contain it. An alert waits if its
channel did not accept it before. A process run compares the sessions that changed at every
hop. Once a day, this DAG compares every session.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowRuntimeError
from barflow_tasks import DEFAULTS, ENV, LOCAL, START, TAGS, contract, dag_doc, log, open_stores

LIVE = ("queued", "running")
# Airflow does not know the runs of `barflow run`. They end within the step's limit plus this time.
START_AND_END = timedelta(minutes=60)


def is_live(run_id: str) -> bool | None:
    """Return whether a run of process_bars is in progress, or None if there is no run with this id."""
    try:
        return get_current_context()["ti"].get_dagrun_state("process_bars", run_id) in LIVE
    except AirflowRuntimeError:
        return None


@task
def terminate_orphans() -> list[str]:
    """Terminate the clusters that no run uses. Return their ids."""
    from airflow.providers.amazon.aws.hooks.emr import EmrHook

    from barflow.operations.clusters import live_clusters, orphaned

    emr, limit = EmrHook().conn, timedelta(minutes=contract().emr.step_timeout_minutes) + START_AND_END
    found = [item.cluster_id for item in orphaned(live_clusters(emr, ENV), is_live, datetime.now(UTC) - limit)]
    if found:
        emr.terminate_job_flows(JobFlowIds=found)
    log.info("clusters terminated: %s", ", ".join(found) or "none")
    return found


@task
def expire_staging() -> int:
    """Delete old sessions that are loaded, old rejected bars and old runs, and compact old manifests.

    Return how many sessions were deleted.
    """
    from barflow.operations.expiry import compact_manifests, expire_rejected, expire_runs, expire_staging

    stores = open_stores()
    deleted = expire_staging(stores, stores.clock())
    rejected = expire_rejected(stores, stores.clock())
    runs = expire_runs(stores)
    log.info("%d sessions, %d rejected bars and %d runs were deleted from MongoDB", deleted, rejected, runs)
    log.info("%d manifests were compacted", compact_manifests(stores))
    return deleted


@task
def reconcile_daily() -> None:
    """Compare the hops of every session, once a day. Fail if a guarantee is broken."""
    from barflow.pipeline.reconciliation import reconcile_daily

    found = reconcile_daily(open_stores())
    log.info("not due" if found is None else f"{len(found)} symbols reconcile")


@task
def send_alerts() -> int:
    """Send the alerts that are due. Return how many messages were sent; fail if a channel does not accept them."""
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
    doc_md=dag_doc("Cleanup", __doc__),
)
def sweep() -> None:
    """Define the DAG."""
    expire_staging()
    send_alerts()
    reconcile_daily()
    if not LOCAL:
        terminate_orphans()


sweep()
