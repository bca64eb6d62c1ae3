"""What do the tests of the AWS stand-in share? One of it that runs programs, with a bucket of code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aws_parts import CODE, Aws, allow

from local.aws.machine import Machine
from local.aws.stand_in import AwsStandIn


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A stand-in for all of these tests: each takes names of its own. An idle minute is a tenth of a second."""
    machine = Machine(tmp_path_factory.mktemp("aws"), warehouse_dsn="", settings={"SETTING": "here"}, minute=0.1)
    with AwsStandIn(machine) as stand_in:
        made = Aws(stand_in, machine)
        made.client("s3").create_bucket(Bucket=CODE)
        made.profile("r", allow("*"))
        yield made


@pytest.fixture(autouse=True)
def calm(aws: Aws) -> Iterator[None]:
    """No test meets the trouble that another one prepared."""
    yield
    aws.machine.calm()
