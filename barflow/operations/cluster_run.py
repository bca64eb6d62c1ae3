"""One process run on AWS, by hand or from a script: cluster, Spark step, end of the cluster, Glue job, crawlers.

What Airflow does on a schedule, from one command. The cluster is ended whatever happens to its step, and ends itself
should this process die. Clients and the wait are passed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from barflow.contract import RuntimeContract
from barflow.errors import BarflowError
from barflow.operations.clusters import cluster_request, step_request
from barflow.staging.ledger import new_run_id

Say = Callable[[str], None]
POLL_SECONDS = float(os.environ.get("BARFLOW_POLL_SECONDS", "15"))
STEP_FAILED = ("FAILED", "CANCELLED", "INTERRUPTED")
JOB_FAILED = ("FAILED", "TIMEOUT", "STOPPED", "ERROR", "EXPIRED")


@dataclass(frozen=True)
class Clients:
    """The boto3 clients of a run."""

    emr: Any
    glue: Any

    @classmethod
    def of(cls, region: str) -> Clients:
        import boto3

        return cls(boto3.client("emr", region_name=region), boto3.client("glue", region_name=region))


def run_once(contract: RuntimeContract, clients: Clients, say: Say, sleep: Callable[[float], None]) -> dict[str, Any]:
    """Runs process and aggregate and waits for both. Returns the ids of what ran.

    Raises BarflowError when the step or the job fails or takes longer than the contract allows.
    """
    run_id = new_run_id("process")
    found = clients.emr.run_job_flow(**cluster_request(contract, run_id))
    cluster_id = str(found["JobFlowId"])
    say(f"cluster {cluster_id} is starting; it takes some minutes")
    try:
        step_id = clients.emr.add_job_flow_steps(JobFlowId=cluster_id, Steps=step_request(contract, run_id))["StepIds"][
            0
        ]
        _wait_for_step(contract, clients.emr, cluster_id, step_id, say, sleep)
    finally:
        clients.emr.terminate_job_flows(JobFlowIds=[cluster_id])
        say(f"cluster {cluster_id} is ending")
    _start_crawler(clients.glue, contract.glue.lake_crawler)
    job_run_id = clients.glue.start_job_run(JobName=contract.glue.job)["JobRunId"]
    say(f"Glue job run {job_run_id}")
    _wait_for_job(contract, clients.glue, job_run_id, say, sleep)
    _start_crawler(clients.glue, contract.glue.warehouse_crawler)
    return {"run_id": run_id, "cluster": cluster_id, "step": step_id, "job_run": job_run_id, "outcome": "loaded"}


def _wait_for_step(
    contract: RuntimeContract, emr: Any, cluster_id: str, step_id: str, say: Say, sleep: Callable[[float], None]
) -> None:
    def look() -> tuple[str, str]:
        return step_state(emr, cluster_id, step_id)

    logs = f"{contract.emr.log_uri}{cluster_id}/steps/{step_id}/"
    _wait("Spark step", look, STEP_FAILED, "COMPLETED", contract.emr.step_timeout_minutes, logs, say, sleep)


def _wait_for_job(contract: RuntimeContract, glue: Any, run_id: str, say: Say, sleep: Callable[[float], None]) -> None:
    def look() -> tuple[str, str]:
        return job_state(glue, contract.glue.job, run_id)

    logs = f"CloudWatch, the run {run_id}"
    # The job has a timeout of its own; an hour more than the longest that Glue starts in is only for this loop's end.
    _wait("Glue job", look, JOB_FAILED, "SUCCEEDED", 25 * 60, logs, say, sleep)


def _wait(
    what: str,
    look: Callable[[], tuple[str, str]],
    failed: tuple[str, ...],
    done: str,
    minutes: int,
    logs: str,
    say: Say,
    sleep: Callable[[float], None],
) -> None:
    last = ""
    for _ in range(int(minutes * 60 / POLL_SECONDS) + 1):
        state, reason = look()
        if state != last:
            say(f"{what}: {state}")
            last = state
        if state == done:
            return
        if state in failed:
            raise BarflowError(
                f"the {what} ended as {state}{': ' + reason if reason else ''}. What readers see is unchanged. "
                f"Its logs: {logs}. Mend the cause, then run it again."
            )
        sleep(POLL_SECONDS)
    raise BarflowError(
        f"the {what} was not done in {minutes} minutes. Its logs: {logs}. Look there, then run it again."
    )


def _start_crawler(glue: Any, name: str) -> None:
    """Starts a crawler, unless it runs already; what it enters is for queries, and no run waits for it."""
    try:
        glue.start_crawler(Name=name)
    except glue.exceptions.CrawlerRunningException:
        return


def step_state(emr: Any, cluster_id: str, step_id: str) -> tuple[str, str]:
    """The state of a step, and why it failed if it did."""
    status = emr.describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]["Status"]
    details = status.get("FailureDetails", {})
    return status["State"], details.get("Message") or details.get("Reason", "")


def job_state(glue: Any, job: str, run_id: str) -> tuple[str, str]:
    """The state of a Glue job's run, and why it failed if it did."""
    run = glue.get_job_run(JobName=job, RunId=run_id)["JobRun"]
    return run["JobRunState"], run.get("ErrorMessage", "")
