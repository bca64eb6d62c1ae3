"""The user's connection options are kept, and servers that refuse startup options can be used."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from pooler import pooler
from psycopg.conninfo import make_conninfo
from pymongo.database import Database

from barflow.errors import BadInputError, UnavailableError
from barflow.staging.connection import Document
from barflow.staging.connection import connect as connect_mongo
from barflow.warehouse.connection import connect, driver_options
from barflow.warehouse.load import Load
from barflow.warehouse.migrations import pending
from barflow.warehouse.queries import query_read_only
from dashboard.connections import Connections
from local.mongo import PATIENCE

USERS_OPTIONS = "-c search_path=ops,market -c statement_timeout=7s"


def test_the_options_of_a_dsn_are_kept(warehouse_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = make_conninfo(warehouse_dsn, options=USERS_OPTIONS, application_name="desk", connect_timeout=3)
    with connect(given, {"tcp_keepalives_idle": "30"}) as connection:
        shown = connection.execute(
            "select current_setting('search_path'), current_setting('statement_timeout'), "
            "current_setting('application_name'), current_setting('timezone')"
        ).fetchone()
        assert not connection.autocommit
    assert shown == ("ops,market", "7s", "desk", "UTC")
    assert "connect_timeout" not in driver_options(given)
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    monkeypatch.setenv("PGAPPNAME", "from the environment")
    assert "connect_timeout" not in driver_options(warehouse_dsn)
    with connect(warehouse_dsn) as connection:
        assert connection.info.parameter_status("application_name") == "from the environment"


def test_what_a_dsn_leaves_open_is_barflows(warehouse_dsn: str) -> None:
    assert driver_options(warehouse_dsn)["connect_timeout"] == 10
    with connect(warehouse_dsn, autocommit=True) as connection:
        assert connection.info.parameter_status("application_name") == "barflow"
        assert connection.autocommit
        connection.execute("set timezone = 'Asia/Tokyo'")  # the session's own setting survives a rollback only here
    with connect(warehouse_dsn) as connection:
        connection.rollback()
        assert connection.execute("show timezone").fetchone() == ("UTC",)


def test_a_pooler_that_refuses_startup_options_can_be_used(warehouse_dsn: str) -> None:
    with pooler(warehouse_dsn) as (dsn, startups):
        assert pending(dsn) == []
        assert query_read_only(dsn, "show timezone") == (["TimeZone"], [("UTC",)])
        with Load.begun(dsn, 1.0) as load:
            assert load.connection.execute("show timezone").fetchone() == ("UTC",)
        with closing(Connections(dsn)) as page, page.reading() as connection:
            assert connection.execute("show statement_timeout").fetchone() == ("5s",)
            assert connection.execute("show timezone").fetchone() == ("UTC",)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("delete from market.bar_1d")
    assert startups
    assert all(set(given) == {"user", "database", "application_name"} for given in startups)


def test_the_error_of_a_pooler_names_it(warehouse_dsn: str) -> None:
    with pooler(warehouse_dsn) as (dsn, _), pytest.raises(UnavailableError) as raised:
        connect(make_conninfo(dsn, options=USERS_OPTIONS))
    assert "unsupported startup parameter: options" in str(raised.value)
    assert "pooler, such as PgBouncer or RDS Proxy" in str(raised.value)
    assert "Remove it from BARFLOW_WAREHOUSE_DSN" in str(raised.value)


def test_the_options_of_a_mongodb_uri_are_kept(mongodb_uri: str, database: Database[Document]) -> None:
    own_choice = mongodb_uri.replace(f"&{PATIENCE}", "")
    opened = connect_mongo(
        f"{own_choice}&retrywrites=false&SocketTimeoutMS=7000&serverSelectionTimeoutMS=900&appName=desk&tz_aware=false",
        database.name,
    )
    with opened.client as client:
        pool = client._topology_settings.pool_options
        assert not client.options.retry_writes
        assert (pool.socket_timeout, client.options.server_selection_timeout) == (7.0, 0.9)
        assert pool.appname == "desk"
    with connect_mongo(own_choice, database.name).client as client:
        pool = client._topology_settings.pool_options
        assert client.options.retry_writes
        assert (pool.socket_timeout, pool.connect_timeout, client.options.server_selection_timeout) == (60.0, 5.0, 5.0)
        assert pool.appname == "barflow"


@pytest.mark.parametrize("password", ["p@ss", "p:ss", "p/ss", "p%ss", "p?ss"])
def test_an_unencoded_password_is_rejected_with_how_to_encode_it(password: str) -> None:
    with pytest.raises(BadInputError, match="percent-encoded: @ is %40") as raised:
        connect_mongo(f"mongodb://user:{password}@localhost:1/")
    assert password not in str(raised.value)
