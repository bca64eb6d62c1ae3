"""Helpers of the end-to-end tests: run the console command, and find the processes that it leaves."""

from __future__ import annotations

import contextlib
import io
import json
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
import pytest
from harness import Pipeline
from recordings.market import OPENS
from recordings.reading import in_session, rows_by_symbol, wall_clock

from barflow.cli.main import main

BARFLOW = str(Path(sys.executable).with_name("barflow"))


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> dict[str, Any]:
        """The one JSON object of a command that was done."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1, self.out
        return dict(json.loads(self.out))

    @property
    def error(self) -> str:
        """The one line that says why it was not."""
        assert "Traceback" not in self.err + self.out, self.err
        *before, last = self.err.splitlines()
        assert last.startswith("error: "), self.err
        assert not [line for line in before if line.startswith("error: ")], self.err
        return last.removeprefix("error: ")


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
    """Starts `barflow ARGUMENTS` with these settings in its environment."""
    return subprocess.Popen(
        [BARFLOW, *map(str, arguments)],
        env={**os.environ, **(settings or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, which the tests may be, ignores Ctrl-C and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def barflow(*arguments: object, settings: Mapping[str, str] | None = None) -> Ended:
    """Runs `barflow ARGUMENTS` to its end."""
    return ended(start(*arguments, settings=settings))


def in_process(*arguments: object) -> Ended:
    """The same in this process, by the command's entry point: for commands that start none of their own."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["barflow", *map(str, arguments)])
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
    return Ended(code or 0, out.getvalue(), err.getvalue())


def ended(command: subprocess.Popen[str]) -> Ended:
    """Return the end of a started command, with the rest of its stderr."""
    with command:
        assert command.stderr is not None
        assert command.stdout is not None
        err, out = command.stderr.read(), command.stdout.read()
    return Ended(command.returncode, out, err)


def wait_for_line(command: subprocess.Popen[str], word: str) -> list[str]:
    """Read stderr until a line contains that word. Return the lines up to it."""
    assert command.stderr is not None
    said = []
    for line in command.stderr:
        said.append(line)
        if word in line:
            return said
    raise AssertionError(f"it never said {word!r}: {said}")


def family(command: subprocess.Popen[str]) -> list[psutil.Process]:
    """All that a command has started: servers, Spark, watchdog."""
    return psutil.Process(command.pid).children(recursive=True)


def all_end(processes: list[psutil.Process], seconds: float = 60) -> bool:
    """Whether these processes end, given time."""
    deadline = time.monotonic() + seconds
    while any(map(lives, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
