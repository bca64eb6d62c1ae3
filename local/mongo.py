"""The embedded MongoDB: SecantusDB, in its own process on a free loopback port, with a user and a password.

Every user of this machine can reach the port. The password is in STATE/mongo.password, which only its owner can read.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

from barflow.pipeline.environment import own_environment
from barflow.progress import Log
from local.starting import Watch, did_not_start, free_port

START_SECONDS = 120.0
USER = "barflow"
# The server answers nothing else while it works on a large query, the driver's heartbeats included.
# It keeps the reply to each retryable write for 30 minutes and goes through all replies at every write, so that it gets
# slower with each: without retryable writes it does not.
PATIENCE = "connectTimeoutMS=120000&socketTimeoutMS=600000&retryWrites=false"
SERVER = ("-m", "secantus")
Client = pymongo.MongoClient[dict[str, object]]


def start_mongo(state: Path, watch: Watch, log: Log) -> str:
    """Start MongoDB on STATE/mongo and return its URI. Raise BarflowError when it does not start.

    ``watch`` gets the process and the signal that stops it.
    """
    started = time.monotonic()
    file = state / "mongo.password"
    if not file.exists():
        _set_password(state, watch, file)
    _, uri = _start(state, watch, ["--auth"], f"{USER}:{file.read_text()}@", f"authSource=admin&{PATIENCE}")
    log(f"MongoDB ready in {time.monotonic() - started:.1f} s")
    return uri


def _start(state: Path, watch: Watch, options: list[str], user: str, query: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server. Return it with its URI when it answers."""
    started = time.monotonic()
    data, log_file, port = state / "mongo", state / "logs" / "mongo.log", free_port()
    with suppress(FileExistsError):
        data.mkdir(mode=0o700)
    # Without --sync-on-commit, a killed server loses writes that it acknowledged.
    command = [sys.executable, *SERVER, "--host", "127.0.0.1", "--port", str(port), "--sync-on-commit"]
    command += ["--storage-path", str(data), "--log-level", "WARNING", *options]
    with log_file.open("ab") as output:
        server = subprocess.Popen(
            command,
            env=own_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=0o077,
        )
    watch(server, signal.SIGTERM)
    uri = f"mongodb://{user}127.0.0.1:{port}/?{query}"
    with Client(uri, serverSelectionTimeoutMS=250) as client:
        while True:
            try:
                client.admin.command("ping")
                return server, uri
            except PyMongoError:
                if server.poll() is not None or time.monotonic() - started > START_SECONDS:
                    raise did_not_start("MongoDB", log_file) from None


def _set_password(state: Path, watch: Watch, file: Path) -> None:
    """Create the server's only user, on a first start, and write its password to a file.

    The server checks passwords only from its next start on. Until then it takes only clients that have a certificate
    from a folder of this user.
    """
    password = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(dir=state) as folder:
        pem = _certificate(Path(folder))
        options = ["--tls-cert-file", pem, "--tls-key-file", pem, "--tls-ca-file", pem, "--tls-require-client-cert"]
        server, uri = _start(state, watch, options, "", f"tls=true&tlsCAFile={pem}&tlsCertificateKeyFile={pem}")
        with Client(uri) as client:
            for found in client.admin["system.users"].find():  # of a start that was killed, or of another user
                client[str(found["db"])].command("dropUser", found["user"])
            client.admin.command("createUser", USER, pwd=password, roles=["root"])
        server.kill()  # it takes 2 s to stop, and has written the user to disk
        server.wait()
        unfinished = Path(folder) / "password"
        unfinished.touch(mode=0o600)
        unfinished.write_text(password)
        unfinished.replace(file)


def _certificate(folder: Path) -> str:
    """Write a key with its self-signed certificate, valid for an hour, and return the file's path."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "barflow")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file = folder / "both.pem"
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()) + certificate.public_bytes(pem))
    return str(file)
