"""Commands that Session Manager runs on an instance: shell commands on this host, with the role of the instance."""

from __future__ import annotations

import subprocess
import threading
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models import ec2_backends
from moto.ssm.models import Command, SimpleSystemManagerBackend
from moto.ssm.responses import SimpleSystemManagerResponse

from emulators.aws import programs
from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.patches import Function, add, wrap

MOST_CHARACTERS = 24_000  # of each output that AWS returns


@wrap(SimpleSystemManagerBackend, "send_command")
def _send_command(original: Function, backend: SimpleSystemManagerBackend, **given: Any) -> Command:
    """Start the commands of a script on each instance."""
    command: Command = original(backend, **given)
    for invocation in command.invocations:
        invocation |= {"Status": "InProgress", "StatusDetails": "InProgress", "ResponseCode": -1}
        threading.Thread(target=_run, args=(command, invocation), daemon=True).start()
    return command


def _run(command: Command, invocation: dict[str, Any]) -> None:
    """Run the script, and write how it ended into the invocation."""
    instance = ec2_backends[ACCOUNT][REGION].get_instance(invocation["InstanceId"])
    environment = programs.environment({"BARFLOW_ENV": _environment_of(instance)}, _role_of(instance))
    seconds = int(command.parameters.get("executionTimeout", ["3600"])[0])
    try:
        done = subprocess.run(
            ["bash", "-c", "\n".join(command.parameters["commands"])],
            cwd=programs.new_folder("host"),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        invocation |= {"Status": "TimedOut", "StatusDetails": "ExecutionTimedOut"}
        return
    invocation |= {
        "StandardOutputContent": done.stdout[:MOST_CHARACTERS],
        "StandardErrorContent": done.stderr[:MOST_CHARACTERS],
        "ResponseCode": done.returncode,
        "StatusDetails": "Failed" if done.returncode else "Success",
    }
    invocation["Status"] = invocation["StatusDetails"]  # last: it says that the rest is complete


def _role_of(instance: Any) -> str:
    """Return the name of the role of an instance."""
    associations = ec2_backends[ACCOUNT][REGION].iam_instance_profile_associations
    return str(associations[instance.id].iam_instance_profile.roles[0].name)


def _environment_of(instance: Any) -> str:
    """Return the environment of an instance by its tag. On a real host, `barflow` reads it from a file."""
    return next(str(tag["value"]) for tag in instance.get_tags() if tag["key"] == "barflow:env")


@add(SimpleSystemManagerResponse, "cancel_command")
def _cancel_command(response: SimpleSystemManagerResponse) -> ActionResult:
    """Do nothing: a command here ends by itself."""
    return EmptyResult()
