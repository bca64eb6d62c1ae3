"""Airflow's SSH connection to the host: the DAG's own operator, a real SSH server, and real ticks."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncssh
import paramiko
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from fake_host import FakeHost
from harness import ROOT, program
from host_secrets import ssh_connection
from pymongo.database import Database

from barflow.staging.connection import Document
from emulators.twelvedata.server import TwelveDataEmulator
from local.embedded import EMULATOR_KEY
from local.synthetic import SyntheticBars

SETTINGS: Any = program("orchestration/host/write_settings.py")
BARFLOW = Path(sys.executable).with_name("barflow")


class HostSsh:
    """An SSH server in place of the host's sshd. It accepts one key and runs only the command of the key's line.

    ``authorized_key`` is that line, ``host_key`` the file of the server's key, ``command`` the file of the command.
    """

    def __init__(self, authorized_key: str, host_key: Path, command: Path) -> None:
        # asyncssh drops the requested command if the line has a command option; sshd passes it on.
        self._key = authorized_key.replace(f',command="{SETTINGS.ONLY_BARFLOW}"', "")
        assert self._key != authorized_key
        self._host_key, self._command = host_key, command
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.environment: dict[str, str] = {}

    def __enter__(self) -> HostSsh:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *raised: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[self._host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(self._key),
            process_factory=self._run,
        )

    async def _close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _run(self, process: asyncssh.SSHServerProcess[str]) -> None:
        environment = {**self.environment, "PATH": os.environ["PATH"], "SSH_ORIGINAL_COMMAND": process.command or ""}
        child = await asyncio.create_subprocess_exec(
            "bash",
            self._command,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await child.communicate()
        process.stdout.write(output.decode())
        process.stderr.write(errors.decode())
        process.exit(child.returncode or 0)


@pytest.fixture(scope="module")
def ingest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield a function that runs the DAG's task; ``ingest(command)`` runs another command with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow-home")))
        patch.setenv("BARFLOW_ENV", "prod")
        patch.setenv("BARFLOW_INGEST_RUNNER", "host")
        patch.syspath_prepend(str(ROOT / "orchestration/dags"))
        import ingest_bars

        def run(command: str | None = None) -> dict[str, Any]:
            task = ingest_bars.on_host()
            task.command = command or task.command
            result: dict[str, Any] = json.loads(base64.b64decode(task.execute({})))
            return result

        yield run
        for name in ("ingest_bars", "barflow_ssh", "barflow_tasks"):
            sys.modules.pop(name, None)


@pytest.fixture
def host(booted: tuple[FakeHost, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostSsh]:
    """Yield an SSH server with the host's keys that accepts the runbook's key; Airflow has its connection.

    The operator's retries do not wait.
    """
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda seconds: None))
    installed, _ = booted
    text, _ = ssh_connection(tmp_path)
    command = tmp_path / "only_barflow.sh"
    script = installed.text(SETTINGS.ONLY_BARFLOW)
    command.write_text(script.replace("/usr/local/bin/barflow", str(BARFLOW)))
    known = tmp_path / ".ssh/known_hosts"
    known.parent.mkdir()
    with HostSsh(SETTINGS.authorized_key(text), installed.root / "etc/ssh/ssh_host_ed25519_key", command) as running:
        monkeypatch.setenv("AIRFLOW_CONN_BARFLOW_SSH", json.dumps(json.loads(text) | {"port": running.port}))
        monkeypatch.setenv("HOME", str(tmp_path))
        # known_hosts names any port but sshd's default.
        hosts = installed.text(f"{SETTINGS.HOME}/.ssh/known_hosts")
        known.write_text(hosts.replace("127.0.0.1 ", f"[127.0.0.1]:{running.port} "))
        yield running


def variables(
    server: TwelveDataEmulator, mongodb_uri: str, database: Database[Document], symbols: str
) -> dict[str, str]:
    return {
        "BARFLOW_ENV": "local",
        "BARFLOW_MONGODB_URI": mongodb_uri,
        "BARFLOW_MONGODB_DATABASE": database.name,
        "BARFLOW_LAKE_URI": "s3://lake",
        "BARFLOW_TWELVEDATA_URL": server.url,
        "BARFLOW_SYMBOLS": symbols,
        "TWELVEDATA_API_KEY": EMULATOR_KEY,
    }


def test_airflow_runs_a_tick_over_ssh_with_the_runbooks_key(
    ingest: Any, host: HostSsh, mongodb_uri: str, database: Database[Document]
) -> None:
    with TwelveDataEmulator(SyntheticBars(), api_key=EMULATOR_KEY) as server:
        host.environment = variables(server, mongodb_uri, database, "AAPL,MSFT")
        result = ingest()
        stored = sum(len(session["ts"]) for session in database["bars"].find())
        assert sum(counts["new"] for counts in result["symbols"].values()) == stored > 0


def test_a_refused_tick_fails_the_task_without_a_retry(
    ingest: Any, host: HostSsh, mongodb_uri: str, database: Database[Document]
) -> None:
    with TwelveDataEmulator(SyntheticBars(), api_key="another") as server:
        host.environment = variables(server, mongodb_uri, database, "AAPL")
        with pytest.raises(
            AirflowFailException, match=r"ended with exit code 3: Twelve Data refused AAPL \(error 401\)"
        ):
            ingest()


def test_an_outage_fails_the_task_with_a_retry(ingest: Any, host: HostSsh, database: Database[Document]) -> None:
    with TwelveDataEmulator(SyntheticBars(), api_key=EMULATOR_KEY) as server:
        host.environment = variables(server, "mongodb://127.0.0.1:9/?timeoutMS=500", database, "AAPL")
        with pytest.raises(AirflowException, match=r"ended with exit code 1: MongoDB could not be reached") as failed:
            ingest()
    assert not isinstance(failed.value, AirflowFailException)


@pytest.mark.parametrize("command", ["bash -c id", "barflow sql 'select 1'", "barflow rejected list"])
def test_the_key_may_run_no_other_command(ingest: Any, host: HostSsh, command: str) -> None:
    with pytest.raises(AirflowFailException, match="ended with exit code 2: this key may run `barflow ingest`, "):
        ingest(command)


def test_another_key_is_rejected(ingest: Any, host: HostSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    text, _ = ssh_connection(other)
    monkeypatch.setenv("AIRFLOW_CONN_BARFLOW_SSH", json.dumps(json.loads(text) | {"port": host.port}))
    with pytest.raises(paramiko.AuthenticationException):
        ingest()


def test_airflow_rejects_an_unknown_host_key(ingest: Any, host: HostSsh, tmp_path: Path) -> None:
    known = tmp_path / ".ssh/known_hosts"
    kind, key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()[:2]
    known.write_text(f"[127.0.0.1]:{host.port} {kind} {key}\n")
    with pytest.raises(paramiko.BadHostKeyException):
        ingest()
    known.unlink()
    with pytest.raises(paramiko.SSHException, match="not found in known_hosts"):
        ingest()
