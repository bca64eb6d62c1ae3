"""Helpers of the end-to-end tests: run the console command, and find the processes that it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from console import Ended
from harness import Pipeline
from recordings.market import OPENS
from recordings.reading import in_session, rows_by_symbol, wall_clock

BARFLOW = str(Path(sys.executable).with_name("barflow"))


@dataclass(frozen=True)
class Replayed:
    """Two demos of one recording on one state: what each printed, and what the stores held after it."""

    recording: Path
    state: Path
    stores: Pipeline
    printed: tuple[dict[str, Any], dict[str, Any]]
    warehouse: tuple[dict[str, Any], dict[str, Any]]
    lake: tuple[dict[str, bytes], dict[str, bytes]]


def ticked_again(recording: Path, symbol: str) -> dict[str, int]:
    """Return what a further tick counts: it receives the newest three sessions again and changes nothing."""
    rows = rows_by_symbol(recording)[symbol]
    start = sorted({wall_clock(row).date() for row in rows if in_session(row)})[-3]
    again = [in_session(row) for row in rows if wall_clock(row) >= datetime.combine(start, OPENS)]
    counts = {"received": len(again), "unchanged": sum(again), "rejected": len(again) - sum(again)}
    return {**counts, "revised": 0, "forming": 0}


def start(*arguments: object, settings: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `barflow ARGUMENTS` with these settings in its environment, and with Spark as a user starts it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYSPARK_SUBMIT_ARGS"}
    return subprocess.Popen(
        [BARFLOW, *map(str, arguments)],
        env={**environment, **(settings or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores Ctrl-C, and so do its children. The tests may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def barflow(*arguments: object, settings: Mapping[str, str] | None = None) -> Ended:
    """Run `barflow ARGUMENTS` to its end."""
    return ended(start(*arguments, settings=settings))


def ended(command: subprocess.Popen[str]) -> Ended:
    """Wait for a started command. Its stderr lacks the lines that were read before."""
    with command:
        assert command.stderr is not None
        assert command.stdout is not None
        err, out = command.stderr.read(), command.stdout.read()
    return Ended(command.returncode, out, err)


def read_until(command: subprocess.Popen[str], word: str) -> str:
    """Read a command's stderr up to a line with that word, and return what was read."""
    assert command.stderr is not None
    log = ""
    for line in command.stderr:
        log += line
        if word in line:
            return log
    raise AssertionError(f"no line with {word!r}: {log}")


def descendants(command: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return every process that a command has started: servers, Spark, watchdog."""
    return psutil.Process(command.pid).children(recursive=True)


def all_end(processes: list[psutil.Process], seconds: float = 60) -> bool:
    """Return whether these processes end within so many seconds."""
    deadline = time.monotonic() + seconds
    while any(map(is_running, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_running(process: psutil.Process) -> bool:
    """Return whether a process still runs. A zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
