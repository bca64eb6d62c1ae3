"""What do the tests of the AWS emulator work with? Its clients, deployed files, and waiting for a state."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import boto3

from emulators.aws.machine import REGION, ROLE_KEY, Machine
from emulators.aws.server import AwsEmulator

CODE = "code"


def allow(action: str | list[str], resource: str | list[str] = "*", **condition: Any) -> dict[str, Any]:
    """A policy's statement."""
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    return statement | ({"Condition": condition} if condition else {})


class Aws:
    """The emulator with its machine; ``put`` deploys a file and returns its URI, ``role`` a role with its rights."""

    def __init__(self, emulator: AwsEmulator, machine: Machine) -> None:
        self.url, self.machine = emulator.url, machine

    def client(self, service: str, role: str | None = None) -> Any:
        keys = {"aws_access_key_id": f"{ROLE_KEY}{role}" if role else "x", "aws_secret_access_key": "x"}
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **keys)

    def role(self, name: str, *statements: Mapping[str, Any]) -> str:
        """Makes a role that has these statements. Returns its ARN."""
        iam = self.client("iam")
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=document)
        return str(made["Role"]["Arn"])

    def profile(self, name: str, *statements: Mapping[str, Any]) -> str:
        """Such a role in an instance profile of its name. Returns that."""
        self.role(name, *statements)
        iam = self.client("iam")
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return name

    def put(self, key: str, body: str | bytes, bucket: str = CODE) -> str:
        content = body.encode() if isinstance(body, str) else body
        self.client("s3").put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}/{key}"


def zipped(files: Mapping[str, str]) -> bytes:
    """A zip of texts."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for name, text in files.items():
            target.writestr(name, text)
    return archive.getvalue()


def eventually(look: Callable[[], Any], wanted: Callable[[Any], bool], seconds: float = 120) -> Any:
    """What ``look`` finds once it is as wanted; fails where it never is."""
    deadline = time.monotonic() + seconds
    while not wanted(found := look()):
        assert time.monotonic() < deadline, f"it is still {found}"
        time.sleep(0.05)
    return found
