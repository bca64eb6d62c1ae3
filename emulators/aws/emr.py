"""EMR clusters that live and run their steps on this host.

A cluster moves through EMR's states, and a step runs the deployed program. ``spark-submit`` gets the step's arguments
and its files from the emulator's S3, and the environment that YARN would make of ``spark.yarn.appMasterEnv.*``. A
cluster fails as on EMR if S3 does not have its bootstrap action's script and packages or its certificate.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from moto.core.utils import utcnow
from moto.emr.models import Cluster, Step
from moto.emr.responses import ElasticMapReduceResponse

from emulators.aws import programs, runtime, s3_objects
from emulators.aws.authorization import AccessDeniedError, authorize
from emulators.aws.faults import Fault
from emulators.aws.patches import Function, wrap
from emulators.aws.permissions import on_uri, role_of_instances
from emulators.aws.programs import Program

# Seconds for what takes minutes on EMR.
STARTING, BOOTSTRAPPING, TERMINATING = 0.5, 0.25, 0.25
POLL_SECONDS = 0.05
YARN_ENVIRONMENT = "spark.yarn.appMasterEnv."
ENDED_STATES = ("TERMINATED", "TERMINATED_WITH_ERRORS")


class ClusterLifecycle:
    """A thread that takes one cluster from STARTING to its end and runs its steps in order."""

    def __init__(self, cluster: Cluster, idle_minutes: float | None) -> None:
        self._cluster, self._idle_minutes = cluster, idle_minutes
        self._end = threading.Event()
        self._reason = ("USER_REQUEST", "Terminated by user request")
        self._step: Program | None = None
        self._role = role_of_instances(cluster.role)
        self._stuck = runtime.current().take(Fault.CLUSTER_STUCK) is not None
        cluster.state, cluster.reason, cluster.ready_datetime = "STARTING", None, None
        threading.Thread(target=self._run, daemon=True).start()

    def end(self) -> None:
        """Terminate the cluster, and kill the step that runs."""
        if self._cluster.state not in ENDED_STATES:
            self._cluster.state = "TERMINATING"
        self._end.set()
        if step := self._step:
            step.kill()

    def _run(self) -> None:
        failed = False
        try:
            if self._stuck:
                self._end.wait()
            elif not self._end.wait(STARTING):
                self._enter("BOOTSTRAPPING")
                self._check_start_files()
                if not self._end.wait(BOOTSTRAPPING):
                    self._cluster.ready_datetime = utcnow()
                    self._run_steps()
        except (FileNotFoundError, AccessDeniedError) as error:
            failed = True
            message = f"On the master instance, bootstrap action 1 returned an error: {error}"
            self._reason = ("BOOTSTRAP_FAILURE", message)
        except Exception as error:  # a defect of this file must not leave the cluster running for ever
            failed = True
            self._reason = ("INTERNAL_ERROR", f"{type(error).__name__}: {error}")
        self._cluster.state = "TERMINATING"
        for step in self._cluster.steps:
            if step.state == "PENDING":
                step.state = "CANCELLED"
        time.sleep(TERMINATING)
        code, message = self._reason
        self._cluster.reason = {"Code": code, "Message": message}
        self._cluster.end_datetime = utcnow()
        self._cluster.state = ENDED_STATES[failed]

    def _enter(self, state: str) -> None:
        if not self._end.is_set():
            self._cluster.state = state

    def _check_start_files(self) -> None:
        """Raise FileNotFoundError or AccessDeniedError for what the nodes cannot read or write."""
        needed = []
        for action in self._cluster.bootstrap_actions:
            script = action.script_bootstrap_action
            needed += [value for name, value in script.items() if name.lower() == "path"]
            needed += [value for name, values in script.items() if name.lower() == "args" for value in values]
        if name := self._cluster.security_configuration:
            text = self._cluster.emr_backend.get_security_configuration(name).security_configuration
            rules = json.loads(text) if isinstance(text, str) else text
            certificate = rules["EncryptionConfiguration"].get("InTransitEncryptionConfiguration", {})
            needed.append(certificate.get("TLSCertificateConfiguration", {}).get("S3Object", ""))
        s3_objects.require_readable(self._role, (uri for uri in needed if uri.startswith("s3://")))
        # EMR starts without this permission and silently writes no logs. Here the cluster fails, to show the mistake.
        authorize(self._role, on_uri("s3:PutObject", f"{self._cluster.log_uri}{self._cluster.id}/"))

    def _run_steps(self) -> None:
        """Run pending steps until the cluster is terminated or idle for too long."""
        idle_since = time.monotonic()
        while not self._end.is_set():
            pending = next((step for step in self._cluster.steps if step.state == "PENDING"), None)
            if pending:
                self._enter("RUNNING")
                self._run_step(pending)
                idle_since = time.monotonic()
                continue
            self._enter("WAITING")
            idle = time.monotonic() - idle_since
            if self._idle_minutes is not None and idle > self._idle_minutes * runtime.current().idle_minute:
                self._reason = ("ALL_STEPS_COMPLETED", "Auto-terminated: the cluster was idle")
                return
            self._end.wait(POLL_SECONDS)

    def _run_step(self, step: Step) -> None:
        step.state, step.start_date_time = "RUNNING", utcnow()
        log_uri = f"{self._cluster.log_uri}{self._cluster.id}/steps/{step.id}/stderr.gz"
        try:
            folder = programs.new_folder(step.id)
            command, variables = local_command(list(step.args), self._role, folder)
            environment = programs.spark_environment(variables, self._role, folder, {})
            self._step = Program(command, environment, folder, runtime.current().take(Fault.STEP_KILLED))
            if self._end.is_set():
                self._step.kill()
            code = self._step.wait()
            assert code is not None
            error, log = self._step.error(code), self._step.log
            self._step = None
        except (FileNotFoundError, AccessDeniedError, ValueError) as problem:
            code, error, log = 1, str(problem), f"{problem}\n"
        s3_objects.write_compressed(log_uri, log)
        step.end_date_time = utcnow()
        if code:
            step.failure = {"Reason": "Unknown Error.", "Message": error, "LogFile": log_uri}
        # The state comes last: a caller that sees it also reads the rest.
        step.state = "COMPLETED" if code == 0 else "INTERRUPTED" if self._end.is_set() else "FAILED"


def local_command(arguments: list[str], role: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return a step's spark-submit for this host and its variables from YARN; download its files to the folder.

    Raise FileNotFoundError for a file that was not deployed, AccessDeniedError for one that the role may not read, and
    ValueError for a command that is not supported.
    """
    if not arguments or arguments[0] != "spark-submit":
        raise ValueError(f"command-runner.jar was given {arguments[:1]}, not spark-submit")
    python_files: list[Path] = []
    variables: dict[str, str] = {}
    rest = arguments[1:]
    while rest and rest[0].startswith("--"):
        option, value, rest = rest[0], rest[1], rest[2:]
        if option == "--py-files":
            s3_objects.require_readable(role, value.split(","))
            python_files = [s3_objects.download(uri, folder) for uri in value.split(",")]
        elif option == "--conf":
            name, _, setting = value.partition("=")
            if name.startswith(YARN_ENVIRONMENT):
                variables[name.removeprefix(YARN_ENVIRONMENT)] = setting
        elif option != "--deploy-mode":
            raise ValueError(f"spark-submit: the emulator does not support the option {option}")
    if not rest:
        raise ValueError("spark-submit was given no script")
    s3_objects.require_readable(role, rest[:1])
    return programs.spark_submit(python_files, s3_objects.download(rest[0], folder), rest[1:]), variables


