"""Backfill with several processes, each with a share of the plan's credits.

One process waits for Twelve Data's answers and for MongoDB one after the other, and Python uses one core. So a large
plan has more credits than one process can spend. Each process takes some symbols at a time, which bounds its memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

from barflow.errors import BarflowError
from barflow.market.sessions import utc_now
from barflow.pipeline.ingest import Ingest, open_ingest
from barflow.pipeline.stores import Stores
from barflow.progress import Log
from barflow.settings import Settings

# The most credits a minute of one process. It stores about 8 answers of 5,000 bars a second, and waits for each
# request.
CREDITS_PER_WORKER = 250
# The processes wait for Twelve Data about as long as they compute.
WORKERS_PER_CORE = 2
# The symbols of one part. A process that dies loses at most the work on its part.
SYMBOLS_AT_ONCE = 8
# How long a process may take to record that it was interrupted.
SECONDS_TO_END = 10.0

Report = TypeVar("Report")
# Fetches some symbols with this process's Ingest and log.
Fetch = Callable[[Ingest, Sequence[str], Log], Report]

_ingest: Ingest
_lines: list[str] = []
_is_fetching = False


def workers_for(stores: Stores, symbols: int) -> int:
    """Return how many processes fetch this number of symbols: 1 under a daily cap, or on the clock of a replay."""
    settings = stores.settings
    if settings.credits_per_day is not None or stores.clock is not utc_now:
        return 1
    parts = -(-symbols // SYMBOLS_AT_ONCE)
    return max(1, min(settings.credits_per_minute // CREDITS_PER_WORKER, parts, WORKERS_PER_CORE * _cores()))


def share_of(settings: Settings, workers: int) -> Settings:
    """Return the settings of one of these processes: all of them together spend the plan's credits of a minute."""
    share = settings.credits_per_minute // workers
    return settings.model_copy(
        update={"credits_per_minute": share, "batch_size": min(settings.batch_size, share)},
    )


def fetch_in_parallel(
    stores: Stores, symbols: Sequence[str], fetch: Fetch[Report], workers: int, log: Log
) -> Iterator[Report]:
    """Yield the report of each part of the symbols, in the order in which they end.

    ``fetch`` must be a module's function, or a partial of one. Raises its first error, and BarflowError when a process
    is killed. The other processes then end. They also end when this process dies. What they stored is kept.
    """
    share = share_of(stores.settings, workers)
    arguments = (share, stores.environment, stores.lineage_parent)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _open, arguments)
    seen: set[str] = set()
    try:
        parts = [symbols[start : start + SYMBOLS_AT_ONCE] for start in range(0, len(symbols), SYMBOLS_AT_ONCE)]
        for done in as_completed([pool.submit(_fetch, fetch, part) for part in parts]):
            report, lines = done.result()
            for line in dict.fromkeys(line for line in lines if line not in seen):
                log(line)
            seen.update(lines)
            yield report
    except BrokenProcessPool:
        raise BarflowError(
            "A process of the backfill was killed, perhaps because the memory was used up. What was stored is kept. "
            "Run the same command again to resume."
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        _end(multiprocessing.active_children())


def _open(settings: Settings, environment: Mapping[str, str], lineage_parent: str | None) -> None:
    """Open the stores of a new process. Its client stays, because it counts the credits of the minute."""
    global _ingest
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _ingest = open_ingest(Stores(settings, environment=environment, lineage_parent=lineage_parent), _lines.append)


def _end_with(sentinel: int) -> None:
    """End this process when its parent dies, so that it spends no more credits."""
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_END)
    os._exit(1)


def _end(workers: Sequence[BaseProcess]) -> None:
    """End the processes. Each first records the end of its run."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + SECONDS_TO_END
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()


def _stop(*_: object) -> None:
    """End this process: at once, or after its run has recorded that it was interrupted."""
    if not _is_fetching:
        os._exit(1)
    raise KeyboardInterrupt


def _fetch(fetch: Fetch[Report], symbols: Sequence[str]) -> tuple[Report, list[str]]:
    """Fetch some symbols. Return the report, and the lines for the parent's log."""
    global _is_fetching
    _lines.clear()
    _is_fetching = True
    try:
        return fetch(_ingest, symbols, _lines.append), [*_lines]
    except KeyboardInterrupt:
        os._exit(1)
    finally:
        _is_fetching = False


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
