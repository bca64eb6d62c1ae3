"""Measurements in separate processes: the time of a program, its log lines with their times, and its peak memory.

The driver of a Spark program is two processes: Python and the JVM that it starts. The Python workers of the tasks are
children of the JVM and count only in ``Ended.tree``. Peaks come from /proc, so this needs Linux.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barflow.errors import BarflowError
from benchmarks import memory

ROOT = Path(__file__).parents[1]
# Lines that Spark logs while it starts.
NOISE = ("Setting default log level", "To adjust logging level")
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Ended:
    """A program that succeeded. ``lines``: its stderr, each line with its second; ``peaks``: MiB by process.

    ``tree`` is the peak of the MiB of all its processes together, those of tasks included.
    """

    seconds: float
    lines: list[tuple[float, str]]
    result: dict[str, Any]
    peaks: dict[str, float]
    tree: float

    @property
    def peak(self) -> float:
        """Return the MiB of the program and of its JVM, where it has one."""
        return sum(self.peaks.values())


def run(command: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run a program, whose last line on stdout is a JSON object. Raise BarflowError when it fails."""
    begun = time.monotonic()
    lines: list[tuple[float, str]] = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        peaks: dict[str, float] = {}
        sampler = threading.Thread(target=_sample, args=(child, peaks), daemon=True)
        sampler.start()
        assert child.stderr is not None
        assert child.stdout is not None
        output: list[str] = []
        # A long answer would fill the pipe while the log is read.
        reader = threading.Thread(target=lambda out: output.extend(out), args=(child.stdout,), daemon=True)
        reader.start()
        with memory.sampled({"tree": child.pid}) as whole:
            for line in map(str.rstrip, child.stderr):
                if line and not line.startswith(NOISE) and " WARN " not in line:
                    lines.append((time.monotonic() - begun, line))
            reader.join()
            child.wait()
            seconds = time.monotonic() - begun
        sampler.join()
    if child.returncode:
        raise BarflowError(f"{' '.join(command[1:4])} failed: {lines[-1][1] if lines else 'no message'}")
    return Ended(seconds, lines, json.loads(output[-1]), peaks, whole["tree"])


def call(function: str, environment: Mapping[str, str] | None = None, /, **arguments: Any) -> Ended:
    """Run ``module:function`` of this package, which returns a dict, with keyword arguments in a new process."""
    return run(calling(function, arguments), environment or {})


def calling(function: str, arguments: Mapping[str, Any], python: str = sys.executable) -> list[str]:
    """Return the command that runs ``module:function`` of this package with the given Python."""
    return [python, "-m", "benchmarks.processes", function, json.dumps(arguments)]


def measured_read(read: Callable[[], Any]) -> dict[str, Any]:
    """Return the rows and MiB of the Arrow table that is read, the seconds, and the MiB that the process grew by."""
    before = _resident("VmRSS")
    begun = time.perf_counter()
    table = read()
    seconds = time.perf_counter() - begun
    grown = _resident("VmHWM") - before
    return {"rows": table.num_rows, "size": table.nbytes / 2**20, "seconds": seconds, "memory": grown}


def _resident(name: str) -> float:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return next(int(line[1]) / 1024 for line in lines if line[0] == f"{name}:")


def _sample(child: subprocess.Popen[str], peaks: dict[str, float]) -> None:
    while child.poll() is None:
        for pid in (child.pid, *memory.children(child.pid)):
            with suppress(OSError):  # it has just ended
                status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
                name = "program" if pid == child.pid else status["Name"].strip()
                if "VmHWM" in status and name in ("program", "java"):
                    peaks[name] = max(peaks.get(name, 0.0), int(status["VmHWM"].split()[0]) / 1024)
        time.sleep(SAMPLE_SECONDS)


def _main(function: str, arguments: str) -> None:
    module, name = function.split(":")
    result = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**json.loads(arguments))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
