"""What do the services of this machine share when they start? A free port, who watches them, and why one did not."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from barflow.errors import BarflowError

# Hears of a process, and of the signal that stops it.
Watch = Callable[[subprocess.Popen[bytes], int], None]


def free_port() -> int:
    """One of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_line(log: Path) -> str:
    """The last line of a log that says something, for an error message."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1][:200] if lines else "its log is empty"


def did_not_start(service: str, log: Path) -> BarflowError:
    return BarflowError(f"{service} did not start: {last_line(log)}. What is stored is unchanged. Its log is {log}.")
