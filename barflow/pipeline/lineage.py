"""Lineage: report each run of a hop as OpenLineage events, if BARFLOW_OPENLINEAGE_URL is set.

A run sends START, then COMPLETE or FAIL. A thread sends them, so a backend that is down or slow fails nothing: the run
waits at most WAIT_SECONDS for its last event and logs one line. openlineage-python is imported only with the setting.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from queue import SimpleQueue
from typing import Any, Literal

from barflow.errors import BadInputError
from barflow.market.sessions import utc_now
from barflow.pipeline.program import as_known
from barflow.progress import Log
from barflow.settings import Settings
from barflow.staging.ledger import FAILED
from barflow.text import redacted

# For the last event of a run, after its work. A request itself takes at most REQUEST_SECONDS.
WAIT_SECONDS, REQUEST_SECONDS = 3.0, 2.0
_RUN = r"[^\s,/]{1,100}+/[^\s,/]{1,300}+/[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
PARENT = re.compile(rf"{_RUN}(?:,{_RUN})?")
State = Literal["START", "COMPLETE", "FAIL"]
# Name, type and meaning of each column.
Columns = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Dataset:
    """A dataset by OpenLineage's names. ``columns`` may read a store, so only the sending thread calls it."""

    namespace: str
    name: str
    columns: Callable[[], Columns] = tuple


@dataclass(frozen=True)
class Datasets:
    """What a hop reads and writes, each dataset by the key of its counts."""

    inputs: Mapping[str, Dataset] = field(default_factory=dict)
    outputs: Mapping[str, Dataset] = field(default_factory=dict)


@dataclass(frozen=True)
class Count:
    """How much of a dataset a run read or wrote."""

    rows: int | None = None
    files: int | None = None


@dataclass(frozen=True)
class Job:
    """A hop: its datasets, and from its report what a run read and wrote, by the keys of its datasets."""

    name: str
    description: str
    datasets: Callable[[Settings], Datasets]
    counts: Callable[[Settings, Any], Mapping[str, Count]]


@dataclass(frozen=True)
class Run:
    """One run of a job. ``parent`` is the run that started it, as parse_parent describes."""

    job: Job
    settings: Settings
    run_id: str
    parent: str | None = None

    @property
    def namespace(self) -> str:
        """Return the namespace of the jobs of this environment, such as ``barflow-dev``."""
        return job_namespace(self.settings.env)

    @property
    def uuid(self) -> str:
        """Return the run's id in the events. It follows from the environment, the job and our run id."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.namespace}/{self.job.name}/{self.run_id}"))


@dataclass(frozen=True)
class Event:
    """What happened to a run, and when (UTC). ``report`` is what the hop returned, ``error`` why it failed."""

    state: State
    at: datetime
    report: Any = None
    error: str | None = None


def job_namespace(env: str) -> str:
    """Return the namespace of the jobs of an environment, Airflow's and the hops'."""
    return f"barflow-{env}"


def parse_parent(text: str) -> str:
    """Return the text if it names a parent run, and after a comma the root run, else raise BadInputError.

    Both are ``NAMESPACE/JOB/UUID``, as Airflow's macros ``lineage_parent_id`` and ``lineage_root_parent_id`` return.
    """
    if not PARENT.fullmatch(text):
        raise BadInputError(
            "the parent run must be NAMESPACE/JOB/UUID, and after a comma the root run. Nothing was done."
        )
    return text


@contextmanager
def reported(run: Run, log: Log) -> Iterator[Callable[[Any], None]]:
    """Report the run that the block does. The block passes what it did to the function that this yields.

    A report whose ``outcome`` is ``failed`` is sent as FAIL, like an exception. Raises only the block's own errors.
    """
    if not run.settings.openlineage_url:
        yield lambda report: None
        return
    sender = _Sender(run)
    sender.send(Event("START", utc_now()))
    done: list[Any] = []
    try:
        yield done.append
    except BaseException as error:
        sender.end(Event("FAIL", utc_now(), error=_one_line(error)), log)
        raise
    report = done[-1] if done else None
    failed = getattr(report, "outcome", None) == FAILED
    sender.end(Event("FAIL" if failed else "COMPLETE", utc_now(), report, _refusals(report) if failed else None), log)


def _one_line(error: BaseException) -> str:
    return "stopped" if isinstance(error, KeyboardInterrupt) else " ".join(str(as_known(error)).split())


def _refusals(report: Any) -> str:
    """Return why a tick without any answer failed."""
    return redacted("; ".join(f"{symbol}: {item.message}" for symbol, item in report.errors.items()))


class _Sender:
    """Sends the events of one run from a daemon thread, in order. Its first problem is logged at the end."""

    def __init__(self, run: Run) -> None:
        self._problem: str | None = None
        self._queue: SimpleQueue[Event | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._url = run.settings.openlineage_url
        try:
            # In this thread: two threads that import the same packages can see half of one.
            from barflow.pipeline.lineage_events import Emitter

            emitter = Emitter(run)
        except Exception as error:
            self._note(error)
            return
        self._thread = threading.Thread(target=self._send_all, args=(emitter.send,), daemon=True, name="lineage")
        self._thread.start()

    def send(self, event: Event) -> None:
        """Queue an event."""
        self._queue.put(event)

    def end(self, event: Event, log: Log) -> None:
        """Send the last event and wait for it, at most WAIT_SECONDS. Log a problem in one line."""
        self._queue.put(event)
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(WAIT_SECONDS)
            if self._thread.is_alive() and self._problem is None:
                self._problem = f"no answer within {WAIT_SECONDS:.0f} seconds"
        if self._problem:
            log(
                f"warning: lineage was not sent to {self._url}: {self._problem}. The run itself is not affected. "
                "Check BARFLOW_OPENLINEAGE_URL."
            )

    def _send_all(self, send: Callable[[Event], None]) -> None:
        while (event := self._queue.get()) is not None:
            try:
                send(event)
            except Exception as error:
                self._note(error)

    def _note(self, error: Exception) -> None:
        if self._problem is None:
            text = " ".join(redacted(str(error)).split()) or "no message"
            self._problem = f"{type(error).__name__}: {text[:300]}".rstrip(".")
