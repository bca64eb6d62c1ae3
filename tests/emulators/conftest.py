"""The AWS emulator of these tests: one for all of them, which runs programs and has a bucket of code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aws_parts import CODE, Aws, allow

from emulators.aws.runtime import Runtime
from emulators.aws.server import AwsEmulator


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """The emulator. Every test uses its own resource names. An idle minute of a cluster is a tenth of a second."""
    runtime = Runtime(tmp_path_factory.mktemp("aws"), warehouse_dsn="", settings={"SETTING": "here"}, idle_minute=0.1)
    with AwsEmulator(runtime) as emulator:
        found = Aws(emulator, runtime)
        found.client("s3").create_bucket(Bucket=CODE)
        found.create_profile("r", allow("*"))
        yield found


@pytest.fixture(autouse=True)
def no_faults_left(aws: Aws) -> Iterator[None]:
    """Remove the faults that a test injected and did not meet."""
    yield
    aws.runtime.clear_faults()
