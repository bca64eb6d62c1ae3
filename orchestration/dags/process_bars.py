"""
### Bars to archive and warehouse

Takes what changed in MongoDB since the last run into the Parquet archive (Spark on a cluster of its own, ended whatever
happens) and from there into PostgreSQL (the Glue job), then compares all hops and tells what it did. Nothing new:
nothing is started. A run that fails changes nothing that readers see, and the next one does its work.

On a laptop (`BARFLOW_ENV=local`) the same programs run here.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.hooks.glue import GlueJobHook
from airflow.providers.amazon.aws.operators.emr import EmrTerminateJobFlowOperator
from airflow.providers.amazon.aws.operators.glue_crawler import GlueCrawlerRunOperator
from airflow.providers.amazon.aws.sensors.rds import RdsDbSensor
from airflow.sdk import MultipleCronTriggerTimetable, Param, chain, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException
from barflow_operators import BarsToParquet, BarsToWarehouse, ClusterIsUp, CreateCluster
from barflow_tasks import (
    DEFAULTS,
    LOCAL,
    NEW_YORK,
    POLL_SECONDS,
    RUNBOOK,
    START,
    TAGS,
    contract,
    log,
    open_stores,
    tell,
)

# Once the closing bars are certain. Cron expressions in New York time, divided by semicolons; none: by hand.
SCHEDULE = os.environ.get("BARFLOW_PROCESS_SCHEDULE", "" if LOCAL else "45 16 * * MON-FRI")
CLUSTER_START = timedelta(minutes=float(os.environ.get("BARFLOW_CLUSTER_START_MINUTES", "25")))


@task(multiple_outputs=True)
def find_changes() -> dict[str, Any]:
    """Skips the run where nothing changed. Gives the run's id and the names of what it uses."""
    from barflow.pipeline.status import pending
    from barflow.staging.ledger import new_run_id

    stores = open_stores()
    waiting = pending(stores)
    if not waiting and not get_current_context()["params"]["force"]:
        raise AirflowSkipException("nothing was staged since the last run")
    log.info("%d sessions of %d symbols changed", len(waiting), len({symbol for symbol, _ in waiting}))
    found = {"process_run": new_run_id("process")}
    if LOCAL:
        return found
    deployed = contract()
    return found | {
        "job": deployed.glue.job,
        "lake_crawler": deployed.glue.lake_crawler,
        "warehouse_crawler": deployed.glue.warehouse_crawler,
        "database": deployed.warehouse.instance_id,
    }


def run_program(program: str, process_run: str) -> dict[str, Any]:
    """Each try under an id of its own, by which the summary finds them all."""
    process_run = f"{process_run}-{get_current_context()['ti'].try_number}"
    from barflow.pipeline.children import run_script

    return run_script(open_stores(), program, log.info, "--run-id", process_run)


@task
def bars_to_parquet(process_run: str) -> dict[str, Any]:
    """The Spark program of the EMR step, on this machine."""
    return run_program("spark/bars_to_parquet.py", process_run)


@task
def bars_to_warehouse(process_run: str) -> dict[str, Any]:
    """The Spark program of the Glue job, on this machine."""
    return run_program("glue/aggregate_bars.py", process_run)


@task
def reconcile() -> None:
    """Compares the hops end to end, as `barflow status`. Fails the run when a guarantee is broken."""
    from barflow.pipeline.status import reconcile

    found = reconcile(open_stores())
    log.info("%d symbols reconcile", len(found))


