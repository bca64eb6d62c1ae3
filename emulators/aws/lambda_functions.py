"""What runs a deployed function? A process of this machine, with the code and the variables that were deployed.

Of a bundle its own files are used; a package in it that this Python environment has too comes from there, since a
bundle's are built for Lambda's processor. A deployment's triggers invoke their functions when they are made, as CDK's
provider does, and a deployment whose trigger fails, fails.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import sysconfig
import uuid
import zipfile
from pathlib import Path
from typing import Any

from moto.awslambda.models import LambdaFunction, LambdaVersion, lambda_backends

from emulators.aws import programs, resource_types
from emulators.aws.authorization import role_of
from emulators.aws.machine import Machine

RUNTIME = Path(__file__).with_name("function_runtime.py")


def invoke(machine: Machine, function: LambdaFunction, event: str) -> tuple[str, bool, str]:
    """Runs the function on an event, JSON. Returns its answer, whether that is an error, and its log."""
    folder = _unpacked(machine, function)
    result = machine.folder / "functions" / f"{uuid.uuid4().hex}.json"
    about = {"AWS_LAMBDA_FUNCTION_NAME": function.function_name, "AWS_REGION": function.region}
    try:
        done = subprocess.run(
            [sys.executable, str(RUNTIME), function.handler, str(result)],
            cwd=folder,
            env=programs.environment(machine, {**(function.environment_vars or {}), **about}, role_of(function.role)),
            input=event,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=function.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        late = f"Task timed out after {function.timeout:.2f} seconds"
        return json.dumps({"errorMessage": late, "errorType": "Sandbox.Timedout"}), True, late
    answer = result.read_text() if result.exists() else json.dumps({"errorMessage": f"exit code {done.returncode}"})
    return answer, done.returncode != 0, done.stdout


def _unpacked(machine: Machine, function: LambdaFunction) -> Path:
    """The function's own files, in a folder named by their content."""
    code = function.code_bytes
    folder = machine.folder / "functions" / hashlib.sha256(code).hexdigest()[:16]
    if folder.is_dir():
        return folder
    installed = {path.name for path in Path(sysconfig.get_path("purelib")).iterdir()}
    unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    with zipfile.ZipFile(io.BytesIO(code)) as bundle:
        own = [name for name in bundle.namelist() if name.split("/")[0] not in installed]
        bundle.extractall(unfinished, own)
    unfinished.rename(folder)
    return folder


class Trigger(resource_types.Recorded):
    """CDK's ``Trigger``: a function that the deployment invokes, and whose error becomes the deployment's.

    Only when it is made: moto updates a function after what refers to it, too late for what CDK does on an update.
    """

    machine: Machine

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Trigger:
        handler = cloudformation_json["Properties"]["HandlerArn"]
        function = lambda_backends[account_id][region_name].get_function(handler)
        answer, failed, _ = invoke(cls.machine, function, "{}")
        if failed:
            raise RuntimeError(f"Trigger handler failed: {json.loads(answer)['errorMessage']}")
        return cls(resource_name, handler)


def run_on(machine: Machine) -> None:
    """Has moto's functions run on this machine, and the triggers of deployments."""

    def invoke_here(self: LambdaFunction, event: Any = None) -> tuple[str, bool, str]:
        answer, failed, log = invoke(machine, self, event if isinstance(event, str) else json.dumps(event or {}))
        self.logs_backend.ensure_log_group(self.logs_group_name)
        self.save_logs(log or " ")
        return answer, failed, log

    publish = LambdaVersion.create_from_cloudformation_json.__func__  # type: ignore[attr-defined]

    def with_its_arn(cls: Any, name: str, body: Any, account_id: str, region_name: str, **kwargs: Any) -> LambdaVersion:
        made: LambdaVersion = publish(cls, name, body, account_id, region_name, **kwargs)
        function = lambda_backends[account_id][region_name].get_function(body["Properties"]["FunctionName"])
        made.physical_resource_id = f"{function.function_arn.removesuffix(':$LATEST')}:{made.version}"
        return made

    LambdaFunction._invoke_lambda = invoke_here
    LambdaVersion.create_from_cloudformation_json = classmethod(with_its_arn)
    Trigger.machine = machine
    resource_types.TYPES["Custom::Trigger"] = Trigger
