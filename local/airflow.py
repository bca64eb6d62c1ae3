"""Airflow on a laptop: standalone with LocalExecutor, on free loopback ports, with the project's DAGs.

``with LocalAirflow(home, environment) as airflow`` starts it. Every user of this machine can reach its page, so the
page needs a password, which is kept in a file of the owner. Airflow stops at the end of the block, its tasks included.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import requests

from barflow.errors import BarflowError
from barflow.pipeline.environment import own_environment
from local.starting import free_port, last_line

ROOT = Path(__file__).parents[1]
DAGS = ROOT / "orchestration" / "dags"
PLUGINS = ROOT / "local" / "airflow_plugins"
USER = "admin"
# Long enough for a busy machine.
START_SECONDS, STOP_SECONDS = 600, 30
COMPONENTS = ("metadatabase", "scheduler", "dag_processor")
ENDED = ("success", "failed")


class LocalAirflow:
    """Airflow from ``__enter__`` to ``__exit__``. ``url`` is the address of its page."""

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str],
        *,
        port: int = 0,
        dags: Path = DAGS,
        on_start: Callable[[subprocess.Popen[Any]], None] = lambda process: None,
    ) -> None:
        """Prepare Airflow without starting it.

        Args:
            home: The folder of its database and logs.
            environment: Variables for its tasks, beside this process's environment.
            port: The port of its page; 0 takes a free one.
            dags: The folder of the DAGs.
            on_start: Gets the process of Airflow as soon as it is started.
        """
        self.home, self.log, self.passwords = home, home / "airflow.log", home / "passwords.json"
        self.password_is_new = False
        self._on_start = on_start
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        own_bin = str(Path(sys.executable).parent)
        self._environment = {
            **own_environment(),
            **environment,
            "PATH": os.pathsep.join((own_bin, os.environ["PATH"])),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.passwords),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            # A changed file is parsed at once all the same.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "120",
            # The one API worker answers late on a busy laptop, and a task without an answer is killed.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
            "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "10",
        }

    def __enter__(self) -> LocalAirflow:
        """Start Airflow and wait until it is healthy. Raise BarflowError when it does not start."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)  # its database, its logs and the password
        self._process = None
        self._make_password()
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "local.airflow_standalone"],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    # A background job of a shell ignores Ctrl-C, and its children would, too.
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                )
            self._on_start(self._process)
            self._wait_until_healthy()
            self._make_pools()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop Airflow and its tasks."""
        self.stop()

    def stop(self) -> None:
        """Ask Airflow to stop, and kill what still runs after some seconds."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # components and tasks that did not end
        process.wait()
        self._process = None

    def trigger(self, dag: str, **params: Any) -> str:
        """Start a run of a DAG as soon as Airflow has parsed it. Return the run's id."""
        self.wait_for_dag(dag)
        return str(self.call("POST", f"dags/{dag}/dagRuns", json={"logical_date": None, "conf": params})["dag_run_id"])

    def wait_for_dag(self, dag: str, seconds: float = 300) -> None:
        """Wait until Airflow has parsed the DAG. Raise BarflowError with the import errors when it never does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(found["dag_id"] == dag for found in self.call("GET", "dags")["dags"]):
                return
            time.sleep(0.5)
        errors = [item["stack_trace"] for item in self.call("GET", "importErrors")["import_errors"]]
        raise BarflowError(f"Airflow does not know the DAG {dag}. {' '.join(errors)}")

    def state(self, dag: str, run: str) -> str:
        """Return the state of a DAG run."""
        return str(self.call("GET", f"dags/{dag}/dagRuns/{run}")["state"])

    def tasks(self, dag: str, run: str) -> dict[str, str | None]:
        """Return the state of each task of a DAG run by its id: None before the task is scheduled."""
        found = self.call("GET", f"dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {item["task_id"]: item["state"] for item in found}

    def wait(self, dag: str, run: str, seconds: float) -> str:
        """Wait until the DAG run ends and return its state. Raise BarflowError after so many seconds."""
        deadline = time.monotonic() + seconds
        while (state := self.state(dag, run)) not in ENDED:
            if time.monotonic() > deadline:
                raise BarflowError(
                    f"{dag} was not done in {seconds:.0f} s: {self.tasks(dag, run)}. Its log is {self.log}."
                )
            time.sleep(0.5)
        return state

    def kill_task(self, dag: str, run: str, task: str) -> bool:
        """Kill the process of a task, as a host without memory does. Return whether there was one."""
        found = self.call("GET", f"dags/{dag}/dagRuns/{run}/taskInstances/{task}")
        assert self._process is not None
        for child in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if f"airflow worker -- {found['id']}" in " ".join(child.cmdline()):
                    child.kill()
                    return True
        return False

    def task_log(self, dag: str, run: str, task: str, attempt: int = 1) -> str:
        """Return what a task logged, one line per event."""
        events = self.call("GET", f"dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{attempt}")["content"]
        return "\n".join(item.get("event", "") if isinstance(item, dict) else str(item) for item in events)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Send one request to Airflow's API, under /api/v2/. Raise BarflowError with the answer of a failed one."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        answer = requests.request(method, f"{self.url}/api/v2/{path}", headers=headers, timeout=60, **options)
        if not answer.ok:
            raise BarflowError(f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:500]}")
        return answer.json()

    @property
    def password(self) -> str:
        """Return the password of the user ``admin``."""
        return str(json.loads(self.passwords.read_text())[USER])

    def _make_password(self) -> None:
        """Write a new password into a file of the owner, unless there is one from an earlier start."""
        with suppress(FileExistsError):
            self.passwords.touch(mode=0o600, exist_ok=False)
            self.passwords.write_text(json.dumps({USER: secrets.token_urlsafe(18)}))
            self.password_is_new = True

    @cached_property
    def _token(self) -> str:
        login = {"username": USER, "password": self.password}
        answer = requests.post(f"{self.url}/auth/token", json=login, timeout=60)
        if not answer.ok:
            raise BarflowError(
                f"Airflow answered {answer.status_code} to its own password: {answer.text[:200]}. "
                f"Remove {self.passwords}, then start it again."
            )
        return str(answer.json()["access_token"])

    def _make_pools(self) -> None:
        """Create the pools as `airflow pools import` does, without the seconds that its process takes to start."""
        known = {item["name"] for item in self.call("GET", "pools")["pools"]}
        for name, pool in json.loads((DAGS / "pools.json").read_text()).items():
            if name not in known:
                self.call("POST", "pools", json={"name": name, **pool})

    def _wait_until_healthy(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                health = requests.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
                if all((health.get(name) or {}).get("status") == "healthy" for name in COMPONENTS):
                    return
            except (requests.RequestException, ValueError):
                pass
            time.sleep(0.5)
        raise BarflowError(f"Airflow did not start: {last_line(self.log)}. Its log is {self.log}.")
