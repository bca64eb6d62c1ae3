"""Which real parts do the pipeline's tests run on? One MongoDB, one PostgreSQL and one Spark, each for all of them.

Every test gets databases and a lake of its own. The servers are those of the embedded services, so their watchdog
stops them whatever the test run dies of.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymongo
import pytest
from harness import ROOT, Pipeline

from barflow.migrations import migrate
from barflow.spark_session import spark_session
from local.services import Services
from local.state import State

# Two tasks at a time, a failed one is tried once more, as on a cluster; and a compiler that is quick to start.
SPARK_ARGUMENTS = '--master local[2,2] --driver-java-options "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" pyspark-shell'


@pytest.fixture(scope="session", autouse=True)
def no_settings_from_outside() -> Iterator[None]:
    """The tests drop databases: never those that the developer's environment names."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("BARFLOW_") or name == "TWELVEDATA_API_KEY":
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def state(no_settings_from_outside: None) -> Iterator[State]:
    """The folder of the session's servers. Not under pytest's own: PostgreSQL's user must be let into it."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        yield State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)


@pytest.fixture(scope="session")
def services(state: State) -> Iterator[Services]:
    with Services(state, print) as running:
        yield running


@pytest.fixture(scope="session")
def mongodb_uri(services: Services) -> str:
    """The URI of the session's MongoDB server."""
    return services.mongodb_uri


@pytest.fixture(scope="session")
def postgres_dsn(services: Services) -> str:
    """The DSN of the session's PostgreSQL server and of a database in it that tests leave alone."""
    return services.warehouse_dsn


@pytest.fixture(scope="session")
def migrated_template(postgres_dsn: str) -> str:
    """The name of a database with every migration applied, to copy from."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("create database migrated")
    migrate(named(postgres_dsn, "migrated"), ROOT / "sql")
    return "migrated"


@pytest.fixture
def empty_warehouse_dsn(postgres_dsn: str) -> Iterator[str]:
    """The DSN of an empty database of the test's own."""
    yield from _own_warehouse(postgres_dsn, "template1")


@pytest.fixture
def warehouse_dsn(postgres_dsn: str, migrated_template: str) -> Iterator[str]:
    """The DSN of a warehouse of the test's own, its schema up to date."""
    yield from _own_warehouse(postgres_dsn, migrated_template)


@pytest.fixture(scope="session")
def spark_environment(services: Services) -> Iterator[None]:
    """Spark's Java, from the wheel, and how it starts; child programs inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JAVA_HOME", "PYSPARK_PYTHON", "SPARK_LOCAL_IP"):
            patch.setenv(name, services.environment()[name])
        patch.setenv("PYSPARK_SUBMIT_ARGS", SPARK_ARGUMENTS)
        yield


@pytest.fixture(scope="session")
def spark(spark_environment: None) -> Iterator[None]:
    """The one Spark of the test process: the programs' own session, which they find and use."""
    session = spark_session("barflow tests")
    yield
    session.stop()


@pytest.fixture
def stores(mongodb_uri: str, warehouse_dsn: str, tmp_path: Path) -> Iterator[Pipeline]:
    """An empty pipeline of the test's own: staging, lake, warehouse."""
    pipeline = Pipeline(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}", warehouse_dsn, str(tmp_path / "lake"))
    yield pipeline
    with pymongo.MongoClient[dict[str, object]](mongodb_uri) as client:
        client.drop_database(pipeline.database_name)


@pytest.fixture
def pipeline(stores: Pipeline, spark: None) -> Pipeline:
    """The same, its programs run in this process on the shared Spark."""
    return stores


def named(dsn: str, database: str) -> str:
    """The DSN of another database of the embedded server."""
    return dsn.replace("/barflow?", f"/{database}?")


def _own_warehouse(postgres_dsn: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
        yield named(postgres_dsn, name)
        connection.execute(f"drop database {name} with (force)")
