"""Migration function: the warehouse's users, schema and privileges, repeated runs, and its errors.

It runs on a real PostgreSQL server whose owner is no superuser, as on RDS, with the secrets in moto.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import psycopg
import pytest
from harness import program
from moto import mock_aws
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from barflow.errors import BarflowError
from barflow.warehouse import connection as connection_module
from barflow.warehouse.users import AIRFLOW, LOADER, READER, SANDBOX

ROOT = Path(__file__).parents[2]
OWNER = "barflow_owner"
USERS = (LOADER, READER, SANDBOX, AIRFLOW)
BAR = "values ('AAPL', now(), '2025-07-02', 1, 1, 1, 1, 1, 1, 1, 1, 'test')"
COLUMNS = "(symbol, bar_start, session_date, open, high, low, close, volume, vwap, bar_count, expected_bars, load_id)"


class Server:
    """The warehouse as deployed: an empty database whose owner can only create roles and databases."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def as_user(self, user: str, database: str = "") -> psycopg.Connection[Any]:
        return psycopg.connect(make_conninfo(self.dsn, user=user, **({"dbname": database} if database else {})))

    def grant(self, what: str, user: str) -> None:
        database = conninfo_to_dict(self.dsn)["dbname"]
        with psycopg.connect(self.dsn) as connection:
            connection.execute(f"grant {what.format(database=database)} to {user}".encode())

    def names(self, query: str) -> set[str]:
        with psycopg.connect(self.dsn) as connection:
            return {name for (name,) in connection.execute(query.encode())}


@pytest.fixture
def server(empty_warehouse_dsn: str) -> Iterator[Server]:
    name = sql.Identifier(conninfo_to_dict(empty_warehouse_dsn)["dbname"])
    with psycopg.connect(empty_warehouse_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} login createrole createdb").format(sql.Identifier(OWNER)))
        connection.execute(sql.SQL("alter database {} owner to {}").format(name, sql.Identifier(OWNER)))
        yield Server(empty_warehouse_dsn)
        connection.execute("drop database if exists airflow with (force)")
        connection.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(OWNER)))
        connection.execute(sql.SQL("alter database {} owner to postgres").format(name))
        for user in (*USERS, OWNER):
            if connection.execute("select 1 from pg_roles where rolname = %s", [user]).fetchone():
                connection.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(user)))
                connection.execute(sql.SQL("drop role {}").format(sql.Identifier(user)))


