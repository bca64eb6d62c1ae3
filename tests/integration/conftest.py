"""Fixtures that start Twelve Data API emulators. MongoDB and PostgreSQL come from tests/conftest.py."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from account_needs import Ask, needs
from clients import Command, Emulators
from moto_server import moto_server
from pymongo.database import Database
from twelvedata_calls import CLOCK, MARKET, reset

import emulators.aws.access_analyzer  # ValidatePolicy
import emulators.aws.resource_types  # noqa: F401  rulesets
from barflow.cli.main import main
from barflow.lake.partitions import Lake
from barflow.operations.checks import Check
from barflow.operations.preflight.account import Account
from barflow.operations.preflight.needs import Needs
from barflow.operations.preflight.run import answers, questions
from barflow.staging.connection import Document
from emulators.aws import account_apis
from emulators.aws.account import ACCOUNT, REGION, client_variables
from emulators.slack.server import SlackEmulator
from emulators.twelvedata.bar_source import BarSource
from emulators.twelvedata.server import TwelveDataEmulator


@pytest.fixture
def emulator() -> Iterator[Emulators]:
    """Return a function that starts an API emulator: ``emulator(source, clock=…)``. The default source is synthetic."""
    with ExitStack() as running:

        def start(source: BarSource = MARKET, **options: object) -> TwelveDataEmulator:
            return running.enter_context(TwelveDataEmulator(source, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="session")
def market_server() -> Iterator[TwelveDataEmulator]:
    with TwelveDataEmulator(MARKET, clock=CLOCK) as running:
        yield running


@pytest.fixture
def market(market_server: TwelveDataEmulator) -> TwelveDataEmulator:
    """Return a reset emulator with synthetic sessions. Its clock is ``twelvedata_calls.CLOCK``."""
    return reset(market_server)


@pytest.fixture
def barflow(
    lake: Lake,
    database: Database[Document],
    mongodb_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Command]:
    """Yield the function that runs a command on the test's ``lake``. In the end, its bars must be unchanged."""
    monkeypatch.setenv("BARFLOW_MONGODB_URI", mongodb_uri)
    monkeypatch.setenv("BARFLOW_MONGODB_DATABASE", database.name)
    monkeypatch.setenv("BARFLOW_LAKE_URI", lake.root)
    before = _digests(lake)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["barflow", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    yield run
    assert _digests(lake) == before


def _digests(lake: Lake) -> dict[str, str]:
    files = (path for path in Path(lake.root, "bars_5min").rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def account_clients() -> Iterator[Callable[[str], Any]]:
    """Return the function that makes the clients of moto's server. A client is made once: that takes long."""
    with moto_server() as url:
        keys = {"aws_access_key_id": "emulator", "aws_secret_access_key": "emulator", "region_name": REGION}
        session = boto3.Session(**keys)
        yield cache(lambda service: session.client(service, endpoint_url=url))


@pytest.fixture
def aws(account_clients: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Make the account ready for the deployment. Return the function that makes its clients."""
    url = account_clients("ssm").meta.endpoint_url
    requests.post(f"{url}/moto-api/reset", timeout=30).raise_for_status()
    for name, value in client_variables(url).items():
        monkeypatch.setenv(name, value)
    for quota, value in account_apis.QUOTAS.items():
        monkeypatch.setitem(account_apis.QUOTAS, quota, value)
    monkeypatch.setattr(account_apis, "ACTIVE_TAGS", {"barflow:env"})
    account_clients("ssm").put_parameter(Name=needs().bootstrap_parameter, Value="33", Type="String")
    account_clients("iam").create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    return account_clients


@pytest.fixture
def ask(aws: Callable[[str], Any]) -> Ask:
    """Return a function that returns the checks of these questions, or of all, by name."""

    def asked(of: Needs, *names: str) -> dict[str, Check]:
        account = Account(ACCOUNT, "aws", REGION, aws)
        found = [check for name in names or questions(of) for check in answers(name, of, account)]
        return {check.name: check for check in found}

    return asked


@pytest.fixture
def slack_server() -> Iterator[SlackEmulator]:
    """Yield a Slack emulator of this test."""
    with SlackEmulator() as running:
        yield running
