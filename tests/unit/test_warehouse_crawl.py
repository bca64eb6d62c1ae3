"""The warehouse's crawl: how its driver is installed, and when a crawl is needed."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from contracts import REGION, contract_of
from moto import mock_aws

from barflow.operations.warehouse_crawl import install_command, is_crawled, is_driver_installed, missing_driver

URI, DEPLOYED = "s3://code/drivers/postgresql-42.7.13.jar", datetime(2026, 11, 30, 9, tzinfo=UTC)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="code")
        yield client


def test_a_missing_driver_is_reported_in_one_line_with_its_command(s3: Any) -> None:
    glue = contract_of("dev", glue={"jdbc_driver": URI}).glue
    line = missing_driver(s3, glue)
    assert line is not None
    assert line.endswith(f"Run `{install_command(URI, glue.jdbc_driver_sha256)}`")
    assert "\n" not in line
    s3.put_object(Bucket="code", Key="drivers/postgresql-42.7.13.jar", Body=b"driver")
    assert is_driver_installed(s3, URI)
    assert missing_driver(s3, glue) is None
    assert not is_driver_installed(s3, "s3://code/drivers/postgresql-42.7.14.jar")


@pytest.mark.parametrize(("content", "stored"), [(b"the driver", True), (b"another file", False)])
def test_the_command_stores_only_a_file_with_the_checksum(tmp_path: Path, content: bytes, stored: bool) -> None:
    """The publisher and S3 are scripts here; the shell and sha256sum are real."""
    (tmp_path / "published").write_bytes(content)
    for name, script in (
        ("curl", f'[ "$2" = https://jdbc.postgresql.org/download/d.jar ] && cp {tmp_path}/published d.jar'),
        ("aws", f'[ "$*" = "s3 cp d.jar s3://code/drivers/d.jar" ] && touch {tmp_path}/stored'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    command = install_command("s3://code/drivers/d.jar", hashlib.sha256(b"the driver").hexdigest())
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode == 0) is stored
    assert (tmp_path / "stored").exists() is stored


@pytest.mark.parametrize(
    ("last", "crawled"),
    [
        (None, False),
        ({"Status": "SUCCEEDED", "StartTime": DEPLOYED + timedelta(hours=1)}, True),
        ({"Status": "SUCCEEDED", "StartTime": DEPLOYED - timedelta(hours=1)}, False),
        ({"Status": "FAILED", "StartTime": DEPLOYED + timedelta(hours=1)}, False),
    ],
)
def test_one_successful_crawl_after_a_deployment_is_enough(last: Any, crawled: bool) -> None:
    found = {"Crawler": {"LastCrawl": last} if last else {}}
    assert is_crawled(SimpleNamespace(get_crawler=lambda Name: found), "warehouse", DEPLOYED) is crawled
