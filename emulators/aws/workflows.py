"""Glue workflows: a run starts the jobs of the workflow's on-demand trigger, each with that trigger's arguments.

A caller gives a run only properties. A job reads them by the two arguments that Glue adds.
https://docs.aws.amazon.com/glue/latest/dg/workflow-run-properties-code.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.core.responses import ActionResult
from moto.glue.exceptions import ConcurrentRunsExceededException
from moto.glue.models import FakeJobRun, FakeWorkflow, FakeWorkflowRun, GlueBackend, glue_backends
from moto.glue.responses import GlueResponse

from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.patches import Function, wrap

ACTIVE = ("STARTING", "RUNNING", "STOPPING", "WAITING")


@wrap(FakeWorkflow, "start_run")
def _start_run(original: Function, workflow: FakeWorkflow, properties: Mapping[str, str] | None) -> str:
    """Start a run, and the jobs of its trigger, unless as many runs as allowed are active."""
    active = [run for run in workflow.runs.values() if run.as_dict()["Status"] == "RUNNING"]
    if len(active) >= int(workflow.max_concurrent_runs or len(active) + 1):
        raise ConcurrentRunsExceededException(f"Concurrent runs exceeded for workflow: {workflow.name}.")
    run_id: str = original(workflow, properties)
    run, glue = workflow.runs[run_id], glue_backends[ACCOUNT][REGION]
    run.jobs = _start_jobs(glue, run)
    return run_id


def _start_jobs(glue: GlueBackend, run: FakeWorkflowRun) -> dict[str, FakeJobRun]:
    """Start the jobs of the workflow's on-demand trigger. Return their runs; a job that is active gets none."""
    triggers = [trigger for trigger in glue.triggers.values() if trigger.workflow_name == run.workflow_name]
    started = {}
    own = {"--WORKFLOW_NAME": run.workflow_name, "--WORKFLOW_RUN_ID": run.run_id}
    for action in (action for trigger in triggers if trigger.trigger_type == "ON_DEMAND" for action in trigger.actions):
        given = {**(action.arguments or {}), **own}
        unset = dict.fromkeys(
            ("allocated_capacity", "max_capacity", "worker_type", "security_configuration", "number_of_workers",
             "notification_property", "previous_run_id")
        )  # fmt: skip
        try:
            job_run = glue.start_job_run(action.job_name, given, timeout=action.timeout, **unset)
        except ConcurrentRunsExceededException:
            continue
        started[action.job_name] = glue.get_job_run(action.job_name, job_run)
    return started


@wrap(FakeWorkflowRun, "as_dict")
def _describe_run(original: Function, run: FakeWorkflowRun) -> dict[str, Any]:
    """Return a run. It is completed when its jobs have ended, successfully or not."""
    described: dict[str, Any] = original(run)
    if not any(job_run.as_dict()["JobRunState"] in ACTIVE for job_run in _jobs(run).values()):
        described["Status"] = "COMPLETED"
    return described


@wrap(GlueResponse, "get_workflow_run")
def _get_workflow_run(original: Function, response: GlueResponse) -> ActionResult:
    """Answer GetWorkflowRun. Only a call that asks for the graph gets it, with the jobs that the run has started."""
    answer: ActionResult = original(response)
    if response._get_param("IncludeGraph"):
        name, run_id = response._get_param("Name"), response._get_param("RunId")
        jobs = _jobs(response.glue_backend.workflows[name].get_run(run_id))
        nodes = [{"Type": "JOB", "Name": job, "JobDetails": {"JobRuns": [jobs[job].as_dict()]}} for job in jobs]
        answer.result["Run"]["Graph"] = {"Nodes": nodes}
    return answer


def _jobs(run: FakeWorkflowRun) -> Mapping[str, FakeJobRun]:
    found: Mapping[str, FakeJobRun] = getattr(run, "jobs", {})
    return found