@task
def summary(process_run: str, cluster: str | None = None, job_run: str | None = None) -> str:
    """Tells what the run did: rows in and out, rejected, duration, cost."""
    from barflow.operations import cloudwatch as metrics
    from barflow.operations.run_messages import summary_text
    from barflow.operations.run_summary import dollars_spent, summarize

    stores, now = open_stores(), datetime.now(UTC)
    dollars = None
    if cluster and job_run:
        dollars = dollars_spent(contract(), EmrHook().conn, GlueJobHook().conn, cluster, job_run, now)
    started = get_current_context()["dag_run"].start_date
    done = summarize(stores, process_run, (now - started).total_seconds(), dollars)
    if dollars is not None:
        problem = metrics.put([metrics.of_run(stores.settings.env, sum(done.loaded.values()), dollars)], now)
        log.info("%s", problem or "the run's rows and cost are counted")
    text = summary_text(done)
    log.info("%s", text)
    tell(text)
    return text


def pulled(task_id: str, key: str = "return_value") -> str:
    """What a task before gave. A template and no argument of its own, which would draw an edge across the graph."""
    return f"{{{{ ti.xcom_pull('{task_id}', key='{key}') }}}}"


PROCESS_RUN = pulled("find_changes", "process_run")
CLUSTER = pulled("create_cluster")


def on_laptop() -> None:
    chain(
        find_changes(), bars_to_parquet(PROCESS_RUN), bars_to_warehouse(PROCESS_RUN), reconcile(), summary(PROCESS_RUN)
    )


def on_aws() -> None:
    create = CreateCluster(task_id="create_cluster", emr_conn_id=None)
    is_up = ClusterIsUp(
        task_id="cluster_is_up",
        job_flow_id=CLUSTER,
        poke_interval=POLL_SECONDS,
        timeout=CLUSTER_START.total_seconds(),
    )
    to_parquet = BarsToParquet(
        task_id="bars_to_parquet",
        job_flow_id=CLUSTER,
        process_run=PROCESS_RUN,
        execution_timeout=timedelta(hours=2),
    )
    terminate_cluster = EmrTerminateJobFlowOperator(task_id="terminate_cluster", job_flow_id=CLUSTER)
    crawl_lake = GlueCrawlerRunOperator(
        task_id="crawl_lake",
        crawler_name=pulled("find_changes", "lake_crawler"),
        poll_interval=POLL_SECONDS,
        fail_on_already_running=False,
    )
    warehouse_is_up = RdsDbSensor(
        task_id="warehouse_is_up",
        db_identifier=pulled("find_changes", "database"),
        mode="reschedule",
        poke_interval=POLL_SECONDS,
        timeout=timedelta(minutes=30).total_seconds(),
    )
    to_warehouse = BarsToWarehouse(
        task_id="bars_to_warehouse",
        job_name=pulled("find_changes", "job"),
        script_args={"--run-id": f"{PROCESS_RUN}-{{{{ ti.try_number }}}}"},
        job_poll_interval=POLL_SECONDS,
        stop_job_run_on_kill=True,
        execution_timeout=timedelta(hours=2),
    )
    crawl_warehouse = GlueCrawlerRunOperator(
        task_id="crawl_warehouse",
        crawler_name=pulled("find_changes", "warehouse_crawler"),
        poll_interval=POLL_SECONDS,
        fail_on_already_running=False,
    )
    told = summary(PROCESS_RUN, cluster=CLUSTER, job_run=pulled("bars_to_warehouse"))
    chain(find_changes(), create, is_up, to_parquet)
    # Ended whatever became of the step. It must not fail the run by itself: then a teardown that went well would make
    # a run with a failed step succeed.
    to_parquet >> terminate_cluster.as_teardown(setups=create)
    chain(to_parquet, crawl_lake, warehouse_is_up, to_warehouse, crawl_warehouse, reconcile(), told)


@dag(
    dag_id="process_bars",
    schedule=MultipleCronTriggerTimetable(*SCHEDULE.split(";"), timezone=NEW_YORK) if SCHEDULE else None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=4),
    default_args=DEFAULTS,
    params={"force": Param(False, type="boolean", description="run also where nothing changed")},
    tags=TAGS,
    doc_md=f"{__doc__}\n{RUNBOOK}",
)
def process_bars() -> None:
    on_laptop() if LOCAL else on_aws()


process_bars()
