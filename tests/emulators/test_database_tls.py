"""Every client of the deployed database refuses a server that does not prove who it is, before it sends a password.

The server is the embedded PostgreSQL behind the emulator's TLS, with certificates of an authority of the test.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import create_async_engine

from barflow.errors import UnavailableError
from barflow.secrets import database_dsn
from barflow.warehouse.authorities import LIBPQ_VARIABLE, bundle
from barflow.warehouse.connection import connect
from dashboard.connections import Connections
from emulators.aws.rds import Authority, TlsProxy

ROOT = Path(__file__).parents[2]
USER = {"username": "visitor", "password": "not-for-strangers"}
NOWHERE = "127.9.9.9"
ISSUE = {
    "trusted": lambda known, _: known.certify,
    "of another host": lambda known, _: lambda address: known.certify(NOWHERE),
    "of an unknown authority": lambda _, unknown: unknown.certify,
    "expired": lambda known, _: lambda address: known.certify(address, timedelta(hours=-1)),
}
# What libpq says about each.
REFUSED = {
    "of another host": "does not match host name",
    "of an unknown authority": "certificate verify failed",
    "expired": "certificate verify failed",
    "without TLS": "server does not support SSL, but SSL was required",
}


class PlainServer:
    """A server that answers that it has no TLS. ``received`` is what a client sends after that."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.received = self._socket.getsockname()[1], b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                with client:
                    client.settimeout(5)
                    client.recv(8)
                    client.sendall(b"N")
                    while block := client.recv(4096):
                        self.received += block

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority, Path]:
    """Return an authority that the clients trust, one that they do not know, and the file of the first."""
    known, unknown = Authority("known"), Authority("unknown")
    file = tmp_path_factory.mktemp("authorities") / "known.pem"
    file.write_bytes(known.certificate)
    return known, unknown, file


@pytest.fixture(scope="module")
def servers(
    authorities: tuple[Authority, Authority, Path], module_warehouse_dsn: str
) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield the secret of a user at each server."""
    where = conninfo_to_dict(module_warehouse_dsn)
    user = USER | {"dbname": where["dbname"]}
    proxies = {
        name: TlsProxy(f"{where['host']}/.s.PGSQL.5432", 5432, issue(*authorities[:2])) for name, issue in ISSUE.items()
    }
    with psycopg.connect(module_warehouse_dsn, autocommit=True) as owner, closing(PlainServer()) as plain:
        owner.execute(f"create role {USER['username']} login password '{USER['password']}'".encode())
        found = {name: user | {"host": proxy.address, "port": proxy.port} for name, proxy in proxies.items()}
        yield found | {"without TLS": user | {"host": "127.0.0.1", "port": plain.port, "server": plain}}
        owner.execute(f"drop role {USER['username']}".encode())
    for proxy in proxies.values():
        proxy.stop()


def through_the_library(dsn: str, file: Path) -> None:
    with connect(dsn) as connection:
        assert connection.pgconn.ssl_in_use


def through_the_pages_pool(dsn: str, file: Path) -> None:
    with closing(Connections(dsn)) as pool, pool.reading() as connection:
        assert connection.pgconn.ssl_in_use


def airflow_url(dsn: str, file: Path) -> str:
    return dsn.replace("postgresql://", "postgresql+psycopg://", 1) + f"&sslrootcert={file}"


def through_airflows_engine(dsn: str, file: Path) -> None:
    engine = sqlalchemy.create_engine(airflow_url(dsn, file))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("select 1"))
    engine.dispose()


def through_airflows_async_engine(dsn: str, file: Path) -> None:
    async def use() -> None:
        engine = create_async_engine(airflow_url(dsn, file))
        try:
            async with engine.connect() as connection:
                await connection.execute(sqlalchemy.text("select 1"))
        finally:
            await engine.dispose()

    asyncio.run(use())


CLIENTS = [
    through_the_library, through_the_pages_pool, through_airflows_engine, through_airflows_async_engine,
]  # fmt: skip


@pytest.fixture
def trusting(authorities: tuple[Authority, Authority, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make libpq trust the known authority, as the rehearsal does."""
    monkeypatch.setenv(LIBPQ_VARIABLE, str(authorities[2]))
    return authorities[2]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_connects_to_a_server_whose_certificate_is_of_its_host_and_authority(
    client: Callable[[str, Path], None], servers: dict[str, dict[str, Any]], trusting: Path
) -> None:
    client(database_dsn(servers["trusted"]), trusting)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("server", REFUSED)
def test_a_client_rejects_a_server_that_does_not_prove_who_it_is(
    client: Callable[[str, Path], None], server: str, servers: dict[str, dict[str, Any]], trusting: Path
) -> None:
    with pytest.raises((UnavailableError, sqlalchemy.exc.OperationalError), match=REFUSED[server]) as refused:
        client(database_dsn(servers[server]), trusting)
    assert USER["password"] not in str(refused.value)
    assert servers["without TLS"]["server"].received == b"", "not even the user's name is sent in plain text"


def test_without_a_file_of_its_own_a_client_trusts_the_authorities_of_rds_alone(
    servers: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(LIBPQ_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UnavailableError, match="certificate verify failed"):
        connect(database_dsn(servers["trusted"]))


def test_the_dsn_that_users_give_stays_as_it_is(
    servers: dict[str, dict[str, Any]],
    authorities: tuple[Authority, Authority, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = database_dsn(servers["trusted"])
    for weaker in ("require", "prefer"):
        with connect(given.replace("verify-full", weaker)) as connection:
            assert connection.pgconn.ssl_in_use
    connect(f"{given}&sslrootcert={authorities[2]}").close()
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").write_bytes(authorities[0].certificate)
    connect(given).close()
    with pytest.raises(UnavailableError, match="certificate verify failed"):
        connect(f"{given}&sslrootcert={bundle()}")


def test_a_library_in_a_zip_file_as_on_glue_brings_the_authorities(
    servers: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "barflow.zip", "w") as packed:
        for path in (ROOT / "barflow").rglob("*"):
            if path.suffix in (".py", ".pem", ".csv"):
                packed.write(path, path.relative_to(ROOT))
    program = (
        "import json, sys; sys.path.insert(0, 'barflow.zip')\n"
        "import barflow; from barflow.warehouse.authorities import authorities, bundle\n"
        "from barflow.warehouse.connection import connect\n"
        "print(json.dumps([barflow.__file__, bundle(), len(authorities())]), flush=True)\n"
        f"connect({database_dsn(servers['trusted'])!r})\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    library, used, count = json.loads(done.stdout)
    assert library.endswith("barflow.zip/barflow/__init__.py")
    assert count > 80
    assert "certificate verify failed" in done.stderr
    assert not Path(used).exists(), "the copy goes with the process"
