"""What do the tests of the AWS stand-in work with? Its clients, deployed files, and waiting for a state."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import boto3

from local.aws import AwsStandIn
from local.aws_machine import REGION, Machine

CODE = "code"


class Aws:
    """The stand-in with its machine; ``put`` deploys a file and returns its URI."""

    def __init__(self, stand_in: AwsStandIn, machine: Machine) -> None:
        self.url, self.machine = stand_in.url, machine

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **keys)

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
