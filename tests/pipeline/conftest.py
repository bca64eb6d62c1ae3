"""Pipeline fixtures: each test has its own stores. All tests of a process share one Spark session."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Pipeline

from barflow.pipeline.spark import spark_session
from local import mongo
from local.starting import free_port


@pytest.fixture(scope="session")
def spark(spark_environment: None) -> Iterator[None]:
    """Start the Spark session that the programs use. The process has only one."""
    session = spark_session("barflow tests")
    yield
    session.stop()


@pytest.fixture
def stores(mongodb_uri: str, warehouse_dsn: str, tmp_path: Path) -> Pipeline:
    """Return an empty pipeline for one test: staging, lake and warehouse."""
    return Pipeline(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}", warehouse_dsn, str(tmp_path / "lake"))


@pytest.fixture
def pipeline(stores: Pipeline, spark: None) -> Pipeline:
    """Return an empty pipeline whose programs run in this process on the shared Spark session."""
    return stores


@pytest.fixture
def own_mongo(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Start a MongoDB server for one test. Yield its URI, a function that kills it, and one that restarts it."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "mongo").mkdir()
    servers: list[subprocess.Popen[bytes]] = []
    port = free_port()

    def start() -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mongo, "free_port", lambda: port)
            return mongo.start_mongo(tmp_path, lambda server, _: servers.append(server), print)

    def kill() -> None:
        servers[-1].kill()
        servers[-1].wait()

    yield start(), kill, start
    kill()