@pytest.fixture
def function(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Yield the handler's module with the environment variables and secrets of the stack."""
    where = conninfo_to_dict(server.dsn)
    for name, value in {
        "DATABASE_HOST": where["host"],
        "DATABASE_PORT": "5432",
        "DATABASE_NAME": where["dbname"],
        "ADMIN_SECRET": "owner",
        "USER_SECRETS": json.dumps(USERS),
        **{"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"},
    }.items():
        monkeypatch.setenv(name, value)
    module = program("lambda/migrate/handler.py")
    monkeypatch.setattr(module, "SQL", ROOT / "sql")
    with mock_aws():
        for secret, user in {"owner": OWNER, **{name: name for name in USERS}}.items():
            put(secret, user, f"pass of {user}")
        yield module


def put(secret: str, user: str, password: str) -> None:
    client = boto3.client("secretsmanager")
    body = json.dumps({"username": user, "password": password})
    try:
        client.create_secret(Name=secret, SecretString=body)
    except client.exceptions.ResourceExistsException:
        client.put_secret_value(SecretId=secret, SecretString=body)


def accepts(server: Server, user: str, password: str) -> bool:
    """Return whether the server's stored verifier belongs to this password (SCRAM, RFC 5803)."""
    (verifier,) = server.names(f"select rolpassword from pg_authid where rolname = '{user}'")
    _, rounds_and_salt, keys = verifier.split("$")
    rounds, salt = rounds_and_salt.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    client_key = hmac.new(salted, b"Client Key", "sha256").digest()
    return base64.b64encode(hashlib.sha256(client_key).digest()).decode() == keys.split(":")[0]


def test_one_run_creates_users_schema_and_airflows_database(function: ModuleType, server: Server) -> None:
    applied = function.handler({}, None)["applied"]
    assert applied == [path.stem for path in sorted((ROOT / "sql").glob("[0-9]*.sql")) if ".rollback" not in path.name]
    assert server.names("select rolname from pg_roles") >= {*USERS}
    assert server.names("select table_name from information_schema.tables where table_schema = 'market'") >= {
        "bar_5min"
    }
    with server.as_user(AIRFLOW, database=AIRFLOW) as connection:
        connection.execute("create table dag (id int)")


def test_a_second_run_changes_nothing(function: ModuleType) -> None:
    function.handler({}, None)
    assert function.handler({}, None) == {"applied": []}


def test_each_user_has_the_password_of_its_secret_also_after_a_rotation(function: ModuleType, server: Server) -> None:
    function.handler({}, None)
    assert all(accepts(server, user, f"pass of {user}") for user in USERS)
    put(LOADER, LOADER, "it's \\ new")
    function.handler({}, None)
    assert accepts(server, LOADER, "it's \\ new")
    assert not accepts(server, LOADER, f"pass of {LOADER}")


def test_no_password_is_in_a_statement(function: ModuleType, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    execute = psycopg.Connection.execute

    def record(self: psycopg.Connection[Any], query: Any, *more: Any, **named: Any) -> Any:
        statements.append(query.as_string(self) if isinstance(query, sql.Composable) else str(query))
        return execute(self, query, *more, **named)

    monkeypatch.setattr(psycopg.Connection, "execute", record)
    function.handler({}, None)
    assert any("SCRAM-SHA-256" in statement for statement in statements)
    assert not any("pass of" in statement for statement in statements)


def test_the_loader_can_write_rows_and_create_temporary_tables_but_not_alter_tables(
    function: ModuleType, server: Server
) -> None:
    function.handler({}, None)
    with server.as_user(LOADER) as connection:
        connection.execute(f"insert into market.bar_5min {COLUMNS} {BAR}".encode())
        connection.execute("delete from market.bar_5min")
        connection.execute("create temp table touched (symbol text, session_date date) on commit drop")
        connection.commit()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("drop table market.bar_5min")
        connection.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("create table market.own (x int)")


def test_the_reader_can_only_read(function: ModuleType, server: Server) -> None:
    function.handler({}, None)
    with server.as_user(READER) as connection:
        assert connection.execute("select count(*) from market.bar_5min").fetchone() == (0,)
        assert connection.execute("select count(*) from market.latest_trend").fetchone() == (0,)
        with pytest.raises((psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege)):
            connection.execute(f"insert into market.bar_5min {COLUMNS} {BAR}".encode())
        connection.rollback()
        connection.execute("set transaction read write")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("delete from market.bar_5min")


def test_the_visual_jobs_user_can_write_sandbox_and_only_read_market(function: ModuleType, server: Server) -> None:
    function.handler({}, None)
    bar, columns = BAR.replace(", 'test'", ""), COLUMNS.replace(", load_id", "")
    with server.as_user(SANDBOX) as connection:
        connection.execute(f"insert into sandbox.bar_1h {columns} {bar}".encode())
        connection.execute("create table sandbox.own as select 1 as x")
        assert connection.execute("select count(*) from market.bar_1h").fetchone() == (0,)
        connection.commit()
        for statement in (
            f"insert into market.bar_1h {COLUMNS} {BAR}",
            "delete from market.bar_1h",
            "table ops.load_run",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
            connection.rollback()
    with server.as_user(READER) as connection:
        assert connection.execute("select count(*) from sandbox.bar_1h").fetchone() == (1,)
        assert connection.execute("select x from sandbox.own").fetchone() == (1,)


def plant_schema_of_the_owner(server: Server) -> None:
    """As the loader of an earlier release: create a schema with the owner's name, and code that the owner could run."""
    server.grant("create on database {database}", LOADER)
    server.grant("select on all tables in schema public", LOADER)  # the columns of yoyo's tables are no secret
    note = f"insert into {OWNER}.ran select current_user where current_user = '{OWNER}'"
    with server.as_user(LOADER) as connection:
        for statement in (
            f"create schema {OWNER}",
            f"create table {OWNER}.ran (by_whom text)",
            f"create function {OWNER}.run() returns trigger language plpgsql as $$ begin {note}; return new; end $$",
            f"grant all on schema {OWNER} to public",
            *(
                f"create table {OWNER}.{table} as table public.{table}; "
                f"create trigger run after insert on {OWNER}.{table} execute function {OWNER}.run()"
                for table in ("_yoyo_migration", "_yoyo_log", "_yoyo_version", "yoyo_lock")
            ),
            f"grant all on all tables in schema {OWNER} to public",
        ):
            connection.execute(statement.encode())


def test_the_loader_of_an_earlier_release_cannot_run_code_as_the_owner(
    function: ModuleType, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (ROOT / "sql").glob("000[1-4]*.sql"):
        (tmp_path / path.name).write_text(path.read_text())
    with monkeypatch.context() as earlier:
        earlier.setattr(function, "SQL", tmp_path)
        earlier.setattr(function, "grant_permissions", lambda dsn: None)
        function.handler({}, None)
    plant_schema_of_the_owner(server)
    found: list[Any] = []
    set_session = connection_module.set_session

    def recorded(session: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
        set_session(session, settings)
        found.append(session.execute("show search_path").fetchone())

    with monkeypatch.context() as patch:
        patch.setattr(connection_module, "set_session", recorded)
        assert function.handler({}, None) == {
            "applied": [
                "0005_load_schema",
                "0006_float_noise",
                "0007_corporate_actions",
                "0008_drop_load_schema",
            ]
        }
    assert {*found} == {("pg_catalog",)}, "a connection of the owner can find names in another schema"
    assert server.names(f"select by_whom from {OWNER}.ran") == set()
    assert server.names("select migration_id from public._yoyo_migration") >= {"0005_load_schema"}
    with server.as_user(OWNER) as connection:  # also a person with the owner's password
        assert connection.execute("show search_path").fetchone() == ("public",)


def test_no_user_can_create_a_schema_also_after_an_earlier_release(function: ModuleType, server: Server) -> None:
    function.handler({}, None)
    server.grant("create on database {database}", LOADER)  # an earlier release, deployed again
    with server.as_user(OWNER) as connection:
        connection.execute(f"create schema load authorization {LOADER}")
    with server.as_user(LOADER) as connection:
        connection.execute("create unlogged table load.bar_1h (x int)")
    function.handler({}, None)
    for user in USERS:
        with server.as_user(user) as connection:
            assert connection.execute("show search_path").fetchone() == ("public",) or user == AIRFLOW
            for statement in (f"create schema {OWNER}", "create table public.planted (x int)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
                connection.rollback()
    assert server.names("select nspname from pg_namespace where nspname = 'load'") == set()


def test_every_function_of_the_warehouse_has_a_search_path(function: ModuleType, server: Server) -> None:
    function.handler({}, None)
    without = "select proname from pg_proc p join pg_namespace n on n.oid = pronamespace where proconfig is null "
    assert server.names(f"{without} and nspname in ('market', 'ops', 'sandbox', 'public')") == set()


def test_privileges_include_the_tables_of_later_migrations(function: ModuleType, server: Server) -> None:
    function.handler({}, None)
    with server.as_user(OWNER) as connection:
        connection.execute("create table market.later (x int)")
    with server.as_user(LOADER) as connection:
        connection.execute("insert into market.later values (1)")
    with server.as_user(READER) as connection:
        assert connection.execute("select x from market.later").fetchone() == (1,)


def test_airflow_cannot_read_the_warehouse(function: ModuleType, server: Server) -> None:
    function.handler({}, None)
    with server.as_user(AIRFLOW) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select * from market.bar_5min")


def test_a_failed_migration_raises_its_reason_and_changes_nothing(
    function: ModuleType, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (ROOT / "sql").glob("*.sql"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "9999_wrong.sql").write_text("create table market.half (x int);\nselect * from market.nowhere;\n")
    monkeypatch.setattr(function, "SQL", tmp_path)
    with pytest.raises(BarflowError, match=r'relation "market.nowhere" does not exist.*Fix the file'):
        function.handler({}, None)
    tables = server.names("select table_name from information_schema.tables where table_schema = 'market'")
    assert "half" not in tables
    assert "bar_5min" in tables
    (tmp_path / "9999_wrong.sql").write_text("create table market.half (x int);\n")
    assert function.handler({}, None)["applied"] == ["9999_wrong"]


def test_an_unreachable_database_is_reported_without_its_password(
    function: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_HOST", "/nowhere")
    with pytest.raises(BarflowError, match="could not be reached") as raised:
        function.handler({}, None)
    assert "pass of" not in str(raised.value)
