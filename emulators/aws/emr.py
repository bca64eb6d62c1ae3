"""What runs a cluster's steps? This machine: a cluster moves through its states, and a step is the deployed program.

``spark-submit`` gets the arguments of the step, its files as they lie in the emulator's S3, and of the settings
``spark.yarn.appMasterEnv.*`` the environment that YARN would make of them. What the cluster was asked to start with
must be there: without its bootstrap action's script and packages or its certificate it fails, as on EMR.
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

from emulators.aws import programs
from emulators.aws.authorization import DeniedError, require
from emulators.aws.calls import of_uri, role_of_instances
from emulators.aws.machine import Machine, Trouble
from emulators.aws.programs import Child

# Seconds for what takes EMR minutes.
STARTING, BOOTSTRAPPING, TERMINATING = 0.5, 0.25, 0.25
LOOK_SECONDS = 0.05
YARN_ENVIRONMENT = "spark.yarn.appMasterEnv."
OVER = ("TERMINATED", "TERMINATED_WITH_ERRORS")


class Life:
    """One cluster's, in a thread of its own, from STARTING to its end."""

    def __init__(self, machine: Machine, cluster: Cluster, idle_minutes: float | None) -> None:
        self._machine, self._cluster, self._idle_minutes = machine, cluster, idle_minutes
        self._end = threading.Event()
        self.why = ("USER_REQUEST", "Terminated by user request")
        self._step: Child | None = None
        self._role = role_of_instances(cluster.role)
        self._stuck = machine.take(Trouble.CLUSTER_STUCK) is not None
        cluster.state, cluster.reason, cluster.ready_datetime = "STARTING", None, None
        threading.Thread(target=self._run, daemon=True).start()

    def end(self) -> None:
        """Asks for its end, which kills the step that runs."""
        if self._cluster.state not in OVER:
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
                self._become("BOOTSTRAPPING")
                self._check_what_it_starts_with()
                if not self._end.wait(BOOTSTRAPPING):
                    self._cluster.ready_datetime = utcnow()
                    self._work()
        except (FileNotFoundError, DeniedError) as error:
            failed = True
            self.why = ("BOOTSTRAP_FAILURE", f"On the master instance, bootstrap action 1 returned an error: {error}")
        except Exception as error:  # a defect of this file: the cluster must not stay for ever
            failed = True
            self.why = ("INTERNAL_ERROR", f"{type(error).__name__}: {error}")
        self._cluster.state = "TERMINATING"
        for step in self._cluster.steps:
            if step.state == "PENDING":
                step.state = "CANCELLED"
        time.sleep(TERMINATING)
        code, message = self.why
        self._cluster.reason = {"Code": code, "Message": message}
        self._cluster.end_datetime = utcnow()
        self._cluster.state = OVER[failed]

    def _become(self, state: str) -> None:
        if not self._end.is_set():
            self._cluster.state = state

    def _check_what_it_starts_with(self) -> None:
        wanted = []
        for action in self._cluster.bootstrap_actions:
            script = action.script_bootstrap_action
            wanted += [value for name, value in script.items() if name.lower() == "path"]
            wanted += [value for name, values in script.items() if name.lower() == "args" for value in values]
        if name := self._cluster.security_configuration:
            text = self._cluster.emr_backend.get_security_configuration(name).security_configuration
            rules = json.loads(text) if isinstance(text, str) else text
            certificate = rules["EncryptionConfiguration"].get("InTransitEncryptionConfiguration", {})
            wanted.append(certificate.get("TLSCertificateConfiguration", {}).get("S3Object", ""))
        programs.check(self._role, (uri for uri in wanted if uri.startswith("s3://")))
        # EMR itself only leaves the logs out, which nobody notices before they are needed.
        require(self._role, of_uri("s3:PutObject", f"{self._cluster.log_uri}{self._cluster.id}/"))

    def _work(self) -> None:
        idle_since = time.monotonic()
        while not self._end.is_set():
            pending = next((step for step in self._cluster.steps if step.state == "PENDING"), None)
            if pending:
                self._become("RUNNING")
                self._run_step(pending)
                idle_since = time.monotonic()
                continue
            self._become("WAITING")
            idle = time.monotonic() - idle_since
            if self._idle_minutes is not None and idle > self._idle_minutes * self._machine.minute:
                self.why = ("ALL_STEPS_COMPLETED", "Auto-terminated: the cluster was idle")
                return
            self._end.wait(LOOK_SECONDS)

    def _run_step(self, step: Step) -> None:
        step.state, step.start_date_time = "RUNNING", utcnow()
        log = f"{self._cluster.log_uri}{self._cluster.id}/steps/{step.id}/stderr.gz"
        try:
            folder = programs.new_folder(self._machine, step.id)
            command, variables = submission(list(step.args), self._role, folder)
            environment = programs.spark_environment(self._machine, variables, self._role, folder, {})
            self._step = Child(command, environment, folder, self._machine.take(Trouble.STEP_DIES))
            if self._end.is_set():
                self._step.kill()
            code = self._step.wait()
            assert code is not None
            error, said = self._step.error(code), self._step.log
            self._step = None
        except (FileNotFoundError, DeniedError, ValueError) as problem:
            code, error, said = 1, str(problem), f"{problem}\n"
        programs.keep_log(log, said)
        step.end_date_time = utcnow()
        if code:
            step.failure = {"Reason": "Unknown Error.", "Message": error, "LogFile": log}
        # Last, for who reads the state reads the rest, too.
        step.state = "COMPLETED" if code == 0 else "INTERRUPTED" if self._end.is_set() else "FAILED"


