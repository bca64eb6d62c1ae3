"""How does a task find what an earlier try of it left at work? Operators for the cluster, the step and the job."""

from __future__ import annotations

from typing import Any

from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator, EmrCreateJobFlowOperator
from airflow.providers.amazon.aws.operators.glue import GlueJobOperator
from airflow.providers.amazon.aws.sensors.emr import EmrJobFlowSensor
from airflow.sdk.exceptions import AirflowException, AirflowSensorTimeout
from barflow_tasks import ENV, POLL_SECONDS, contract


class CreateCluster(EmrCreateJobFlowOperator):
    """The cluster of this DAG run: the one that an earlier try made, if it lives, else a new one. Returns its id."""

    def execute(self, context: Any) -> str | None:
        from barflow.operations.clusters import cluster_request, find_cluster

        run = context["ti"].run_id
        found = find_cluster(self.hook.conn, ENV, run)
        if found is not None:
            self.log.info("an earlier try made the cluster %s; it is used", found)
            return found
        self.job_flow_overrides = cluster_request(contract(), run)
        return super().execute(context)

    def on_kill(self) -> None:
        """Nothing: the next try finds the cluster, and the teardown, the sweep or its own idle limit ends it."""


class ClusterIsUp(EmrJobFlowSensor):
    """Waits until the cluster takes steps. Fails with its state where it ends or takes too long."""

    def __init__(self, **options: Any) -> None:
        failed = ["TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS"]
        super().__init__(target_states=["RUNNING", "WAITING"], failed_states=failed, mode="reschedule", **options)

    def execute(self, context: Any) -> None:
        try:
            super().execute(context)
        except AirflowSensorTimeout:
            state = self.hook.conn.describe_cluster(ClusterId=self.job_flow_id)["Cluster"]["Status"]["State"]
            minutes = self.timeout / 60
            raise AirflowSensorTimeout(
                f"the cluster {self.job_flow_id} is {state} after {minutes:.0f} minutes and is ended"
            ) from None


class BarsToParquet(EmrAddStepsOperator):
    """The Spark step, to its end. One that an earlier try left, at work or since completed, is not done again."""

    template_fields = (*EmrAddStepsOperator.template_fields, "process_run")

    def __init__(self, *, process_run: str, **options: Any) -> None:
        super().__init__(**options)
        self.process_run = process_run

    def execute(self, context: Any) -> list[str]:
        from botocore.exceptions import WaiterError

        from barflow.operations.cluster_run import step_state
        from barflow.operations.clusters import step_request

        deployed, emr, cluster = contract(), self.hook.conn, str(self.job_flow_id)
        left = emr.list_steps(ClusterId=cluster, StepStates=["PENDING", "RUNNING", "COMPLETED"])["Steps"]
        self.steps = step_request(deployed, f"{self.process_run}-{context['ti'].try_number}")
        step = left[0]["Id"] if left else super().execute(context)[0]
        attempts = deployed.emr.step_timeout_minutes * 60 // POLL_SECONDS + 1
        try:
            self.hook.get_waiter("step_wait_for_terminal").wait(
                ClusterId=cluster, StepId=step, WaiterConfig={"Delay": POLL_SECONDS, "MaxAttempts": attempts}
            )
        except WaiterError:
            state, reason = step_state(emr, cluster, step)
            logs = f"{deployed.emr.log_uri}{cluster}/steps/{step}/"
            raise AirflowException(
                f"the Spark step is {state}: {reason or 'no reason given'}. Its logs: {logs}"
            ) from None
        return [step]


class BarsToWarehouse(GlueJobOperator):
    """The Glue job, to its end. A run that an earlier try left at work is taken up again."""

    def execute(self, context: Any) -> str | None:
        from barflow.operations.cluster_run import job_state

        try:
            return super().execute(context)
        except AirflowException:
            if self._job_run_id is None:
                raise
            state, reason = job_state(self.hook.conn, self.job_name, self._job_run_id)
            raise AirflowException(
                f"the Glue job is {state}: {reason or 'no reason given'}. Run {self._job_run_id}"
            ) from None
