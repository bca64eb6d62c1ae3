"""Reading the runtime contract: what commands report when it is missing, unreadable or of another version."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from barflow.contract import parameter_name
from barflow.errors import BadInputError, UnavailableError
from barflow.operations.deployment import read_contract


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


def test_an_environment_without_a_deployment_is_reported_with_the_command() -> None:
    with pytest.raises(BadInputError, match=r"no /barflow/dev/runtime: deploy it with .*env=dev"):
        read_contract("dev")


def test_an_unreachable_account_is_not_reported_as_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION", raising=False)
    with pytest.raises(UnavailableError, match=r"cannot be read \(NoRegionError\)"):
        read_contract("dev")


def test_a_contract_of_another_version_is_rejected_with_its_fields() -> None:
    boto3.client("ssm").put_parameter(Name=parameter_name("dev"), Type="String", Value='{"env": "dev"}')
    with pytest.raises(BadInputError, match=r"does not fit this version .*fields: .*settings"):
        read_contract("dev")
