"""Lambda functions that run as processes of this host, with their deployed code and variables.

A function uses its bundle's own files. A package that this Python environment also has comes from there, because the
bundle's are built for Lambda's processor. A deployment invokes the functions of its triggers when it creates them, as
CDK's provider does, and fails if one of them fails.
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

from emulators.aws import programs, resource_types, runtime
from emulators.aws.authorization import role_name
from emulators.aws.patches import Function, wrap

RUN_HANDLER = Path(__file__).with_name("run_handler.py")


def invoke(function: LambdaFunction, event: str) -> tuple[str, bool, str]:
    """Run a function on an event in JSON. Return its answer in JSON, whether that is an error, and its log."""
    folder = _unpack(function)
    result = folder.with_name(f"{uuid.uuid4().hex}.json")
    variables = {"AWS_LAMBDA_FUNCTION_NAME": function.function_name, "AWS_REGION": function.region}
    try:
        done = subprocess.run(
            [sys.executable, str(RUN_HANDLER), function.handler, str(result)],
            cwd=folder,
            env=programs.environment({**(function.environment_vars or {}), **variables}, role_name(function.role)),
            input=event,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=function.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        error = f"Task timed out after {function.timeout:.2f} seconds"
        return json.dumps({"errorMessage": error, "errorType": "Sandbox.Timedout"}), True, error
    answer = result.read_text() if result.exists() else json.dumps({"errorMessage": f"exit code {done.returncode}"})
    return answer, done.returncode != 0, done.stdout


def _unpack(function: LambdaFunction) -> Path:
    """Return a folder with the function's own files; its name is a hash of the bundle."""
    code = function.code_bytes
    folder = runtime.current().folder / "functions" / hashlib.sha256(code).hexdigest()[:16]
    if folder.is_dir():
        return folder
    installed = {path.name for path in Path(sysconfig.get_path("purelib")).iterdir()}
    unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    with zipfile.ZipFile(io.BytesIO(code)) as bundle:
        own = [name for name in bundle.namelist() if name.split("/")[0] not in installed]
        bundle.extractall(unfinished, own)
    unfinished.rename(folder)
    return folder


class Trigger(resource_types.RecordedResource):
    """CDK's ``Trigger``: the deployment invokes its function, and fails if the function fails.

    It depends on a version of the function, so a deployment that changes the function invokes it again.
    """

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Trigger:
        """Invoke the function. Raise RuntimeError with its error if it fails."""
        handler = cloudformation_json["Properties"]["HandlerArn"]
        _require_success(handler, account_id, region_name)
        return cls(resource_name, handler)

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: resource_types.RecordedResource,
        new_resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
    ) -> resource_types.RecordedResource:
        """Invoke the function if it has another version. Raise RuntimeError with its error if it fails."""
        handler = cloudformation_json["Properties"]["HandlerArn"]
        if handler != original_resource.arn:
            _require_success(handler, account_id, region_name)
            original_resource.arn = handler
        return original_resource


def _require_success(handler: str, account_id: str, region_name: str) -> None:
    answer, failed, _ = invoke(lambda_backends[account_id][region_name].get_function(handler), "{}")
    if failed:
        raise RuntimeError(f"Trigger handler failed: {json.loads(answer)['errorMessage']}")


resource_types.TYPES["Custom::Trigger"] = Trigger


@wrap(LambdaFunction, "_invoke_lambda")
def _invoke_here(_original: Function, function: LambdaFunction, event: Any = None) -> tuple[str, bool, str]:
    """Run a function on this host and write its log to CloudWatch. moto's own needs Docker."""
    answer, failed, log = invoke(function, event if isinstance(event, str) else json.dumps(event or {}))
    function.logs_backend.ensure_log_group(function.logs_group_name)
    function.save_logs(log or " ")
    return answer, failed, log


@wrap(LambdaVersion, "create_from_cloudformation_json")
def _create_version(
    original: Function, cls: type[LambdaVersion], name: str, body: Any, *where: str, **more: Any
) -> LambdaVersion:
    """Give a version the ARN that a template's reference to it has."""
    account, region = where
    version: LambdaVersion = original(cls, name, body, account, region, **more)
    function = lambda_backends[account][region].get_function(body["Properties"]["FunctionName"])
    version.physical_resource_id = f"{function.function_arn.removesuffix(':$LATEST')}:{version.version}"
    return version
