"""Other users of this machine, and SQL from outside, get nothing from an embedded state.

All tests share one state. An earlier release made it: PostgreSQL's superuser owns everything, MongoDB has no password,
and everyone can read the folders. Another user has planted what that user could.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from barflow.errors import BadInputError, BarflowError
from barflow.staging.connection import connect
from barflow.warehouse.migrations import migrate
from barflow.warehouse.queries import query_read_only
from local.folders import close_to_others
from local.postgres import _socket_folder
from local.services import Services
from local.starting import free_port
from local.state import State

ROOT = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody").pw_uid
BAR = "('AAPL', now(), '2025-07-02', 1, 1, 1, 1, 1, 1, 1, 1, default, 'test')"
# What the superuser of an earlier release owned.
GIVE_TO_SUPERUSER = """
alter database barflow owner to postgres; reassign owned by local_owner to postgres;
drop owned by local_owner, local_reader; drop role local_owner, local_reader
"""


@dataclass
class Opened:
    """The state's running services, what they logged, and a folder of another user."""

    services: Services
    log: list[str]
    victim: Path


def owner_of(path: Path) -> int:
    return path.stat().st_uid


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    """Yield the services of a state of an earlier release, opened by this one."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        state = State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)
        make_old_warehouse(state)
        make_old_mongodb(state)
        for item in (state.path, *(state.path / part for part in ("lake", "logs", "mongo"))):
            item.chmod(0o755)
        victim = Path(folder) / "victim"
        victim.mkdir(mode=0o755)
        mark = hashlib.sha256(str(state.path / "postgres").encode()).hexdigest()[:12]
        sockets = Path(tempfile.gettempdir()) / f"barflow-{os.geteuid()}-{mark}"
        shutil.rmtree(sockets)
        sockets.symlink_to(victim)
        log: list[str] = []
        try:
            with Services(state, log.append) as services:
                yield Opened(services, log, victim)
            shutil.rmtree(conninfo_to_dict(services.warehouse_dsn)["host"])
        finally:
            sockets.unlink()


def make_old_warehouse(state: State) -> None:
    with Services(state, print, mongo=False) as services, tempfile.TemporaryDirectory() as sql:
        for path in (ROOT / "sql").glob("000[1-4]*.sql"):
            shutil.copy(path, sql)
        migrate(services.warehouse_dsn, Path(sql))
        with psycopg.connect(services.superuser_dsn) as superuser:
            superuser.execute(f"insert into market.bar_1h values {BAR}".encode())
            superuser.execute("create schema mine; create table mine.notes (id serial, text text)")
            superuser.execute(GIVE_TO_SUPERUSER)


def make_old_mongodb(state: State) -> None:
    """Run the server as earlier releases did, and plant a user that could log in later."""
    port = free_port()
    command = [sys.executable, "-m", "secantus", "--host", "127.0.0.1", "--port", str(port), "--sync-on-commit"]
    server = subprocess.Popen([*command, "--storage-path", str(state.path / "mongo"), "--log-level", "ERROR"])
    client: MongoClient[dict[str, object]] = MongoClient("127.0.0.1", port, serverSelectionTimeoutMS=500)
    with client:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(PyMongoError):
                client["barflow"]["notes"].insert_one({"_id": "kept"})
                break
        for database in ("admin", "barflow"):
            client[database].command("createUser", "thief", pwd="thief", roles=[{"role": "root", "db": "admin"}])
    server.kill()
    server.wait()


ATTACKS = {
    "copy (select 1) to program 'touch {file}'": "permission denied to COPY to or from an external program",
    "copy (select 1) to '{file}'": "permission denied to COPY to a file",
    "select pg_read_file('/etc/passwd')": "permission denied for function pg_read_file",
    "select pg_read_binary_file('PG_VERSION')": "permission denied for function pg_read_binary_file",
    "select pg_ls_dir('/')": "permission denied for function pg_ls_dir",
    "select pg_stat_file('/etc/passwd')": "permission denied for function pg_stat_file",
    "select pg_create_physical_replication_slot('a')": "permission denied to use replication slots",
    "select pg_create_logical_replication_slot('a', 'pgoutput')": "permission denied to use replication slots",
    "select lo_import('/etc/passwd')": "permission denied for function lo_import",
    "select lo_export(1, '{file}')": "permission denied for function lo_export",
    "select lo_from_bytea(0, 'x')": "only reading is allowed here",
    "set role postgres": "permission denied to set role",
    "set role local_owner": "permission denied to set role",
    "select set_config('role', 'local_owner', false)": "permission denied to set role",
    "set session authorization postgres": "permission denied to set session authorization",
    "select set_config('transaction_read_only', 'off', true)": "transaction read-write mode must be set before",
    "set transaction read write": "returned no rows",
    "create function f() returns int language sql as 'select 1'": "only reading is allowed here",
    "create extension dblink": "only reading is allowed here",
    "create temp table planted (x int)": "only reading is allowed here",
    "select * from dblink('host=/tmp', 'select 1') as t(x int)": "function dblink(unknown, unknown) does not exist",
    "create server s foreign data wrapper postgres_fdw": "only reading is allowed here",
    "create subscription s connection 'host=/tmp' publication p": "only reading is allowed here",
    "load '/tmp/x.so'": 'access to library "/tmp/x.so" is not allowed',
    "select pg_reload_conf()": "permission denied for function pg_reload_conf",
    "alter system set archive_command = 'touch {file}'": "cannot run inside a transaction block",
    "do $$ begin perform pg_sleep(0); end $$": "returned no rows",
    "copy market.bar_1h to stdout": "COPY cannot be used",
    "insert into market.bar_1h default values": "only reading is allowed here",
}


@pytest.mark.parametrize("query", ATTACKS)
def test_a_query_can_only_read(opened: Opened, tmp_path: Path, query: str, capfd: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(BadInputError) as refused:
        query_read_only(opened.services.reader_dsn, query.format(file=tmp_path / "planted"))
    assert ATTACKS[query] in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [*tmp_path.iterdir()] == []
    assert capfd.readouterr() == ("", ""), "nothing beside the error"


def test_the_reader_has_no_permission_to_change_anything_outside_a_read_only_transaction_either(
    opened: Opened, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    denied = [query for query, reason in ATTACKS.items() if reason.startswith("permission denied")]
    writes = (
        "create schema planted",
        "create table public.planted (x int)",
        "create function public.f() returns int language sql as 'select 1'",
        "create extension vector",
        "create subscription s connection 'host=/tmp' publication p",
        "alter system set archive_command = 'touch {file}'",
        "insert into market.bar_1h default values",
        "delete from ops.load_run",
        "truncate market.bar_1h",
    )
    dsn = opened.services.reader_dsn
    with psycopg.connect(dsn, autocommit=True, options="-c default_transaction_read_only=off") as reader:
        for query in (*denied, *writes):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(query.format(file=tmp_path / "planted").encode())
    assert [*tmp_path.iterdir()] == []


def test_the_command_sql_on_a_state_runs_as_the_reader(opened: Opened, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    barflow = [sys.executable, "-m", "barflow.cli.main", "sql", "--state", str(opened.services.state.path)]
    program = f"copy (select 1) to program 'touch {tmp_path}/planted'"
    refused = subprocess.run([*barflow, program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines()[-1].startswith("error: the query is wrong: permission denied to COPY")
    assert [*tmp_path.iterdir()] == []
    asked = [*barflow, "select current_user, count(*) from market.bar_1h", "--format", "csv"]
    answer = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.stdout.splitlines()[1:] == ["local_reader,1"]


def test_no_program_connects_as_the_superuser(opened: Opened) -> None:
    services = opened.services
    roles = {
        "writer": (services.environment()["BARFLOW_WAREHOUSE_DSN"], set()),
        "reader": (services.reader_dsn, {"pg_read_all_data"}),
    }
    for dsn, granted in roles.values():
        with psycopg.connect(dsn) as connection:
            flags = connection.execute(
                "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls "
                "from pg_roles where rolname = current_user"
            ).fetchone()
            member = connection.execute(
                "select roleid::regrole::text from pg_auth_members where member = current_user::regrole"
            )
            assert flags == (False,) * 5
            assert {name for (name,) in member} == granted


def test_a_dsn_that_the_user_gives_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = "postgresql://local_owner@elsewhere/barflow"
    monkeypatch.setenv("BARFLOW_WAREHOUSE_DSN", given)
    monkeypatch.setenv("BARFLOW_MONGODB_URI", "mongodb://elsewhere/")
    state = State.create(tmp_path / "state", source={"kind": "synthetic"}, as_of=None)
    with Services(state, print) as services:
        assert services.warehouse_dsn == services.reader_dsn == given


def test_the_owner_gets_what_the_superuser_of_an_earlier_release_owned(opened: Opened) -> None:
    applied = migrate(opened.services.warehouse_dsn)
    assert applied == ["0005_load_schema", "0006_float_noise", "0007_corporate_actions", "0008_drop_load_schema"]
    assert migrate(opened.services.warehouse_dsn) == []
    with psycopg.connect(opened.services.warehouse_dsn) as owner:
        assert owner.execute("select count(*) from market.bar_1h").fetchone() == (1,)
        owner.execute("insert into mine.notes (text) values ('still mine')")
        owner.execute("alter table market.bar_1h add column planned int")
        owner.rollback()
        left = owner.execute(
            "select relname from pg_class c join pg_namespace n on n.oid = relnamespace "
            "where relowner = 10 and nspname !~ '^pg_' and nspname <> 'information_schema'"
        )
        assert left.fetchall() == []


def test_folders_that_were_open_are_closed_and_the_log_says_so(opened: Opened) -> None:
    state = opened.services.state.path
    assert f"{state} was open to other users of this machine; now only its owner can read it" in opened.log
    for folder in (state, *(state / part for part in ("lake", "logs", "mongo"))):
        assert mode_of(folder) & 0o067 == 0, folder
        assert mode_of(folder) & 0o010 == 0 or (folder == state and IS_ROOT), folder
    assert mode_of(state / "mongo.password") == mode_of(state / "services.json") == 0o600


def test_a_new_state_is_closed_from_the_start(tmp_path: Path) -> None:
    made = State.create(tmp_path / "state", source={"kind": "synthetic"}, as_of=None)
    assert {mode_of(item) for item in (made.path, made.lake, made.path / "logs")} == {0o700}


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
def test_another_user_can_read_nothing_and_connect_to_no_database(opened: Opened) -> None:
    state, sockets = opened.services.state.path, conninfo_to_dict(opened.services.warehouse_dsn)["host"]
    for path in (state / "mongo", state / "mongo.password", state / "services.json", state / "lake", Path(sockets)):
        seen = subprocess.run(["ls", str(path)], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True)
        assert b"Permission denied" in seen.stderr, path


def test_mongodb_needs_the_password_of_the_state(opened: Opened) -> None:
    uri = opened.services.mongodb_uri
    address = uri.partition("@")[2].partition("/")[0]
    database = connect(uri)
    assert database["notes"].find_one() == {"_id": "kept"}
    database.client.close()
    for user in ("", "thief:thief@", "barflow:guess@"):
        for source in ("admin", "barflow") if user else ("",):
            query = f"?authSource={source}" if source else ""
            with (
                MongoClient(f"mongodb://{user}{address}/{query}") as client,
                pytest.raises(OperationFailure, match=r"requires authentication|authentication failed"),
            ):
                client["barflow"]["notes"].find_one()
    assert not any("mongodb://" in line for line in opened.log), "the log shows the password"


def test_the_socket_folder_is_new_where_its_path_is_a_link(opened: Opened) -> None:
    assert owner_of(opened.victim) == os.geteuid()
    assert mode_of(opened.victim) == 0o755
    assert [*opened.victim.iterdir()] == []
    used = conninfo_to_dict(opened.services.warehouse_dsn)["host"]
    assert any(
        line.endswith(f"another user of this machine owns it: PostgreSQL uses {used} instead") for line in opened.log
    )
    assert mode_of(Path(used)) == 0o700


@pytest.mark.parametrize(
    "planted",
    [
        "dangling link",
        "file",
        pytest.param("foreign", marks=pytest.mark.skipif(not IS_ROOT, reason="only root can make a foreign folder")),
    ],
)
def test_the_socket_folder_is_new_where_its_path_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = tmp_path / uuid.uuid4().hex  # its own, also where an earlier run had the same folder
    expected = _socket_folder(data, None, print)
    assert _socket_folder(data, None, print) == expected, "the folder of the last start"
    expected.rmdir()
    if planted == "dangling link":
        expected.symlink_to(tmp_path / "nowhere")
    elif planted == "file":
        expected.touch()
    else:
        expected.mkdir()
        os.chown(expected, NOBODY, NOBODY)
    log: list[str] = []
    made = _socket_folder(data, None, log.append)
    assert made != expected
    assert mode_of(made) == 0o700
    assert len(log) == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("part", ["mongo", "logs", "lake"])
def test_a_part_of_a_state_that_is_a_link_is_rejected(tmp_path: Path, part: str) -> None:
    state = State.create(tmp_path / "state", source={"kind": "synthetic"}, as_of=None)
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o755)
    with suppress(FileNotFoundError):
        (state.path / part).rmdir()
    (state.path / part).symlink_to(victim)
    with pytest.raises(BarflowError, match=r"is a link, or another user .* owns it\. Nothing was started\. Replace it"):
        Services(state, print).__enter__()
    assert mode_of(victim) == 0o755


@pytest.mark.skipif(not IS_ROOT, reason="only root can make a folder of another user")
def test_a_state_of_another_user_is_rejected(tmp_path: Path) -> None:
    state = State.create(tmp_path / "state", source={"kind": "synthetic"}, as_of=None)
    os.chown(state.path, NOBODY, NOBODY)
    with pytest.raises(BarflowError, match="another user of this machine owns it"):
        close_to_others(state.path, print)
