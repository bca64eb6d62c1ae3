"""Checks of this machine: Python, Java, folders, ports, and what it would pass on to embedded programs."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from barflow.operations.checks import Check
from barflow.pipeline.environment import foreign_variables, own_environment, spark_environment

OLDEST_PYTHON, TESTED_PYTHON = (3, 11), (3, 11)
# Spark 3.5 runs on these.
JAVA_VERSIONS = (8, 11, 17)
JAVA_SECONDS = 30
# A small state takes about 60 MB, most of it PostgreSQL's own files. Spark needs room for temporary files beside it.
LEAST_FREE = 1_000_000_000
PORTS = {8050: "`barflow dashboard`", 8080: "`make airflow`"}
LOOPBACK = "127.0.0.1"


def check_machine(state: Path) -> Iterator[Check]:
    """Yield the checks of this machine. ``state`` is the state folder, which need not exist yet."""
    yield check_python(sys.version_info[:2])
    yield check_java()
    yield check_encoding()
    yield check_temporary_folder()
    yield check_folder("state folder", state)
    yield from check_ports()
    yield check_environment()


def check_python(version: tuple[int, int]) -> Check:
    """Check the version of Python: barflow is tested on the one that EMR and Glue run."""
    found = f"{version[0]}.{version[1]} at {sys.executable}"
    wanted = f"use Python {TESTED_PYTHON[0]}.{TESTED_PYTHON[1]}, on which barflow is tested"
    return Check("Python", version >= OLDEST_PYTHON, found, "" if version == TESTED_PYTHON else wanted)


def check_java() -> Check:
    """Start Java, which Spark needs, and check its version."""
    name = "Java"
    if not find_spec("pyspark"):
        return Check(name, True, "not checked: Spark is not in this installation", checked=False)
    home = spark_environment().get("JAVA_HOME") or os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else "java"
    fix = "install Java 17 and set JAVA_HOME, or run `make setup` in a checkout, which installs it as a Python package"
    try:
        done = subprocess.run(
            [program, "-version"],
            env=own_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=JAVA_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, False, f"{program} does not start ({type(error).__name__}), and Spark needs it", fix)
    version = re.search(r'version "(?:1\.)?(\d+)[^"]*"', done.stderr)
    number = int(version[1]) if version else 0
    return Check(name, number in JAVA_VERSIONS, f"{number} at {program}", "" if number in JAVA_VERSIONS else fix)


def check_encoding() -> Check:
    """Check that the output can show every character. Output in another encoding is readable, but plainer."""
    found = {str(getattr(stream, "encoding", None) or "utf-8").lower() for stream in (sys.stdout, sys.stderr)}
    plain = {name.replace("_", "-") for name in found} <= {"utf-8", "utf8"}
    fix = "set PYTHONIOENCODING=utf-8, or a UTF-8 locale, to see every character"
    return Check("encoding", True, ", ".join(sorted(found)), "" if plain else fix)


def check_temporary_folder() -> Check:
    """Check the folder for temporary files, where Spark works and sockets are, and that TMPDIR is the one in use."""
    name = "TMPDIR"
    given = os.environ.get("TMPDIR")
    try:
        used = Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Check(name, False, "no folder for temporary files can be written", "set TMPDIR to a folder of yours")
    if given and used.resolve() != Path(given).resolve():
        fix = "create it, free space in it or fix its permissions, or unset TMPDIR"
        return Check(name, False, f"{given} cannot be written, so programs use {used}", fix)
    return check_folder(name, used)


def check_folder(name: str, folder: Path) -> Check:
    """Check that a folder, or the first one above it that exists, can be written and has space."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free
    except OSError as error:
        fix = "fix its permissions or free space, or choose another folder"
        return Check(name, False, f"{there} cannot be written ({error.strerror})", fix)
    found = f"{folder}{'' if folder.is_dir() else ' (does not exist yet)'}, {free / 1e9:,.1f} GB free"
    if free < LEAST_FREE:
        return Check(name, False, found, f"free {LEAST_FREE / 1e9:.0f} GB, or choose a folder on another disk")
    return Check(name, True, found)


def check_ports() -> Iterator[Check]:
    """Check that embedded services can listen on the loopback address, and which default ports are taken."""
    if not _is_free(0):
        fix = "allow programs to listen on 127.0.0.1: see the firewall, the sandbox or the container of this machine"
        yield Check("ports", False, f"no program can listen on {LOOPBACK}", fix)
        return
    taken = {port: command for port, command in PORTS.items() if not _is_free(port)}
    found = ", ".join(f"{port} is in use" for port in taken) or f"{' and '.join(map(str, PORTS))} are free"
    fix = "; ".join(f"pass another --port to {command}" for command in taken.values())
    yield Check("ports", True, found, fix)


def check_environment() -> Check:
    """List the variables of other installations, which embedded programs do not get."""
    names = ", ".join(foreign_variables())
    none = "no variable of another Spark, Java, Python or Airflow"
    return Check("environment", True, f"not passed on to embedded programs: {names}" if names else none)


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
        probe.listen()
        return True
    return False
