"""CloudWatch metrics of the host: a tick of the command, and a process run, with moto."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from moto import mock_aws
from moto_server import moto_server

from barflow import metric_names as names
from barflow.market.sessions import utc_now
from barflow.operations import cloudwatch as metrics
from emulators.twelvedata.server import TwelveDataEmulator
from local.embedded import EMULATOR_KEY
from local.synthetic import SyntheticBars

REGION = "us-east-1"
BARFLOW = Path(sys.executable).with_name("barflow")


@pytest.fixture
def aws() -> Iterator[dict[str, str]]:
    """Return the environment variables of an account in moto."""
    with moto_server() as url:
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }


def tick(mongodb_uri: str, database: str, url: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **variables,
        "BARFLOW_MONGODB_URI": mongodb_uri,
        "BARFLOW_MONGODB_DATABASE": database,
        "BARFLOW_LAKE_URI": "s3://lake",
        "BARFLOW_TWELVEDATA_URL": url,
        "BARFLOW_SYMBOLS": "AAPL,MSFT",
        "BARFLOW_HISTORY_SESSIONS": "2",
        "TWELVEDATA_API_KEY": EMULATOR_KEY,
    }
    return subprocess.run([BARFLOW, "ingest", "--json"], env=environment, capture_output=True, text=True, check=False)


def counted(aws: dict[str, str]) -> dict[str, set[str]]:
    """Return the names of the stored metrics, each with its symbols ('' for the environment)."""
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("cloudwatch", endpoint_url=aws["AWS_ENDPOINT_URL"], region_name=REGION, **keys)
    found: dict[str, set[str]] = {}
    for item in client.list_metrics(Namespace=names.NAMESPACE)["Metrics"]:
        dimensions = {one["Name"]: one["Value"] for one in item["Dimensions"]}
        assert dimensions[names.ENVIRONMENT] == "dev"
        found.setdefault(item["MetricName"], set()).add(dimensions.get(names.SYMBOL, ""))
    return found


def test_a_tick_on_a_deployed_host_publishes_metrics_and_one_on_a_laptop_does_not(
    mongodb_uri: str, aws: dict[str, str], tmp_path: Path
) -> None:
    with TwelveDataEmulator(SyntheticBars(), api_key=EMULATOR_KEY) as server:
        database = f"test_metrics_{os.getpid()}"
        done = tick(mongodb_uri, database, server.url, {**aws, "BARFLOW_ENV": "local"})
        assert done.returncode == 0, done.stderr
        assert counted(aws) == {}
        done = tick(mongodb_uri, database, server.url, {**aws, "BARFLOW_ENV": "dev"})
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
    found = counted(aws)
    assert found[names.FRESHNESS] == {"AAPL", "MSFT"}
    for name in (
        names.BARS_RECEIVED,
        names.STALEST,
        names.TICKS_REFUSED,
        names.ALERTS_FIRED,
        names.UNDELIVERED_ALERT_AGE,
    ):
        assert found[name] == {""}, name


def test_if_cloudwatch_fails_the_tick_warns_and_succeeds(mongodb_uri: str, aws: dict[str, str]) -> None:
    with TwelveDataEmulator(SyntheticBars(), api_key=EMULATOR_KEY) as server:
        unreachable = {**aws, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1", "BARFLOW_ENV": "dev"}
        done = tick(mongodb_uri, f"test_unmetered_{os.getpid()}", server.url, unreachable)
    assert done.returncode == 0, done.stderr
    assert "warning: CloudWatch accepted no metrics (EndpointConnectionError)" in done.stderr
    assert '"new"' in done.stdout or '"stored"' in done.stdout


def test_a_run_publishes_rows_and_dollars_and_a_call_has_at_most_1000_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    now = utc_now()
    call = BaseClient._make_api_call
    sizes: list[int] = []

    def counting(client: BaseClient, operation: str, given: dict[str, Any]) -> Any:
        if operation == "PutMetricData":
            sizes.append(len(given["MetricData"]))
        return call(client, operation, given)

    monkeypatch.setattr(BaseClient, "_make_api_call", counting)
    with mock_aws():
        assert metrics.put([metrics.run_metrics("dev", 1000, 0.2)], now) is None
        many = [metrics.MetricSet({names.SYMBOL: f"S{n}"}, {names.FRESHNESS: (1.0, "Seconds")}) for n in range(1001)]
        assert metrics.put(many, now) is None
        assert sizes[1:] == [1000, 1]
        client = boto3.client("cloudwatch")
        (cost,) = client.list_metrics(Namespace=names.NAMESPACE, MetricName=names.RUN_COST)["Metrics"]
        found = client.get_metric_statistics(
            Namespace=names.NAMESPACE,
            MetricName=names.RUN_COST,
            Dimensions=cost["Dimensions"],
            StartTime=now - timedelta(hours=1),
            EndTime=datetime.now(UTC) + timedelta(hours=1),
            Period=3600,
            Statistics=["Maximum"],
        )["Datapoints"]
        pages = client.get_paginator("list_metrics").paginate(Namespace=names.NAMESPACE, MetricName=names.FRESHNESS)
        assert sum(len(page["Metrics"]) for page in pages) == 1001
    assert [item["Maximum"] for item in found] == [0.2]
