"""Process and aggregate: write the changed bars to the Parquet archive and load them into PostgreSQL.

Spark on a transient EMR cluster writes the archive; the cluster is always terminated. The Glue job loads the
warehouse. Then the run compares all hops and posts a summary to Slack. If nothing changed since the last run, it
starts no program. A failed run leaves the warehouse unchanged and each Parquet file complete. The next run processes
what is missing.

Crawlers update the catalog at the same time. A crawl that fails is posted to Slack, and the run stays green.

On a laptop (`BARFLOW_ENV=local`) the same programs run in Airflow's tasks.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.providers.amazon.aws.hooks.glue import GlueJobHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.amazon.aws.operators.emr import EmrTerminateJobFlowOperator
from airflow.providers.amazon.aws.operators.glue_crawler import GlueCrawlerRunOperator
from airflow.providers.amazon.aws.sensors.rds import RdsDbSensor
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import MultipleCronTriggerTimetable, Param, chain, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException
from barflow_operators import BarsToParquet, BarsToWarehouse, ClusterIsUp, CrawlWarehouse, CreateCluster
from barflow_tasks import (
    DEFAULTS,
    LINEAGE_PARENT,
    LOCAL,
    NEW_YORK,
    START,
    TAGS,
    contract,
    dag_doc,
    log,
    open_stores,
    post_to_slack,
)

from barflow.operations.polling import POLL_SECONDS

# Cron expressions in New York time, separated by semicolons. Without one, the DAG runs only by hand. The default is
# after the closing bars.
SCHEDULE = os.environ.get("BARFLOW_PROCESS_SCHEDULE", "" if LOCAL else "45 16 * * MON-FRI")
CLUSTER_START = timedelta(minutes=float(os.environ.get("BARFLOW_CLUSTER_START_MINUTES", "25")))


@task(multiple_outputs=True)
def find_changes() -> dict[str, Any]:
    """Skip the run if nothing changed. Return the run's id and the names of the resources that it uses."""
    from barflow.pipeline.reconciliation import pending
    from barflow.staging.ledger import new_run_id

    stores = open_stores()
    changed = pending(stores)
    if not changed and not get_current_context()["params"]["force"]:
        raise AirflowSkipException("nothing was staged since the last run")
    sessions = changed.sessions
    log.info("%d sessions of %d symbols changed", len(sessions), len({symbol for symbol, _ in sessions}))
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


def run_program(program: str, process_run: str, lineage_parent: str | None) -> dict[str, Any]:
    """Run a Spark program of this checkout. Each try has its own id; the summary reads all of them."""
    from barflow.pipeline.children import run_script

    run_id = f"{process_run}-{get_current_context()['ti'].try_number}"
    stores = open_stores()
    stores.lineage_parent = lineage_parent
    return run_script(stores, program, log.info, "--run-id", run_id)


@task
def bars_to_parquet(process_run: str, lineage_parent: str | None) -> dict[str, Any]:
    """Run the Spark program of the EMR step on this machine."""
    return run_program("spark/bars_to_parquet.py", process_run, lineage_parent)


@task
def bars_to_warehouse(process_run: str, lineage_parent: str | None) -> dict[str, Any]:
    """Run the Spark program of the Glue job on this machine."""
    return run_program("glue/aggregate_bars.py", process_run, lineage_parent)


@task
def reconcile() -> None:
    """Compare the hops in what changed since the last reconciliation. Fail the run if a guarantee is broken."""
    from barflow.pipeline.reconciliation import reconcile

    found = reconcile(open_stores())
    log.info("%d symbols reconcile", len(found))


