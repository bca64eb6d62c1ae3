"""What do the DAGs share? Their settings, a task's defaults, operators that find a run's cluster again, the callback.

The settings are environment variables, read as the file is parsed, so that parsing asks nobody: BARFLOW_ENV,
BARFLOW_INGEST_RUNNER, BARFLOW_PROCESS_SCHEDULE, BARFLOW_POLL_SECONDS, BARFLOW_RETRIES and BARFLOW_RETRY_SECONDS.
All else comes from the runtime contract once a task runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator, EmrCreateJobFlowOperator
from airflow.providers.amazon.aws.operators.glue import GlueJobOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from barflow.errors import BadInputError, DayIsSpentError, VendorRefusedError

if TYPE_CHECKING:
    from barflow.contract import RuntimeContract
    from barflow.runtime import Run

ENV = os.environ.get("BARFLOW_ENV", "local")
LOCAL = ENV == "local"
POLL_SECONDS = int(os.environ.get("BARFLOW_POLL_SECONDS", "30"))
NEW_YORK = "America/New_York"
START = datetime(2026, 1, 1, tzinfo=UTC)
# The vendor's credits are shared by all who fetch: one at a time.
VENDOR_POOL = "barflow_vendor"
RUNBOOK = "What to do when it fails is in the operations runbook of the environment (`barflow runbook`)."

log = logging.getLogger(__name__)


def tell_failure(context: Any) -> None:
    """The failure callback of every task: one message to Slack. That it cannot be sent is logged and fails nothing."""
    from barflow.run_messages import Failure, failure_text

    ti, error = context["ti"], context.get("exception")
    failure = Failure(ENV, ti.dag_id, ti.task_id, ti.run_id, ti.try_number, _said(error), ti.log_url)
    tell(failure_text(failure))


def tell(text: str) -> None:
    """Posts to the channel that the environment names, where it names one."""
    from barflow.notify import tell_people

    try:
        problem = tell_people(open_run().settings, text)
    except Exception as error:  # whatever keeps Slack from hearing: the task's own end stands
        problem = f"{type(error).__name__}: {error}"
    if problem:
        log.warning("Slack was not told: %s", problem)


def _said(error: object) -> str | None:
    return str(error) or type(error).__name__ if error is not None else None


DEFAULTS: dict[str, Any] = {
    "owner": "barflow",
    "retries": int(os.environ.get("BARFLOW_RETRIES", "2")),
    "retry_delay": timedelta(seconds=int(os.environ.get("BARFLOW_RETRY_SECONDS", "60"))),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=15),
    "execution_timeout": timedelta(minutes=30),
    "on_failure_callback": tell_failure,
}
TAGS = ["barflow", ENV]


def open_run() -> Run:
    """The stores of the environment, by its contract; on a laptop by the process's own settings."""
    from barflow.deployment import open_run as opened

    return opened(ENV)[0]


def contract() -> RuntimeContract:
    from barflow.deployment import read_contract

    return read_contract(ENV)


@contextmanager
def final() -> Iterator[None]:
    """What no other try would mend fails at once: bad input, and what the vendor refused but for the next day."""
    try:
        yield
    except DayIsSpentError:
        raise
    except (BadInputError, VendorRefusedError) as error:
        raise AirflowFailException(str(error)) from None


class CreateCluster(EmrCreateJobFlowOperator):
    """The cluster of this DAG run: the one that an earlier try made, if it lives, else a new one. Returns its id."""

    def execute(self, context: Any) -> str | None:
        from barflow.clusters import cluster_request, find_cluster

        run = context["ti"].run_id
        found = find_cluster(self.hook.conn, ENV, run)
        if found is not None:
            self.log.info("an earlier try made the cluster %s; it is used", found)
            return found
        self.job_flow_overrides = cluster_request(contract(), run)
        return super().execute(context)

    def on_kill(self) -> None:
        """Nothing: the next try finds the cluster, and the teardown, the sweep or its own idle limit ends it."""


class BarsToParquet(EmrAddStepsOperator):
    """The Spark step, to its end. A step that an earlier try left at work is waited for instead of a second one."""

    template_fields = (*EmrAddStepsOperator.template_fields, "process_run")

    def __init__(self, *, process_run: str, **options: Any) -> None:
        super().__init__(**options)
        self.process_run = process_run

    def execute(self, context: Any) -> list[str]:
        from botocore.exceptions import WaiterError

        from barflow.cluster_run import step_state
        from barflow.clusters import step_request

        deployed, emr, cluster = contract(), self.hook.conn, str(self.job_flow_id)
        living = emr.list_steps(ClusterId=cluster, StepStates=["PENDING", "RUNNING"])["Steps"]
        self.steps = step_request(deployed, f"{self.process_run}-{context['ti'].try_number}")
        step = living[0]["Id"] if living else super().execute(context)[0]
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
        from barflow.cluster_run import job_state

        try:
            return super().execute(context)
        except AirflowException:
            if self._job_run_id is None:
                raise
            state, reason = job_state(self.hook.conn, self.job_name, self._job_run_id)
            raise AirflowException(
                f"the Glue job is {state}: {reason or 'no reason given'}. Run {self._job_run_id}"
            ) from None
