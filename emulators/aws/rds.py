"""What answers at the address of a database instance? The embedded PostgreSQL, by TLS and with passwords, as RDS does.

The embedded server is built without TLS and trusts who reaches its socket. So an endpoint in front of it speaks
PostgreSQL's TLS, refuses who does not ask for it (``rds.force_ssl``) and who comes as the superuser, and passes the
rest on to the socket, where from then on every other user needs its password. The instance's owner is made as RDS
makes it: it may make roles and databases, and is no superuser.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import random
import secrets
import ssl
import struct
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.rds.models import DBInstance
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from emulators.aws.machine import Machine

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
# The superuser comes from this machine's embedded parts, by the socket; all others come through the endpoint.
ACCESS = "local all postgres trust\nlocal all all scram-sha-256\n"
BLOCK = 1 << 16


class Endpoint:
    """``address`` and ``port`` of a server that speaks TLS and passes on to a Unix socket."""

    def __init__(self, socket: str, port: int) -> None:
        self._socket, self.port = socket, port
        self._context = _tls()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.address = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _listen(self) -> str:
        """Every deployment's port is PostgreSQL's own: an address of loopback that has it free is taken."""
        own = [f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}" for _ in range(8)]
        for address in (*own, "127.0.0.1"):
            with suppress(OSError):
                self._server = await asyncio.start_server(self._serve, address, self.port)
                return address
        raise OSError(f"port {self.port} is taken on loopback: stop the server that listens on all addresses")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if await self._secured(reader, writer):
                opening = await _opening(reader)
                if b"\0user\0postgres\0" in b"\0" + opening[8:]:
                    await _refuse(writer, "28P01", "password authentication failed: the superuser is RDS's own")
                    return
                from_server, to_server = await asyncio.open_unix_connection(self._socket)
                to_server.write(opening)
                await asyncio.gather(_pass_on(reader, to_server), _pass_on(from_server, writer))
        writer.close()

    async def _secured(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers a client's first words, up to TLS; whether it wanted that."""
        while True:
            _, code = struct.unpack("!ii", await reader.readexactly(8))
            if code == SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
                return True
            if code != GSS_REQUEST:
                await _refuse(writer, "28000", "no encryption: this server takes TLS only")
                return False
            writer.write(b"N")


async def _opening(reader: asyncio.StreamReader) -> bytes:
    """A client's first message: its length, the protocol, then names and values, each ending in a zero."""
    length = await reader.readexactly(4)
    return length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)


async def _refuse(writer: asyncio.StreamWriter, code: str, why: str) -> None:
    body = f"SFATAL\0C{code}\0M{why}\0\0".encode()
    writer.write(b"E" + struct.pack("!i", len(body) + 4) + body)
    await writer.drain()
    writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(BLOCK):
            writer.write(block)
            await writer.drain()
    writer.close()


def _tls() -> ssl.SSLContext:
    """A server's context, with a certificate that is made here and vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rds")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # the only way in for either is a file
        both = Path(folder) / "both.pem"
        both.touch(mode=0o600)
        both.write_bytes(private + certificate.public_bytes(pem))
        context.load_cert_chain(both)
    return context


def _make_owner(dsn: str, owner: dict[str, str], database: str) -> None:
    """The owner of the secret, and the database as its own; passwords count from here on."""
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
        Path(file[0]).write_text(ACCESS)
        asked = connection.execute("select clock_timestamp()").fetchone()
        connection.execute("select pg_reload_conf()")
    taken = False
    while not taken:  # a new session's settings are the server's
        with psycopg.connect(dsn) as later:
            taken = later.execute("select pg_conf_load_time() > %s", asked).fetchone() == (True,)


def run_on(machine: Machine) -> None:
    """Has the instance that a deployment makes answer at its address."""
    create = DBInstance.create_from_cloudformation_json.__func__  # type: ignore[attr-defined]
    address = DBInstance.address.fget
    endpoints: dict[str, Endpoint] = {}

    def create_and_serve(cls: Any, name: str, body: Any, account: str, region: str, **kwargs: Any) -> DBInstance:
        made: DBInstance = create(cls, name, body, account, region, **kwargs)
        # moto gives every owner one name and password.
        owner = {"username": body["Properties"]["MasterUsername"], "password": secrets.token_urlsafe(24)}
        store, secret = made.backend.secretsmanager, made.master_user_secret.secret_arn
        store.put_secret_value(secret, json.dumps(owner), None, None, ["AWSCURRENT"])
        where = conninfo_to_dict(machine.warehouse_dsn)
        _make_owner(machine.warehouse_dsn, owner, body["Properties"]["DBName"])
        endpoints[made.db_instance_identifier] = Endpoint(f"{where['host']}/.s.PGSQL.5432", int(made.port))
        return made

    def where(self: DBInstance) -> str:
        found = endpoints.get(self.db_instance_identifier)
        return found.address if found else address(self)

    DBInstance.create_from_cloudformation_json = classmethod(create_and_serve)
    DBInstance.address = property(where)