def submission(arguments: list[str], role: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """A step's spark-submit as it runs here, its files fetched into the folder, and the environment YARN would make.

    Raises FileNotFoundError for a file that was not deployed, DeniedError for one that the role may not read,
    ValueError for what is no such command.
    """
    if not arguments or arguments[0] != "spark-submit":
        raise ValueError(f"command-runner.jar was given {arguments[:1]}, not spark-submit")
    files: list[Path] = []
    variables: dict[str, str] = {}
    rest = arguments[1:]
    while rest and rest[0].startswith("--"):
        option, value, rest = rest[0], rest[1], rest[2:]
        if option == "--py-files":
            programs.check(role, value.split(","))
            files = [programs.fetch(uri, folder) for uri in value.split(",")]
        elif option == "--conf":
            name, _, setting = value.partition("=")
            if name.startswith(YARN_ENVIRONMENT):
                variables[name.removeprefix(YARN_ENVIRONMENT)] = setting
        elif option != "--deploy-mode":
            raise ValueError(f"spark-submit: {option} is not known here")
    if not rest:
        raise ValueError("spark-submit was given no script")
    programs.check(role, rest[:1])
    return programs.submit(files, programs.fetch(rest[0], folder), rest[1:]), variables


def run_on(machine: Machine) -> None:
    """Has moto's clusters live, and their steps run on this machine."""
    lives: dict[str, Life] = {}
    run_job_flow = ElasticMapReduceResponse.run_job_flow
    plain_status = Step.status.fget

    def run_and_start(self: ElasticMapReduceResponse) -> Any:
        answer = run_job_flow(self)
        cluster = self.backend.clusters[answer.result["JobFlowId"]]
        idle = self._get_param("AutoTerminationPolicy.IdleTimeout") or (
            self._get_param("AutoTerminationPolicy") or {}
        ).get("IdleTimeout")
        for step in cluster.steps:
            step.state = "PENDING"
        lives[cluster.id] = Life(machine, cluster, None if idle is None else int(idle) / 60)
        time.sleep(float(machine.take(Trouble.ANSWER_LATE) or 0))
        return answer

    def add_steps(self: Cluster, steps: list[dict[str, Any]]) -> list[Step]:
        added = [Step(state="PENDING", **step) for step in steps]
        self.steps.extend(added)
        return added

    def terminate(self: Cluster) -> None:
        lives[self.id].end()

    def cluster_status(self: Cluster) -> dict[str, Any]:
        times = {"CreationDateTime": self.creation_datetime, "ReadyDateTime": self.ready_datetime}
        timeline = times | {"EndDateTime": self.end_datetime}
        return {"State": self.state, "StateChangeReason": getattr(self, "reason", None) or {}, "Timeline": timeline}

    def step_status(self: Step) -> dict[str, Any]:
        told = plain_status(self)  # the state first: it is set last
        failure = getattr(self, "failure", None)
        return told | ({"FailureDetails": failure} if failure else {})

    ElasticMapReduceResponse.run_job_flow = run_and_start
    Cluster.add_steps, Cluster.terminate = add_steps, terminate
    Cluster.status, Step.status = property(cluster_status), property(step_status)
