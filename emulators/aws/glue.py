"""What runs a Glue job? This machine: the deployed script with its files and arguments, as Glue would start it.

The script gets the job's default arguments and the run's, all of them, as on Glue. Its extra files lie in its working
folder and its extra Python files on its path. Spark reads ``s3://`` from a copy of the bucket's prefixes, taken when
the run starts, since the packages of this environment have no file system of S3 for Spark; what the program itself
reads and writes there goes to the emulator's S3.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores, utcnow
from moto.glue.models import FakeJob, FakeJobRun
from moto.glue.responses import GlueResponse

from emulators.aws import programs
from emulators.aws.authorization import role_of
from emulators.aws.machine import Machine, Trouble
from emulators.aws.programs import Child

STARTING = 0.25  # seconds
# Arguments of a job that name what it starts with, in S3.
FILES = ("--extra-py-files", "--extra-files", "--additional-python-modules")
OVERLOAD = "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme"
STOPPED, TIMED_OUT = "STOPPED", "TIMEOUT"


class JobRun:
    """One run, in a thread of its own."""

    def __init__(self, machine: Machine, job: FakeJob, run: FakeJobRun) -> None:
        self._machine, self._job, self._run_of_job = machine, job, run
        self._child: Child | None = None
        self.ended_as = ""
        run.state, run.error, run.ended = "STARTING", "", None
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self, state: str = STOPPED) -> None:
        self.ended_as = self.ended_as or state
        if self._child:
            self._child.kill()

    def _run(self) -> None:
        run = self._run_of_job
        time.sleep(STARTING)
        try:
            folder = programs.new_folder(self._machine, run.job_run_id[:12])
            code = self._execute(folder)
            error = self._child.error(code) if code and self._child else ""
        except Exception as problem:  # what it starts with is missing; or a defect here, and it must not run for ever
            code, error = 1, f"{type(problem).__name__}: {problem}"
        run.ended = utcnow()
        if self.ended_as == TIMED_OUT:
            error = "Job run exceeded its timeout"
        run.error = error if code or self.ended_as else ""
        # Last, for who reads the state reads the rest, too.
        run.state = self.ended_as or ("FAILED" if code else "SUCCEEDED")

    def _execute(self, folder: Path) -> int:
        run = self._run_of_job
        arguments = dict(run.arguments or {})
        named = {name: value.split(",") for name, value in arguments.items() if name in FILES}
        role = role_of(self._job.role)
        programs.check(role, [self._job.command["ScriptLocation"], *(uri for uris in named.values() for uri in uris)])
        script = programs.fetch(self._job.command["ScriptLocation"], folder)
        python_files = [programs.fetch(uri, folder) for uri in named.get("--extra-py-files", ())]
        for uri in named.get("--extra-files", ()):
            programs.fetch(uri, folder)
        given = [part for pair in arguments.items() for part in pair if part]
        given += ["--JOB_NAME", self._job.name, "--JOB_RUN_ID", run.job_run_id]
        copied = copy_for_spark(arguments.get("--lake", ""), folder / "s3")
        environment = programs.spark_environment(self._machine, {}, role, folder, copied)
        late = self._machine.take(Trouble.JOB_TIMES_OUT)
        at = late if late is not None else self._machine.take(Trouble.JOB_DIES)
        if self.ended_as:
            return 1
        run.state = "RUNNING"
        self._child = Child(programs.submit(python_files, script, given), environment, folder, at)
        if self.ended_as:  # stopped while its program was starting
            self._child.kill()
        code = self._child.wait(float(run.timeout) * 60)
        if late is not None or code is None:
            self.stop(TIMED_OUT)
            code = self._child.wait()
        programs.keep_glue_log(self._child.log, run.job_run_id)
        assert code is not None
        return code


def copy_for_spark(uri: str, folder: Path) -> dict[str, str]:
    """Copies a bucket's objects into the folder; the settings by which Spark finds them under their s3:// address."""
    if not uri.startswith("s3://"):
        return {}
    bucket, _ = programs.place_of(uri)
    settings = {
        "spark.hadoop.fs.s3.impl": OVERLOAD,
        "spark.hadoop.fs.viewfs.overload.scheme.target.s3.impl": "org.apache.hadoop.fs.LocalFileSystem",
    }
    for key in list(programs.s3().get_bucket(bucket).keys.keys()):
        found = programs.s3().get_object(bucket, key)
        if found is None or key.endswith("/"):
            continue
        target = folder / bucket / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(found.value)
        top = key.split("/")[0]
        settings[f"spark.hadoop.fs.viewfs.mounttable.{bucket}.link./{top}"] = f"file://{folder / bucket / top}"
    return settings


def run_on(machine: Machine) -> None:
    """Has moto's job runs executed on this machine."""
    running: dict[str, JobRun] = {}
    start, as_dict = FakeJob.start_job_run, FakeJobRun.as_dict

    def start_and_run(self: FakeJob, **given: Any) -> str:
        run_id = start(self, **given)
        running[run_id] = JobRun(machine, self, self.job_runs[-1])
        return run_id

    def described(self: FakeJobRun) -> dict[str, Any]:
        plain = as_dict(self) | {"JobRunState": self.status, "LogGroupName": "/aws-glue/jobs"}
        plain["ExecutionTime"] = int(((self.ended or utcnow()) - self.started_on).total_seconds())
        plain["CompletedOn"] = self.ended
        if self.error:
            plain["ErrorMessage"] = self.error
        return {name: value for name, value in plain.items() if value is not None}

    def batch_stop_job_run(self: GlueResponse) -> ActionResult:
        ids = self._get_param("JobRunIds")
        for run_id in ids:
            running[run_id].stop()
        name = self._get_param("JobName")
        done = [{"JobName": name, "JobRunId": run_id} for run_id in ids]
        return ActionResult({"SuccessfulSubmissions": done, "Errors": []})

    def update_job(self: GlueResponse) -> ActionResult:
        """Replaces the whole definition, as Glue does: what an update does not name is gone."""
        name, given = self._get_param("JobName"), self._get_param("JobUpdate")
        job = self.glue_backend.get_job(name)
        for key in job.as_dict().keys() - {"Name", "CreatedOn", "LastModifiedOn"}:
            empty = {} if key in ("DefaultArguments", "ExecutionProperty") else None
            setattr(job, camelcase_to_underscores(key), given.get(key, empty))
        job.last_modified_on = utcnow()
        return ActionResult({"JobName": name})

    FakeJob.start_job_run, GlueResponse.update_job = start_and_run, update_job
    FakeJobRun.status = property(lambda self: getattr(self, "state", "STARTING"), lambda self, value: None)
    FakeJobRun.advance = lambda self: None
    FakeJobRun.as_dict = described
    GlueResponse.batch_stop_job_run = batch_stop_job_run
