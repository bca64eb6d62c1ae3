"""Which pipeline does a test work on? One of its own, whose programs share one Spark in this process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Pipeline

from barflow.spark_session import spark_session


@pytest.fixture(scope="session")
def spark(spark_environment: None) -> Iterator[None]:
    """The one Spark of the test process: the programs' own session, which they find and use."""
    session = spark_session("barflow tests")
    yield
    session.stop()


@pytest.fixture
def stores(mongodb_uri: str, warehouse_dsn: str, tmp_path: Path) -> Pipeline:
    """An empty pipeline of the test's own: staging, lake, warehouse."""
    return Pipeline(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}", warehouse_dsn, str(tmp_path / "lake"))


@pytest.fixture
def pipeline(stores: Pipeline, spark: None) -> Pipeline:
    """The same, its programs run in this process on the shared Spark."""
    return stores
