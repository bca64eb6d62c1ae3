"""Which real parts do the tests run on? One MongoDB, one PostgreSQL, and API stand-ins; all end with the tests.

Every test gets databases of its own. The servers are those of the embedded services, so their watchdog stops them
whatever the test run dies of.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from pymongo.database import Database
from twelvedata_calls import CLOCK, MARKET, reset

from barflow.migrations import migrate
from barflow.mongo import Document, connect
from local.bar_sources import BarSource
from local.services import Services
from local.state import State
from local.twelvedata_server import TwelveDataStandIn

ROOT = Path(__file__).parents[2]
SPARK_SETTINGS = ("JAVA_HOME", "PYSPARK_PYTHON", "SPARK_LOCAL_IP")


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


def _own_warehouse(postgres_dsn: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}")
        yield named(postgres_dsn, name)
        connection.execute(f"drop database {name} with (force)")


def named(dsn: str, database: str) -> str:
    """The DSN of another database of the embedded server."""
    return dsn.replace("/barflow?", f"/{database}?")


StandIns = Callable[..., TwelveDataStandIn]


@pytest.fixture
def stand_in() -> Iterator[StandIns]:
    """Starts an API stand-in: ``stand_in(source, clock=…)``. Synthetic sessions unless told otherwise."""
    with ExitStack() as running:

        def start(source: BarSource = MARKET, **options: object) -> TwelveDataStandIn:
            return running.enter_context(TwelveDataStandIn(source, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="session")
def market_server() -> Iterator[TwelveDataStandIn]:
    with TwelveDataStandIn(MARKET, clock=CLOCK) as running:
        yield running


@pytest.fixture
def market(market_server: TwelveDataStandIn) -> TwelveDataStandIn:
    """A stand-in with synthetic sessions as if it had just started. Its clock is ``twelvedata_calls.CLOCK``."""
    return reset(market_server)


@pytest.fixture(scope="session")
def spark_environment(state: State) -> Iterator[None]:
    """Spark's Java, from the wheel; for tests that run Spark in this process. Child programs inherit it."""
    settings = Services(state, print).environment()
    with pytest.MonkeyPatch.context() as patch:
        for name in SPARK_SETTINGS:
            patch.setenv(name, settings[name])
        yield