@task
def summary(process_run: str, cluster: str | None = None, job_run: str | None = None) -> str:
    """Post what the run did: rows in and out, rejected bars, duration and cost. Publish its metrics."""
    from barflow.operations import cloudwatch as metrics
    from barflow.operations.run_messages import summary_text
    from barflow.operations.run_summary import dollars_spent, summarize
    from barflow.operations.warehouse_crawl import missing_driver

    stores, now = open_stores(), datetime.now(UTC)
    dollars = note = None
    if cluster and job_run:
        deployed = contract()
        dollars = dollars_spent(deployed, EmrHook().conn, GlueJobHook().conn, cluster, job_run, now)
        note = missing_driver(S3Hook().conn, deployed.glue)
    started = get_current_context()["dag_run"].start_date
    done = summarize(stores, process_run, (now - started).total_seconds(), dollars, note)
    if dollars is not None:
        problem = metrics.put([metrics.run_metrics(stores.settings.env, sum(done.loaded.values()), dollars)], now)
        log.info("%s", problem or "CloudWatch has the run's rows and cost")
    text = summary_text(done)
    log.info("%s", text)
    post_to_slack(text)
    return text


def xcom(task_id: str, key: str = "return_value") -> str:
    """Return the template of an earlier task's XCom. A direct argument would add an edge to the graph."""
    return f"{{{{ ti.xcom_pull('{task_id}', key='{key}') }}}}"


PROCESS_RUN = xcom("find_changes", "process_run")
CLUSTER = xcom("create_cluster")


def on_laptop() -> None:
    """Add the tasks of a laptop, which needs no AWS."""
    chain(
        find_changes(),
        bars_to_parquet(PROCESS_RUN, LINEAGE_PARENT),
        bars_to_warehouse(PROCESS_RUN, LINEAGE_PARENT),
        reconcile(),
        summary(PROCESS_RUN),
    )


def on_aws() -> None:
    """Add the tasks of a deployment."""
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
        lineage_parent=LINEAGE_PARENT,
        execution_timeout=timedelta(hours=2),
    )
    terminate_cluster = EmrTerminateJobFlowOperator(task_id="terminate_cluster", job_flow_id=CLUSTER)
    crawl_lake = GlueCrawlerRunOperator(
        task_id="crawl_lake",
        crawler_name=xcom("find_changes", "lake_crawler"),
        poll_interval=POLL_SECONDS,
        fail_on_already_running=False,
    )
    warehouse_is_up = RdsDbSensor(
        task_id="warehouse_is_up",
        db_identifier=xcom("find_changes", "database"),
        mode="poke",  # as ClusterIsUp
        poke_interval=POLL_SECONDS,
        timeout=timedelta(minutes=25).total_seconds(),  # before execution_timeout, after which the task is retried
    )
    to_warehouse = BarsToWarehouse(
        task_id="bars_to_warehouse",
        job_name=xcom("find_changes", "job"),
        process_run=PROCESS_RUN,
        lineage_parent=LINEAGE_PARENT,
        job_poll_interval=POLL_SECONDS,
        stop_job_run_on_kill=True,
        execution_timeout=timedelta(hours=2),
    )
    crawl_warehouse = CrawlWarehouse(
        task_id="crawl_warehouse",
        crawler_name=xcom("find_changes", "warehouse_crawler"),
        poll_interval=POLL_SECONDS,
        fail_on_already_running=False,
    )
    summarize = summary(PROCESS_RUN, cluster=CLUSTER, job_run=xcom("bars_to_warehouse"))
    chain(find_changes(), create, is_up, to_parquet)
    # The teardown runs whether or not the step succeeded. It must not decide the state of the run: a successful
    # teardown would then turn a run with a failed step green.
    to_parquet >> terminate_cluster.as_teardown(setups=create)
    chain(to_parquet, warehouse_is_up, to_warehouse, reconcile(), summarize)
    # The last tasks decide the state of the run. So a crawl is never the last task: this one follows it and succeeds.
    crawls_ended = EmptyOperator(task_id="crawls_ended", trigger_rule="all_done")
    to_parquet >> crawl_lake >> crawls_ended
    to_warehouse >> crawl_warehouse >> crawls_ended


@dag(
    dag_id="process_bars",
    schedule=MultipleCronTriggerTimetable(*SCHEDULE.split(";"), timezone=NEW_YORK) if SCHEDULE else None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=4),
    default_args=DEFAULTS,
    params={"force": Param(False, type="boolean", description="run even if nothing changed")},
    tags=TAGS,
    doc_md=dag_doc("Bars to archive and warehouse", __doc__),
)
def process_bars() -> None:
    """Define the DAG."""
    on_laptop() if LOCAL else on_aws()


process_bars()
