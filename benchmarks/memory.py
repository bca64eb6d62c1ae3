"""The memory of a process and of everything that it started, from /proc: JVM, workers, and servers of databases.

A page that several processes share, such as a library or PostgreSQL's buffers, counts once (PSS).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SAMPLE_SECONDS = 0.2


def children(pid: int) -> list[int]:
    """Return the processes that a process started and that still run."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has just ended
            found += map(int, task.read_text().split())
    return found


def mebibytes(pid: int) -> float:
    """Return the memory of a process and of all its descendants."""
    whole = sum(map(mebibytes, children(pid)))
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        whole += next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
    return whole


@contextmanager
def sampled(pids: dict[str, int]) -> Iterator[dict[str, float]]:
    """Yield the peaks by name, which grow while the block runs. A peak includes the descendants of the process."""
    peaks = dict.fromkeys(pids, 0.0)
    ended = threading.Event()

    def sample() -> None:
        while not ended.is_set():
            for name, pid in pids.items():
                peaks[name] = max(peaks[name], mebibytes(pid))
            ended.wait(SAMPLE_SECONDS)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peaks
    finally:
        ended.set()
        sampler.join()
