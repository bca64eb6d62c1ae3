"""The services of a state folder: MongoDB and PostgreSQL, started on entry and stopped on exit.

The first command on a state owns its services. A second command uses them. If a service that it needs is not running,
it waits for the first command to end.
An address in the environment (BARFLOW_MONGODB_URI, BARFLOW_WAREHOUSE_DSN) replaces the embedded service.
"""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

from pydantic import SecretStr

from barflow.pipeline.environment import own_environment, spark_environment
from barflow.progress import Log
from barflow.settings import load_settings
from local.folders import close_to_others
from local.mongo import start_mongo
from local.postgres import READER, SUPERUSER, as_user, start_postgres
from local.state import State

ROOT = Path(__file__).parents[1]


class Services:
    """The services of one state, from ``__enter__`` to ``__exit__``. ``log`` gets a line per start."""

    def __init__(self, state: State, log: Log, *, mongo: bool = True, postgres: bool = True) -> None:
        self.state, self.log = state, log
        self._wanted = {"mongodb_uri": mongo, "warehouse_dsn": postgres}
        self._uris: dict[str, str] = {}
        self._lock: IO[str] | None = None
        self._watchdog: subprocess.Popen[str] | None = None
        self._servers: list[subprocess.Popen[bytes]] = []
        self._old_handler: object = None

    @property
    def mongodb_uri(self) -> str:
        """Return MongoDB's URI."""
        return self._uris["mongodb_uri"]

    @property
    def warehouse_dsn(self) -> str:
        """Return PostgreSQL's DSN, for programs that write."""
        return self._uris["warehouse_dsn"]

    @property
    def reader_dsn(self) -> str:
        """Return PostgreSQL's DSN for readers: a user of the embedded server that can only read, or the given DSN."""
        return self._dsn_of(READER)

    @property
    def superuser_dsn(self) -> str:
        """Return the DSN of the embedded server's superuser, for an emulator or a test that needs one."""
        return self._dsn_of(SUPERUSER)

    def _dsn_of(self, user: str) -> str:
        is_given = load_settings().warehouse_dsn is not None
        return self.warehouse_dsn if is_given else as_user(self.warehouse_dsn, user)

    @property
    def lake_uri(self) -> str:
        """Return BARFLOW_LAKE_URI, or the state's own lake."""
        return load_settings().lake_uri or str(self.state.lake)

    @property
    def _addresses_file(self) -> Path:
        """Return the file in which other commands on the state find the addresses of running services."""
        return self.state.path / "services.json"

    def environment(self) -> dict[str, str]:
        """Return the variables that a child program needs beside this process's environment."""
        named = {f"BARFLOW_{name.upper()}": uri for name, uri in self._uris.items()}
        return {**named, "BARFLOW_LAKE_URI": self.lake_uri, **spark_environment()}

    def __enter__(self) -> Services:
        """Use the running services of the state, or start them. Raise BarflowError when one does not start."""
        self._old_handler = signal.signal(signal.SIGTERM, _exit_on_sigterm)
        try:
            close_to_others(self.state.path, self.log)
            missing = self._from_environment()
            if missing and not self._attach(missing):
                self._start(missing)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the services that this command started."""
        self._stop()

    def watch(self, child: subprocess.Popen[Any]) -> None:
        """Have the watchdog stop a child of this command too, if the command dies before the child."""
        if self._watchdog is not None:
            self._send_to_watchdog(child.pid, signal.SIGTERM)

    def _from_environment(self) -> list[str]:
        """Take the addresses that the environment names. Return the names of the services still to be found."""
        settings = load_settings()
        for name, wanted in self._wanted.items():
            given: SecretStr | None = getattr(settings, name)
            if wanted and given:
                self._uris[name] = given.get_secret_value()
        return [name for name, wanted in self._wanted.items() if wanted and name not in self._uris]

    def _attach(self, missing: list[str]) -> bool:
        """Use the services that another command runs on this state. Without one, hold the lock and return False."""
        lock = (self.state.path / "lock").open("a")
        waiting = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                running = self._running()
                if all(name in running for name in missing):
                    lock.close()
                    self._uris |= {name: running[name] for name in missing}
                    self.log(f"using the services that another command runs on {self.state.path}")
                    return True
                if not waiting:
                    self.log(f"another command is running on {self.state.path}; waiting for it")
                    waiting = True
                time.sleep(0.3)
            else:
                self._lock = lock
                return False

    def _running(self) -> dict[str, str]:
        try:
            found = json.loads(self._addresses_file.read_text())
            return {str(name): str(uri) for name, uri in found.items()}
        except (OSError, ValueError):
            return {}

    def _start(self, missing: list[str]) -> None:
        """Start the missing services at the same time. The watchdog knows each as soon as it has a process id."""
        assert self._lock is not None
        self._addresses_file.unlink(missing_ok=True)
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "local.watchdog", str(self._addresses_file)],
            cwd=ROOT,
            env=own_environment(),
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # The watchdog shares the lock: it is held until the last server has stopped, even if this process dies.
            pass_fds=[self._lock.fileno()],
        )
        starters = {"mongodb_uri": start_mongo, "warehouse_dsn": start_postgres}
        with ThreadPoolExecutor(len(missing)) as pool:
            waiting = {name: pool.submit(starters[name], self.state.path, self._add, self.log) for name in missing}
            self._uris |= {name: future.result() for name, future in waiting.items()}
        unfinished = self.state.path / ".services.json"
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps({name: self._uris[name] for name in missing}))
        unfinished.replace(self._addresses_file)

    def _add(self, server: subprocess.Popen[bytes], stop_signal: int) -> None:
        self._servers.append(server)
        self._send_to_watchdog(server.pid, stop_signal)

    def _send_to_watchdog(self, pid: int, stop_signal: int) -> None:
        assert self._watchdog is not None
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(f"{pid} {stop_signal}\n")
        self._watchdog.stdin.flush()

    def _stop(self) -> None:
        """Close the watchdog's pipe, which makes it stop the servers. Ignore Ctrl-C meanwhile."""
        old_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if self._watchdog is not None:
                assert self._watchdog.stdin is not None
                with suppress(BrokenPipeError):
                    self._watchdog.stdin.close()
                self._watchdog.wait()
                for server in self._servers:
                    server.kill()  # needed only if the watchdog itself was killed
                    server.wait()
                self._addresses_file.unlink(missing_ok=True)
                self._servers.clear()
                self._watchdog = None
            if self._lock is not None:
                self._lock.close()
                self._lock = None
        finally:
            signal.signal(signal.SIGINT, old_handler)
            signal.signal(signal.SIGTERM, self._old_handler)  # type: ignore[arg-type]


def _exit_on_sigterm(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
