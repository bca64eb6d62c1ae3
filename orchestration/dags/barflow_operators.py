"""AWS operators of the process run. A retry reuses the cluster, step and job run that an earlier try left.

Their requests and their waits are in barflow.operations, which `barflow run` uses, too.
"""

from __future__ import annotations

import time
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator, EmrCreateJobFlowOperator
from airflow.providers.amazon.aws.operators.glue import GlueJobOperator
from airflow.providers.amazon.aws.operators.glue_crawler import GlueCrawlerRunOperator
from airflow.providers.amazon.aws.sensors.emr import EmrJobFlowSensor
from airflow.sdk.exceptions import AirflowException, AirflowSensorTimeout, AirflowSkipException
from barflow_tasks import ENV, contract

from barflow.operations.cluster_run import find_step, glue_job, spark_step, start_load
from barflow.operations.clusters import ENDED, UP, cluster_request, find_cluster, step_request
from barflow.operations.deployment import deployed_at
from barflow.operations.warehouse_crawl import is_crawled, missing_driver


class CreateCluster(EmrCreateJobFlowOperator):
    """Creates the cluster of this DAG run, or reuses a live one of an earlier try. Returns its id."""

    def execute(self, context: Any) -> str | None:
        """Return the id of the run's cluster."""
        run = context["ti"].run_id
        found = find_cluster(self.hook.conn, ENV, run)
        if found is not None:
            self.log.info("an earlier try created the cluster %s; it is reused", found)
            return found
        self.job_flow_overrides = cluster_request(contract(), run)
        return super().execute(context)

    def on_kill(self) -> None:
        """Keep the cluster: the next try finds it. The teardown, the sweep or its idle limit terminates it."""


class ClusterIsUp(EmrJobFlowSensor):
    """Waits until the cluster accepts steps. Fails with the cluster's state if it terminates or takes too long.

    It keeps its process between two pokes. A rescheduled poke that starts before the scheduler reads the end of the
    poke before it fails the task (apache/airflow#71172), and on PostgreSQL the scheduler can stop, too.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(target_states=UP, failed_states=ENDED, mode="poke", **options)

    def execute(self, context: Any) -> None:
        """Poke until the cluster is up; on a timeout, raise an error that names the cluster's state."""
        try:
            super().execute(context)
        except AirflowSensorTimeout:
            state = self.hook.conn.describe_cluster(ClusterId=self.job_flow_id)["Cluster"]["Status"]["State"]
            minutes = self.timeout / 60
            raise AirflowSensorTimeout(
                f"the cluster {self.job_flow_id} is {state} after {minutes:.0f} minutes. Nothing was written, and "
                "the run terminates the cluster. The next run processes the same bars."
            ) from None


class BarsToParquet(EmrAddStepsOperator):
    """Runs the Spark step and waits for its end. A step of an earlier try that runs or has completed is reused."""

    template_fields = (*EmrAddStepsOperator.template_fields, "process_run", "lineage_parent")

    def __init__(self, *, process_run: str, lineage_parent: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.process_run, self.lineage_parent = process_run, lineage_parent

    def execute(self, context: Any) -> list[str]:
        """Return the id of the completed step. Raise BarflowError when it fails or takes too long."""
        deployed, emr, cluster = contract(), self.hook.conn, str(self.job_flow_id)
        self.steps = step_request(deployed, f"{self.process_run}-{context['ti'].try_number}", self.lineage_parent)
        step = find_step(emr, cluster) or super().execute(context)[0]
        spark_step(deployed, emr, cluster, step).wait(deployed.emr.step_timeout_minutes, self.log.info, time.sleep)
        return [step]


class BarsToWarehouse(GlueJobOperator):
    """Runs the Glue job and waits for its end. A running job run of an earlier try is reused.

    A workflow starts the job. The host may not start it directly, because it could then replace the job's arguments.
    """

    template_fields = (*GlueJobOperator.template_fields, "process_run", "lineage_parent")

    def __init__(self, *, process_run: str, lineage_parent: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.process_run, self.lineage_parent = process_run, lineage_parent

    def submit_job(self, context: Any) -> str:
        """Start the workflow and return the id of the job run. Each try has its own run id."""
        run_id = f"{self.process_run}-{context['ti'].try_number}"
        self._job_run_id = None
        started = start_load(self.hook.conn, contract().glue, run_id, self.log.info, time.sleep, self.lineage_parent)
        self._set_job_run_id(context, started)
        return started

    def execute(self, context: Any) -> str | None:
        """Return the id of the job run. Raise BarflowError with the job's own error when it fails."""
        try:
            return super().execute(context)
        except AirflowException:
            if self._job_run_id is None:
                raise
            raise glue_job(self.hook.conn, self.job_name, self._job_run_id).failure() from None


class CrawlWarehouse(GlueCrawlerRunOperator):
    """Crawls the warehouse once after a deployment. Skips the crawl without the crawler's driver."""

    def execute(self, context: Any) -> str:
        """Return the crawler's name. Raise AirflowSkipException without a driver, or if the crawl has succeeded."""
        glue = contract().glue
        if missing := missing_driver(S3Hook().conn, glue):
            raise AirflowSkipException(missing)
        if is_crawled(self.hook.conn, glue.warehouse_crawler, deployed_at(ENV)):
            raise AirflowSkipException("the catalog has the warehouse's tables of this deployment")
        return str(super().execute(context))
