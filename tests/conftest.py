"""Fixtures of several test files: one MongoDB and one PostgreSQL server, Spark's Java, a browser, and recordings.

Every test gets databases of its own. The embedded services' watchdog stops the servers, however the test run ends.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from browsing import CAN_BROWSE, BrowserShot, browser
from hypothesis import settings
from pymongo.database import Database
from recordings import ABSENT, ORIGINS, REAL_DATA, Recordings, real, synthetic

from barflow.staging.connection import Document, connect
from barflow.warehouse.migrations import migrate
from local.services import Services
from local.state import State

# No test of this project depends on how fast the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Spark's gateway says goodbye as the interpreter ends, when the log that it writes to is closed.
logging.getLogger("py4j").setLevel(logging.WARNING)

# Use the Node that make setup installs for the CDK engine, not one from PATH.
os.environ.setdefault("JSII_NODE", str(Path(sys.executable).with_name("node")))

ROOT = Path(__file__).parents[1]
SPARK_SETTINGS = ("JAVA_HOME", "PYSPARK_PYTHON", "SPARK_LOCAL_IP")
# Two tasks at a time, a failed one is tried once more, as on a cluster; and a compiler that is quick to start.
SPARK_ARGUMENTS = '--master local[2,2] --driver-java-options "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" pyspark-shell'


def pytest_report_header() -> str:
    """Return which recordings the tests run on, and why not on the real ones."""
    return f"recordings: synthetic only: {ABSENT}" if ABSENT else f"recordings: synthetic, and real from {REAL_DATA}"


@pytest.fixture(scope="session")
def synthetic_recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """Return the recordings that this repository makes."""
    return synthetic(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="session")
def real_recordings() -> Recordings:
    """Return the real recordings, or skip the test where their folder is absent."""
    if ABSENT:
        pytest.skip(ABSENT)
    return real(REAL_DATA)


@pytest.fixture(params=ORIGINS)
def recordings(request: pytest.FixtureRequest) -> Recordings:
    """Return the recordings of each origin: the synthetic ones always, the real ones where their folder exists."""
    found: Recordings = request.getfixturevalue(f"{request.param}_recordings")
    return found


@pytest.fixture(scope="session")
def browser_shot() -> Iterator[BrowserShot]:
    """``browser_shot(page, run="return page.title()", width=390, scheme="dark", screenshot=…)``."""
    if not CAN_BROWSE:
        pytest.skip("the browser that the tests bring along runs on Linux on x86-64 only")
    with browser() as shot:
        yield shot


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[str], Path]:
    """Where a picture of that name goes: with the test, or under `make pictures` into the documentation."""
    folder = Path(os.environ.get("PICTURES_TO", tmp_path))
    return lambda name: folder / name


@pytest.fixture(scope="session", autouse=True)
def no_settings_from_outside() -> Iterator[None]:
    """The tests drop databases: never those that the developer's environment names."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("BARFLOW_") or name == "TWELVEDATA_API_KEY":
                patch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):  # nor an account of the developer's
            patch.setenv(name, os.devnull)
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def state(no_settings_from_outside: None) -> Iterator[State]:
    """The folder of the session's servers. Not under pytest's own: PostgreSQL's user must be let into it."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        yield State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory, no_settings_from_outside: None) -> Iterator[str]:
    """The URI of the session's MongoDB server."""
    state = State.create(tmp_path_factory.mktemp("mongo") / "state", source={"kind": "synthetic"}, as_of=None)
    with Services(state, print, postgres=False) as services:
        yield services.mongodb_uri


@pytest.fixture
def database(mongodb_uri: str) -> Iterator[Database[Document]]:
    """An empty MongoDB database of the test's own, gone with the server. Its URI is ``mongodb_uri``."""
    opened = connect(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}")
    yield opened
    opened.client.close()


@pytest.fixture(scope="session")
def postgres_dsn(state: State) -> Iterator[str]:
    """The DSN of the session's PostgreSQL server and of a database in it that tests leave alone."""
    with Services(state, print, mongo=False) as services:
        yield services.warehouse_dsn


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


@pytest.fixture(scope="module")
def module_warehouse_dsn(postgres_dsn: str, migrated_template: str) -> Iterator[str]:
    """The same for all tests of one file."""
    yield from _own_warehouse(postgres_dsn, migrated_template)


@pytest.fixture(scope="session")
def spark_environment(state: State) -> Iterator[None]:
    """Spark's Java, from the wheel, and how it starts; child programs inherit it."""
    settings = Services(state, print).environment()
    with pytest.MonkeyPatch.context() as patch:
        for name in SPARK_SETTINGS:
            patch.setenv(name, settings[name])
        patch.setenv("PYSPARK_SUBMIT_ARGS", SPARK_ARGUMENTS)
        yield


def _own_warehouse(postgres_dsn: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
        yield named(postgres_dsn, name)
        connection.execute(f"drop database {name} with (force)")


def named(dsn: str, database: str) -> str:
    """The DSN of another database of the embedded server."""
    return dsn.replace("/barflow?", f"/{database}?")
