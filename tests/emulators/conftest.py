"""What do the tests of the AWS emulator share? One of it that runs programs, with a bucket of code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aws_parts import CODE, Aws, allow

from emulators.aws.machine import Machine
from emulators.aws.server import AwsEmulator


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """An emulator for all of these tests: each takes names of its own. An idle minute is a tenth of a second."""
    machine = Machine(tmp_path_factory.mktemp("aws"), warehouse_dsn="", settings={"SETTING": "here"}, minute=0.1)
    with AwsEmulator(machine) as emulator:
        made = Aws(emulator, machine)
        made.client("s3").create_bucket(Bucket=CODE)
        made.profile("r", allow("*"))
        yield made


@pytest.fixture(autouse=True)
def calm(aws: Aws) -> Iterator[None]:
    """No test meets the trouble that another one prepared."""
    yield
    aws.machine.calm()
