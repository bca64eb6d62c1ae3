"""Shared fixtures: one MongoDB and one PostgreSQL server, Spark's Java, a browser, and recordings.

Every test gets its own databases. The embedded services' watchdog stops the servers, also when the test run is killed.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from browsing import CAN_BROWSE, BrowserShot, browser
from hypothesis import settings
from psycopg.conninfo import conninfo_to_dict
from pymongo.database import Database
from recordings import ABSENT, ORIGINS, REAL_DATA, Recordings, real, synthetic

from barflow.staging.connection import Document, connect
from barflow.warehouse.migrations import migrate
from local.services import Services
from local.state import State

# No test depends on the speed of the machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Spark's gateway logs at interpreter exit, when its log stream is already closed.
logging.getLogger("py4j").setLevel(logging.WARNING)

# Use the Node that make setup installs for the CDK engine, not one from PATH.
os.environ.setdefault("JSII_NODE", str(Path(sys.executable).with_name("node")))

pytest_plugins = ["scheduling"]

# The embedded MongoDB with an argument that its command line does not have.
WITHOUT_EXPIRY = (
    "import functools, secantus.cli as cli; "
    "cli.SecantusDBServer = functools.partial(cli.SecantusDBServer, ttl_sweep_seconds=0); raise SystemExit(cli.main())"
)

ROOT = Path(__file__).parents[1]
SPARK_SETTINGS = ("JAVA_HOME", "PYSPARK_PYTHON", "SPARK_LOCAL_IP")
# Run two tasks at a time, retry a failed task once as on a cluster, use a JIT compiler that starts fast, and interpret
# expressions: to compile each query costs more than its few rows. The demo and the rehearsal run compiled queries.
SPARK_ARGUMENTS = (
    '--master local[2,2] --driver-java-options "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" '
    "--conf spark.sql.codegen.wholeStage=false --conf spark.sql.codegen.factoryMode=NO_CODEGEN pyspark-shell"
)


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
    """Yield ``browser_shot(page, run="return page.title()", width=390, scheme="dark", screenshot=…)``."""
    if not CAN_BROWSE:
        pytest.skip("the browser of the tests runs on Linux on x86-64 only")
    with browser() as shot:
        yield shot


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function from a picture's name to its path: in the test's folder, or in docs under `make pictures`."""
    folder = Path(os.environ.get("PICTURES_TO", tmp_path))
    return lambda name: folder / name


@pytest.fixture(scope="session", autouse=True)
def no_developer_settings() -> Iterator[None]:
    """Remove the developer's settings from the environment: the tests drop databases."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("BARFLOW_") or name == "TWELVEDATA_API_KEY":
                patch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):  # nor use the developer's AWS account
            patch.setenv(name, os.devnull)
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def state(no_developer_settings: None) -> Iterator[State]:
    """Yield the state of the session's servers, outside pytest's folder: PostgreSQL's user needs access to it."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        yield State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory, no_developer_settings: None) -> Iterator[str]:
    """Yield the URI of the session's MongoDB server. It deletes no document by its age: many tests stop the clock."""
    state = State.create(tmp_path_factory.mktemp("mongo") / "state", source={"kind": "synthetic"}, as_of=None)
    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("local.mongo.SERVER", ("-c", WITHOUT_EXPIRY))
            services = running.enter_context(Services(state, print, postgres=False))
        yield services.mongodb_uri


@pytest.fixture
def database(mongodb_uri: str) -> Iterator[Database[Document]]:
    """Yield an empty MongoDB database for one test, on the server of ``mongodb_uri``."""
    opened = connect(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}")
    yield opened
    opened.client.close()


@pytest.fixture(scope="session")
def postgres_dsn(state: State) -> Iterator[str]:
    """Yield the DSN of the session's PostgreSQL server and of a database that no test uses."""
    with Services(state, print, mongo=False) as services:
        yield services.superuser_dsn


@pytest.fixture(scope="session")
def migrated_template(postgres_dsn: str) -> str:
    """Create a database with every migration applied, and return its name. Tests copy it."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("create database migrated")
    migrate(dsn_of(postgres_dsn, "migrated"), ROOT / "sql")
    return "migrated"


@pytest.fixture
def empty_warehouse_dsn(postgres_dsn: str) -> Iterator[str]:
    """Yield the DSN of an empty database for one test."""
    yield from _create_warehouse(postgres_dsn, "template1")


@pytest.fixture
def warehouse_dsn(postgres_dsn: str, migrated_template: str) -> Iterator[str]:
    """Yield the DSN of a migrated warehouse for one test."""
    yield from _create_warehouse(postgres_dsn, migrated_template)


@pytest.fixture(scope="module")
def module_warehouse_dsn(postgres_dsn: str, migrated_template: str) -> Iterator[str]:
    """Yield the DSN of a migrated warehouse for all tests of one file."""
    yield from _create_warehouse(postgres_dsn, migrated_template)


@pytest.fixture
def copy_warehouse(postgres_dsn: str) -> Iterator[Callable[[str], str]]:
    """Yield a function that copies a warehouse, given by its DSN, for one test. It returns the DSN of the copy."""
    with ExitStack() as copies:
        yield lambda dsn: copies.enter_context(_copy(postgres_dsn, str(conninfo_to_dict(dsn)["dbname"])))


@pytest.fixture(scope="session")
def spark_environment(state: State) -> Iterator[None]:
    """Set Spark's environment variables, which child programs inherit. Java comes from a wheel."""
    settings = Services(state, print).environment()
    with pytest.MonkeyPatch.context() as patch:
        for name in SPARK_SETTINGS:
            patch.setenv(name, settings[name])
        patch.setenv("PYSPARK_SUBMIT_ARGS", SPARK_ARGUMENTS)
        yield


def _create_warehouse(postgres_dsn: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
        yield dsn_of(postgres_dsn, name)
        connection.execute(f"drop database {name} with (force)")


_copy = contextmanager(_create_warehouse)


def dsn_of(dsn: str, database: str) -> str:
    """Return the DSN of another database of the embedded server."""
    return dsn.replace("/barflow?", f"/{database}?")
