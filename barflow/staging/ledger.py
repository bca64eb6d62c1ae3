"""The ledger: one document per run of a hop, and the lease that allows one run of a hop at a time.

A run is recorded when it starts and completed when it ends. A run that died therefore stays ``running``, with an old
``started_at``. All times are wall-clock times in UTC, also when a run replays past bars.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from barflow.errors import BarflowError, BusyError
from barflow.market.sessions import utc_now
from barflow.progress import Log
from barflow.staging.connection import Document, mongo_errors

RUNNING, SUCCEEDED, PARTIAL, FAILED = "running", "succeeded", "partial", "failed"

LONGEST_RUN = timedelta(days=1)
LEDGER_KEPT = timedelta(days=90)
# `last` looks at the runs of this many days first.
RECENT_DAYS = (1, 7)


def new_run_id(hop: str) -> str:
    """Return a unique id such as ``20250730T200000Z-ingest-3fa9c1``. Ids sort by time and name their hop."""
    return f"{utc_now():%Y%m%dT%H%M%SZ}-{hop}-{secrets.token_hex(3)}"


class Ledger:
    """The collection ``ledger``."""

    def __init__(self, database: Database[Document]) -> None:
        self._runs = database["ledger"]

    def ensure(self) -> None:
        """Create the indexes that are missing."""
        with mongo_errors("create its collections and indexes"):
            self._runs.create_index([("hop", 1), ("started_at", -1)])
            self._runs.create_index("started_at")

    def start(self, hop: str, run_id: str, **fields: Any) -> None:
        """Record that a run started, with further ``fields`` (lake, symbols, …).

        Raises BarflowError when a run with that id exists: its record is never overwritten.
        """
        run = {"_id": run_id, "hop": hop, "run_id": run_id, "started_at": utc_now(), "outcome": RUNNING, **fields}
        try:
            with mongo_errors("record the start of the run"):
                self._runs.insert_one(run)
        except DuplicateKeyError:
            raise BarflowError(
                f"the ledger has a run {run_id} already. Nothing was changed. Run again with another id or without one."
            ) from None

    def finish(self, run_id: str, outcome: str, counts: Mapping[str, Mapping[str, int]], **fields: Any) -> None:
        """Record how a run ended. ``counts`` is by symbol; it is stored as a list, since a symbol may hold a dot."""
        with mongo_errors("record the end of the run"):
            self._runs.update_one(
                {"_id": run_id},
                {"$set": {"finished_at": utc_now(), "outcome": outcome, "counts": _rows(counts), **fields}},
            )

    def record_part(
        self, hop: str, run_id: str, started_at: datetime, counts: Mapping[str, Mapping[str, int]], **fields: Any
    ) -> None:
        """Record a run that has already succeeded, such as a slice of an active run, with further ``fields``."""
        run = {"_id": run_id, "hop": hop, "run_id": run_id, "started_at": started_at, "finished_at": utc_now()}
        with mongo_errors("record what is published"):
            self._runs.insert_one({**run, "outcome": SUCCEEDED, "counts": _rows(counts), **fields})

    def record(self, hop: str, started_at: datetime, **fields: Any) -> None:
        """Record a run that has ended and succeeded, under a new run id, with further ``fields``."""
        self.record_part(hop, new_run_id(hop), started_at, {}, **fields)

    @contextmanager
    def storing(self, what: str) -> Iterator[str]:
        """Yield the id of a run that stores outside of a hop, recorded while the block runs.

        What becomes known in the block is not stored yet, so an archive that is published meanwhile is complete only
        until its start.
        """
        run_id, outcome = new_run_id(what), FAILED
        self.start(what, run_id)
        try:
            yield run_id
            outcome = SUCCEEDED
        finally:
            self.finish(run_id, outcome, {})

    def get(self, run_id: str) -> Document | None:
        """Return a run by its id."""
        with mongo_errors("read the ledger"):
            return self._runs.find_one({"_id": run_id})

    def last(self, hop: str, **fields: Any) -> Document | None:
        """Return the newest run of a hop whose fields (outcome, lake, …) have these values."""
        newest = [("started_at", -1)]
        now = utc_now()
        with mongo_errors("read the ledger"):
            for days in RECENT_DAYS:  # not every server stops at the first match of a sorted query
                recent = {"started_at": {"$gte": now - timedelta(days=days)}}
                if found := self._runs.find_one({"hop": hop, **recent, **fields}, sort=newest):
                    return found
            return self._runs.find_one({"hop": hop, **fields}, sort=newest)

    def attempts(self, run_id: str) -> list[Document]:
        """Return the runs whose id is ``run_id`` and a number, such as ``RUN_ID-1``: one for each attempt."""
        with mongo_errors("read the ledger"):
            return list(self._runs.find({"_id": {"$gte": f"{run_id}-", "$lt": f"{run_id}."}}))

    def expire(self, before: datetime) -> int:
        """Delete the runs that started before a moment (UTC), except those from which a later run starts.

        These are the newest run of each hop and the newest that succeeded, and the newest reconciliations of each lake.
        All process runs of a lake since the last successful one of all symbols stay too. Return how many were deleted.
        """
        deleted = 0
        with mongo_errors("delete expired runs"):
            hops, lakes = self._runs.distinct("hop"), [lake for lake in self._runs.distinct("lake") if lake]
            needed = [self.last(hop, **fields) for hop in hops for fields in ({}, {"outcome": SUCCEEDED})]
            published: Document = {"outcome": SUCCEEDED, "manifest": {"$ne": None}}
            needed.append(self.last("process", **published))
            for lake in lakes:
                needed += [self.last("reconcile", lake=lake, **fields) for fields in ({}, {"full": True})]
                start = self.last("process", lake=lake, outcome=SUCCEEDED, symbols=None)
                until = min(before, start["started_at"] - LONGEST_RUN) if start else datetime.min.replace(tzinfo=UTC)
                runs = {"hop": "process", "lake": lake, "started_at": {"$lt": until}}
                deleted += self._delete(runs, needed)
            deleted += self._delete({"hop": {"$ne": "process"}, "started_at": {"$lt": before}}, needed)
        return deleted

    def _delete(self, runs: Document, needed: list[Document | None]) -> int:
        kept = [run["_id"] for run in needed if run]
        return int(self._runs.delete_many({**runs, "$nor": [{"_id": {"$in": kept}}]}).deleted_count)

    def all_stored_until(self) -> datetime:
        """Return a moment (UTC) before which every requested answer is stored.

        It is now, or the start of the oldest run that is still storing. A run that started longer than a day ago died.
        Bars are known from whole milliseconds, so the millisecond of that moment is not complete.
        """
        now = utc_now()
        query: Document = {
            "outcome": RUNNING,
            "$nor": [{"hop": hop} for hop in ("process", "aggregate")],
            "started_at": {"$gte": now - LONGEST_RUN},
        }
        with mongo_errors("read the ledger"):
            oldest = self._runs.find_one(query, sort=[("started_at", 1)])
        moment: datetime = oldest["started_at"] if oldest else now
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000) - timedelta(milliseconds=1)

    def finished_since(self, hop: str, moment: datetime, **fields: Any) -> list[Document]:
        """Return the runs of a hop that finished at or after ``moment`` and whose fields have these values."""
        with mongo_errors("read the ledger"):
            started = {"started_at": {"$gte": moment - LONGEST_RUN}}  # it has the index
            return list(self._runs.find({"hop": hop, **started, "finished_at": {"$gte": moment}, **fields}))

    def first(self, hop: str, lake: str) -> datetime | None:
        """Return the start (UTC) of the oldest run of a hop on a lake that has not expired."""
        with mongo_errors("read the ledger"):
            found = self._runs.find_one({"hop": hop, "lake": lake}, {"started_at": 1}, sort=[("started_at", 1)])
        return found["started_at"] if found else None

    def published(self, hop: str, lake: str, symbol: str, since: datetime, limit: int) -> list[Document]:
        """Return the first runs of a hop since a moment (UTC) that wrote files of a symbol to a lake, oldest first."""
        query: Document = {"hop": hop, "started_at": {"$gte": since}, "outcome": SUCCEEDED, "lake": lake}
        with mongo_errors("read the ledger"):
            found = self._runs.find({**query, "counts.symbol": symbol}, sort=[("started_at", 1)], limit=limit)
            return [run for run in found if run.get("manifest")]


def _rows(counts: Mapping[str, Mapping[str, int]]) -> list[Document]:
    return [{"symbol": symbol, **values} for symbol, values in counts.items()]


class Lease:
    """A lock in the collection ``leases``. Its holder renews it; it expires ``seconds`` after the last renewal."""

    def __init__(self, database: Database[Document], name: str, holder: str, seconds: float) -> None:
        self._leases = database["leases"]
        self.name, self.holder, self.seconds = name, holder, seconds
        self._stop = threading.Event()

    def take(self) -> bool:
        """Take the lease if it is free or expired. Return False while another run holds it."""
        now = utc_now()
        free = {"_id": self.name, "$or": [{"holder": self.holder}, {"expires_at": {"$lt": now}}]}
        try:
            with mongo_errors("take the lock"):
                self._leases.find_one_and_update(free, self._until(now), upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def renew(self) -> bool:
        """Hold the lease for another term. Return False when another run has taken it, even if it is free again."""
        with mongo_errors("renew the lock"):
            mine = {"_id": self.name, "holder": self.holder}
            return self._leases.find_one_and_update(mine, self._until(utc_now())) is not None

    def check(self) -> None:
        """Raise BusyError when the lease was lost: from then on, nothing may be published."""
        if not self.renew():
            raise BusyError(
                f"{self.name}: this run stalled and another run took over. This run publishes nothing more. "
                "The other run, or the next one, does its work."
            )

    def _until(self, now: datetime) -> Document:
        return {"$set": {"holder": self.holder, "expires_at": now + timedelta(seconds=self.seconds)}}

    def release(self) -> None:
        """Release the lease. Never raises: a lease that cannot be released expires."""
        self._stop.set()
        with suppress(BarflowError), mongo_errors("release the lock"):
            self._leases.delete_one({"_id": self.name, "holder": self.holder})

    def _renew(self) -> None:
        while not self._stop.wait(self.seconds / 3):
            with suppress(BarflowError):  # the run's own thread gets the error at its next check
                self.renew()

    @contextmanager
    def held(self, wait_seconds: float, log: Log) -> Iterator[Lease]:
        """Hold the lease for a block, after a wait of at most ``wait_seconds`` that is logged once.

        Raises BusyError when another run still holds it then.
        """
        deadline = time.monotonic() + wait_seconds
        logged = False
        while not self.take():
            if time.monotonic() > deadline:
                raise BusyError(
                    f"{self.name}: another run is active. Nothing was changed. Wait until it ends, then run again."
                )
            if not logged:
                log(f"{self.name}: another run is active or died recently; waiting up to {wait_seconds:.0f} s for it")
                logged = True
            time.sleep(min(0.5, self.seconds / 4))
        threading.Thread(target=self._renew, daemon=True, name=f"lease {self.name}").start()
        try:
            yield self
        finally:
            self.release()