_lifecycles: dict[str, ClusterLifecycle] = {}


@wrap(ElasticMapReduceResponse, "run_job_flow")
def _start_cluster(original: Function, response: ElasticMapReduceResponse) -> Any:
    """Create a cluster and start its lifecycle."""
    answer = original(response)
    cluster = response.backend.clusters[answer.result["JobFlowId"]]
    idle = response._get_param("AutoTerminationPolicy.IdleTimeout") or (
        response._get_param("AutoTerminationPolicy") or {}
    ).get("IdleTimeout")
    for step in cluster.steps:
        step.state = "PENDING"
    _lifecycles[cluster.id] = ClusterLifecycle(cluster, None if idle is None else int(idle) / 60)
    time.sleep(float(runtime.current().take(Fault.LATE_ANSWER) or 0))
    return answer


@wrap(Cluster, "add_steps")
def _add_pending_steps(_original: Function, cluster: Cluster, steps: list[dict[str, Any]]) -> list[Step]:
    """Add steps that wait for their turn. moto starts the first at once."""
    added = [Step(state="PENDING", **step) for step in steps]
    cluster.steps.extend(added)
    return added


@wrap(Cluster, "terminate")
def _terminate(_original: Function, cluster: Cluster) -> None:
    """Let the lifecycle end the cluster. moto ends it at once."""
    _lifecycles[cluster.id].end()


@wrap(Cluster, "status")
def _cluster_status(_original: Function, cluster: Cluster) -> dict[str, Any]:
    """Return the status with the reason of the cluster's end."""
    times = {"CreationDateTime": cluster.creation_datetime, "ReadyDateTime": cluster.ready_datetime}
    timeline = times | {"EndDateTime": cluster.end_datetime}
    return {"State": cluster.state, "StateChangeReason": getattr(cluster, "reason", None) or {}, "Timeline": timeline}


@wrap(Step, "status")
def _step_status(original: Function, step: Step) -> dict[str, Any]:
    """Return the status with the details of a failure."""
    status: dict[str, Any] = original(step)  # first the state: it is set last
    failure = getattr(step, "failure", None)
    return status | ({"FailureDetails": failure} if failure else {})
