"""Process runs on AWS: the Spark step, the Glue job, and one whole run for `barflow run`.

The DAG ``process_bars`` uses the same requests, arguments, states and messages. boto3 clients are passed in. The DAG
processor imports this module, so it imports no store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from barflow.contract import Glue, RuntimeContract
from barflow.errors import BarflowError
from barflow.operations.clusters import cluster_request, step_request
from barflow.operations.polling import POLL_SECONDS, Execution
from barflow.operations.warehouse_crawl import missing_driver
from barflow.pipeline.program import LINEAGE_PARENT_PROPERTY, RUN_ID_PROPERTY
from barflow.progress import Log

# States of a step that an earlier try of a run added, and that need not be added again.
REUSABLE = ["PENDING", "RUNNING", "COMPLETED"]
# Glue ends the job earlier, by the job's own timeout; this only bounds the wait.
JOB_WAIT_MINUTES = 25 * 60
RETRY_SECONDS = 30.0  # until a workflow that another run uses is started again
JOB_START_MINUTES = 10


@dataclass(frozen=True)
class Clients:
    """The boto3 clients of a run."""

    emr: Any
    glue: Any
    s3: Any

    @classmethod
    def of(cls, region: str) -> Clients:
        """Open the clients of a region with the caller's credentials."""
        import boto3

        return cls(*(boto3.client(service, region_name=region) for service in ("emr", "glue", "s3")))


def run_once(contract: RuntimeContract, clients: Clients, log: Log, sleep: Callable[[float], None]) -> dict[str, Any]:
    """Run process and aggregate once, wait for both, and return the ids of what ran.

    The cluster is always terminated. If this process dies, the cluster terminates itself when idle.
    Raises BarflowError when the step or the job fails or takes longer than the contract allows.
    """
    from barflow.staging.ledger import new_run_id

    run_id = new_run_id("process")
    cluster_id = str(clients.emr.run_job_flow(**cluster_request(contract, run_id))["JobFlowId"])
    log(f"cluster {cluster_id} is starting, which takes some minutes")
    try:
        added = clients.emr.add_job_flow_steps(JobFlowId=cluster_id, Steps=step_request(contract, run_id))
        step_id = str(added["StepIds"][0])
        step = spark_step(contract, clients.emr, cluster_id, step_id)
        step.wait(contract.emr.step_timeout_minutes, log, sleep)
    finally:
        clients.emr.terminate_job_flows(JobFlowIds=[cluster_id])
        log(f"cluster {cluster_id} is terminating")
    _start_crawler(clients.glue, contract.glue.lake_crawler)
    job_run_id = start_load(clients.glue, contract.glue, run_id, log, sleep)
    log(f"Glue job run {job_run_id} is starting")
    glue_job(clients.glue, contract.glue.job, job_run_id).wait(JOB_WAIT_MINUTES, log, sleep)
    if missing := missing_driver(clients.s3, contract.glue):
        log(missing)
    else:
        _start_crawler(clients.glue, contract.glue.warehouse_crawler)
    return {"run_id": run_id, "cluster": cluster_id, "step": step_id, "job_run": job_run_id, "outcome": "loaded"}


def start_load(
    glue: Any,
    deployed: Glue,
    run_id: str,
    log: Log,
    sleep: Callable[[float], None],
    lineage_parent: str | None = None,
) -> str:
    """Start the Glue job through its workflow, and return the id of the job's run.

    The workflow fixes the job's arguments. ``run_id`` and ``lineage_parent`` are properties of its run, which the job
    reads. Wait while another run is active: Glue allows one at a time. Raises BarflowError if that run does not end, or
    if no job starts.
    """
    properties = {RUN_ID_PROPERTY: run_id, **({LINEAGE_PARENT_PROPERTY: lineage_parent} if lineage_parent else {})}
    workflow_run = _start_workflow(glue, deployed.workflow, properties, log, sleep)
    for _ in range(int(JOB_START_MINUTES * 60 / POLL_SECONDS) + 1):
        run = glue.get_workflow_run(Name=deployed.workflow, RunId=workflow_run, IncludeGraph=True)["Run"]
        nodes = run.get("Graph", {}).get("Nodes", ())
        started = [job["Id"] for node in nodes for job in node.get("JobDetails", {}).get("JobRuns", ())]
        if started:
            return str(started[0])
        if run["Status"] != "RUNNING":
            break
        sleep(POLL_SECONDS)
    raise BarflowError(
        f"the run {workflow_run} of the Glue workflow {deployed.workflow} started no job: "
        f"{run.get('ErrorMessage') or 'it is ' + run['Status']}. The archive is complete, and nothing was loaded. "
        "Look at the workflow in Glue, then run `barflow run` again."
    )


def _start_workflow(
    glue: Any, workflow: str, properties: dict[str, str], log: Log, sleep: Callable[[float], None]
) -> str:
    """Start the workflow and return the id of its run. Wait while another run is active."""
    waited = 0.0
    while True:
        try:
            return str(glue.start_workflow_run(Name=workflow, RunProperties=properties)["RunId"])
        except glue.exceptions.ConcurrentRunsExceededException:
            if waited >= JOB_WAIT_MINUTES * 60:
                raise BarflowError(
                    f"another run of the Glue workflow {workflow} is active. The archive is complete, and nothing was "
                    "loaded. Wait until it ends, then run `barflow run` again."
                ) from None
        if not waited:
            log(f"another run of the Glue workflow {workflow} is active: waiting")
        sleep(RETRY_SECONDS)
        waited += RETRY_SECONDS


def find_step(emr: Any, cluster_id: str) -> str | None:
    """Return the id of the step that an earlier try added to this cluster, if it runs or has completed."""
    found = emr.list_steps(ClusterId=cluster_id, StepStates=REUSABLE)["Steps"]
    return str(found[0]["Id"]) if found else None


def spark_step(contract: RuntimeContract, emr: Any, cluster_id: str, step_id: str) -> Execution:
    """Return the Spark step of a cluster, to wait for it or to describe its failure."""

    def read_state() -> tuple[str, str]:
        status = emr.describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]["Status"]
        details = status.get("FailureDetails", {})
        return status["State"], details.get("Message") or details.get("Reason") or ""

    logs = f"{contract.emr.log_uri}{cluster_id}/steps/{step_id}/"
    return Execution("Spark step", read_state, "COMPLETED", ("FAILED", "CANCELLED", "INTERRUPTED"), logs)


def glue_job(glue: Any, job: str, job_run_id: str) -> Execution:
    """Return a run of the Glue job, to wait for it or to describe its failure."""

    def read_state() -> tuple[str, str]:
        run = glue.get_job_run(JobName=job, RunId=job_run_id)["JobRun"]
        return run["JobRunState"], run.get("ErrorMessage") or ""

    failed = ("FAILED", "TIMEOUT", "STOPPED", "ERROR", "EXPIRED")
    return Execution("Glue job", read_state, "SUCCEEDED", failed, f"CloudWatch, the run {job_run_id}")


def _start_crawler(glue: Any, name: str) -> None:
    """Start a crawler unless it is running. No run waits for it: queries of the catalog use its result."""
    try:
        glue.start_crawler(Name=name)
    except glue.exceptions.CrawlerRunningException:
        return
