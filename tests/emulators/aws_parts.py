"""Helpers of the AWS emulator's tests: clients, roles, deployed files and waiting for a state."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import boto3

from emulators.aws.account import REGION, ROLE_KEY
from emulators.aws.runtime import Runtime
from emulators.aws.server import AwsEmulator

CODE = "code"


def allow(action: str | list[str], resource: str | list[str] = "*", **condition: Any) -> dict[str, Any]:
    """Return a policy statement that allows the action."""
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    return statement | ({"Condition": condition} if condition else {})


class Aws:
    """The emulator and its runtime, with methods that deploy roles and files."""

    def __init__(self, emulator: AwsEmulator, runtime: Runtime) -> None:
        self.url, self.runtime = emulator.url, runtime

    def client(self, service: str, role: str | None = None) -> Any:
        """Return a client that acts as the role, or as the owner of the account."""
        keys = {"aws_access_key_id": f"{ROLE_KEY}{role}" if role else "x", "aws_secret_access_key": "x"}
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **keys)

    def create_role(self, name: str, *statements: Mapping[str, Any]) -> str:
        """Create a role with an inline policy of these statements, and return its ARN."""
        iam = self.client("iam")
        created = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        iam.put_role_policy(RoleName=name, PolicyName="permissions", PolicyDocument=document)
        return str(created["Role"]["Arn"])

    def create_profile(self, name: str, *statements: Mapping[str, Any]) -> str:
        """Create such a role in an instance profile of the same name, and return that name."""
        self.create_role(name, *statements)
        iam = self.client("iam")
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return name

    def put(self, key: str, body: str | bytes, bucket: str = CODE) -> str:
        """Store an object and return its URI."""
        content = body.encode() if isinstance(body, str) else body
        self.client("s3").put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}/{key}"


def zipped(files: Mapping[str, str]) -> bytes:
    """Return a zip archive of text files."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for name, text in files.items():
            target.writestr(name, text)
    return archive.getvalue()


def wait_for(look: Callable[[], Any], wanted: Callable[[Any], bool], seconds: float = 120) -> Any:
    """Return what ``look`` returns as soon as it is as wanted. Fail if it never is."""
    deadline = time.monotonic() + seconds
    while not wanted(found := look()):
        assert time.monotonic() < deadline, f"it is still {found}"
        time.sleep(0.05)
    return found
