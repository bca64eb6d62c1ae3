"""Glue job runs that execute the deployed script on this host, as Glue would start it.

The script gets all default arguments of the job and all arguments of the run, as on Glue. Its extra files are in its
working folder and its extra Python files on its path. Spark reads ``s3://`` from a copy of the bucket at the start of
the run, because this environment has no S3 file system for Spark. The program's own AWS clients use the emulator's S3.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores, unix_time_millis, utcnow
from moto.glue.models import FakeJob, FakeJobRun
from moto.glue.responses import GlueResponse
from moto.logs.models import logs_backends
from moto.moto_api import state_manager

from emulators.aws import programs, runtime, s3_objects
from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.authorization import role_name
from emulators.aws.faults import Fault
from emulators.aws.patches import Function, add, wrap
from emulators.aws.programs import Program

STARTING = 0.25  # seconds
# The arguments of a job that name files in S3.
FILE_ARGUMENTS = ("--extra-py-files", "--extra-files", "--additional-python-modules")
VIEW_FILE_SYSTEM = "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme"
STOPPED, TIMED_OUT = "STOPPED", "TIMEOUT"
LOG_GROUP = "/aws-glue/jobs"

# A run's status changes only when this module sets it.
state_manager.set_transition("glue::job_run", {"progression": "manual", "times": sys.maxsize})


class JobRunThread:
    """A thread that executes one job run."""

    def __init__(self, job: FakeJob, run: FakeJobRun) -> None:
        self._job, self._run = job, run
        self._program: Program | None = None
        self._ended_as = ""
        run.error, run.ended = "", None
        threading.Thread(target=self._execute, daemon=True).start()

    def stop(self, status: str = STOPPED) -> None:
        """Kill the program; the run ends with this status."""
        self._ended_as = self._ended_as or status
        if self._program:
            self._program.kill()

    def _execute(self) -> None:
        run = self._run
        time.sleep(STARTING)
        try:
            folder = programs.new_folder(run.job_run_id[:12])
            code = self._run_script(folder)
            error = self._program.error(code) if code and self._program else ""
        except Exception as problem:  # a missing file, or a defect of this file: the run must not last for ever
            code, error = 1, f"{type(problem).__name__}: {problem}"
        run.ended = utcnow()
        if self._ended_as == TIMED_OUT:
            error = "Job run exceeded its timeout"
        run.error = error if code or self._ended_as else ""
        # The status comes last: a caller that sees it also reads the rest.
        run.status = self._ended_as or ("FAILED" if code else "SUCCEEDED")

    def _run_script(self, folder: Path) -> int:
        """Return the exit code of the script."""
        run, location = self._run, self._job.command["ScriptLocation"]
        arguments = dict(run.arguments or {})
        files = {name: value.split(",") for name, value in arguments.items() if name in FILE_ARGUMENTS}
        role = role_name(self._job.role)
        s3_objects.require_readable(role, [location, *(uri for uris in files.values() for uri in uris)])
        script = s3_objects.download(location, folder)
        python_files = [s3_objects.download(uri, folder) for uri in files.get("--extra-py-files", ())]
        for uri in files.get("--extra-files", ()):
            s3_objects.download(uri, folder)
        given = [part for pair in arguments.items() for part in pair if part]
        given += ["--JOB_NAME", self._job.name, "--JOB_RUN_ID", run.job_run_id]
        copied = copy_for_spark(arguments.get("--lake", ""), folder / "s3")
        environment = programs.spark_environment({}, role, folder, copied)
        timeout = runtime.current().take(Fault.JOB_TIMEOUT)
        kill_at = timeout if timeout is not None else runtime.current().take(Fault.JOB_KILLED)
        if self._ended_as:
            return 1
        run.status = "RUNNING"
        program = self._program = Program(
            programs.spark_submit(python_files, script, given), environment, folder, kill_at
        )
        if self._ended_as:  # stopped while the program was starting
            program.kill()
        code = program.wait(float(run.timeout) * 60)
        if timeout is not None or code is None:
            self.stop(TIMED_OUT)
            code = program.wait()
        write_log(program.log, run.job_run_id)
        assert code is not None
        return code


def copy_for_spark(uri: str, folder: Path) -> dict[str, str]:
    """Copy a bucket's objects to the folder; return the settings with which Spark finds them at their s3:// address."""
    if not uri.startswith("s3://"):
        return {}
    bucket, _ = s3_objects.split_uri(uri)
    settings = {
        "spark.hadoop.fs.s3.impl": VIEW_FILE_SYSTEM,
        "spark.hadoop.fs.viewfs.overload.scheme.target.s3.impl": "org.apache.hadoop.fs.LocalFileSystem",
    }
    for key in s3_objects.list_keys(bucket):
        if key.endswith("/"):
            continue
        target = folder / bucket / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(s3_objects.read(f"s3://{bucket}/{key}"))
        top = key.split("/")[0]
        settings[f"spark.hadoop.fs.viewfs.mounttable.{bucket}.link./{top}"] = f"file://{folder / bucket / top}"
    return settings


def write_log(text: str, run_id: str) -> None:
    """Write a run's log to CloudWatch, where Glue writes it."""
    logs = logs_backends[ACCOUNT][REGION]
    logs.ensure_log_group(LOG_GROUP)
    logs.create_log_stream(LOG_GROUP, run_id)
    now = int(unix_time_millis())
    events = [{"timestamp": now, "message": line or " "} for line in text.splitlines()]
    logs.put_log_events(LOG_GROUP, run_id, events)


_threads: dict[str, JobRunThread] = {}


@wrap(FakeJob, "start_job_run")
def _start_run(original: Function, job: FakeJob, **given: Any) -> str:
    """Create a run and execute it."""
    run_id: str = original(job, **given)
    _threads[run_id] = JobRunThread(job, job.job_runs[-1])
    return run_id


@wrap(FakeJobRun, "as_dict")
def _describe_run(original: Function, run: FakeJobRun) -> dict[str, Any]:
    """Return a run with its real times, log group and error."""
    described: dict[str, Any] = original(run)  # first the status: it is set last
    ended, error = getattr(run, "ended", None), getattr(run, "error", "")
    described |= {"LogGroupName": LOG_GROUP, "CompletedOn": ended}
    described["ExecutionTime"] = int(((ended or utcnow()) - run.started_on).total_seconds())
    if error:
        described["ErrorMessage"] = error
    return {name: value for name, value in described.items() if value is not None}


@add(GlueResponse, "batch_stop_job_run")
def _batch_stop_job_run(response: GlueResponse) -> ActionResult:
    """Answer BatchStopJobRun."""
    ids = response._get_param("JobRunIds")
    for run_id in ids:
        _threads[run_id].stop()
    name = response._get_param("JobName")
    stopped = [{"JobName": name, "JobRunId": run_id} for run_id in ids]
    return ActionResult({"SuccessfulSubmissions": stopped, "Errors": []})


@add(GlueResponse, "update_job")
def _update_job(response: GlueResponse) -> ActionResult:
    """Answer UpdateJob. As on Glue, it replaces the whole definition: what the update does not name is removed."""
    name, update = response._get_param("JobName"), response._get_param("JobUpdate")
    job = response.glue_backend.get_job(name)
    for key in job.as_dict().keys() - {"Name", "CreatedOn", "LastModifiedOn"}:
        empty = {} if key in ("DefaultArguments", "ExecutionProperty") else None
        setattr(job, camelcase_to_underscores(key), update.get(key, empty))
    job.last_modified_on = utcnow()
    return ActionResult({"JobName": name})
