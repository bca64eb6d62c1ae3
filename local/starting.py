"""Helpers that the starters of local services share: a free port, the watchdog's callback, and a clear error."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from barflow.errors import BarflowError

# Takes a started process and the signal that stops it, and has the watchdog stop it with its owner.
Watch = Callable[[subprocess.Popen[bytes], int], None]


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_line(log: Path) -> str:
    """Return the last line of a log file that is not blank, for an error message."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1][:200] if lines else "its log is empty"


def did_not_start(service: str, log: Path) -> BarflowError:
    """Return the error of a service that did not start, with its reason and its log file."""
    return BarflowError(f"{service} did not start: {last_line(log)}. What is stored is unchanged. Its log is {log}.")
