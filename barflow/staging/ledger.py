"""The ledger: one document per run of a hop, and the lease that keeps a hop to one run at a time.

A run is written when it starts and completed when it ends, so a run that died shows as ``running`` with an old
start. Times are the wall clock's, in UTC, also when a run replays the past.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from barflow.errors import BarflowError, BusyError
from barflow.market.sessions import utc_now
from barflow.staging.connection import Document, mongo_errors

RUNNING, SUCCEEDED, PARTIAL, FAILED = "running", "succeeded", "partial", "failed"


def new_run_id(hop: str) -> str:
    """``20250730T200000Z-ingest-3fa9c1``: sorts by time, names its hop, is unique."""
    return f"{utc_now():%Y%m%dT%H%M%SZ}-{hop}-{secrets.token_hex(3)}"


class Ledger:
    """The collection ``ledger``."""

    def __init__(self, database: Database[Document]) -> None:
        self._runs = database["ledger"]

    def ensure(self) -> None:
        with mongo_errors("prepare its collections"):
            self._runs.create_index([("hop", 1), ("started_at", -1)])

    def start(self, hop: str, run_id: str, **facts: Any) -> None:
        """Opens a run. Raises BarflowError when there is one of that id: its record is not written over."""
        run = {"_id": run_id, "hop": hop, "run_id": run_id, "started_at": utc_now(), "outcome": RUNNING, **facts}
        try:
            with mongo_errors("open the ledger"):
                self._runs.insert_one(run)
        except DuplicateKeyError:
            raise BarflowError(
                f"the ledger has a run {run_id} already. Nothing was changed. Run again with an id of its own, or none."
            ) from None

    def finish(self, run_id: str, outcome: str, counts: Mapping[str, Mapping[str, int]], **facts: Any) -> None:
        """Completes a run. ``counts`` is per symbol; kept as a list, for a symbol may hold a dot."""
        rows = [{"symbol": symbol, **values} for symbol, values in counts.items()]
        with mongo_errors("close the ledger"):
            self._runs.update_one(
                {"_id": run_id},
                {"$set": {"finished_at": utc_now(), "outcome": outcome, "counts": rows, **facts}},
            )

    def last(self, hop: str, **facts: Any) -> Document | None:
        """The newest run of a hop of which these facts (outcome, lake, …) hold."""
        query: Document = {"hop": hop, **facts}
        with mongo_errors("read the ledger"):
            return self._runs.find_one(query, sort=[("started_at", -1)])

    def tries(self, run_id: str) -> list[Document]:
        """The runs whose id is ``run_id`` and a number, ``RUN_ID-1``: one for each time it was tried."""
        with mongo_errors("read the ledger"):
            return list(self._runs.find({"_id": {"$gte": f"{run_id}-", "$lt": f"{run_id}."}}))

    def finished_since(self, hop: str, moment: datetime, **facts: Any) -> list[Document]:
        """The runs of a hop that finished at or after ``moment`` and of which these facts hold."""
        with mongo_errors("read the ledger"):
            return list(self._runs.find({"hop": hop, "finished_at": {"$gte": moment}, **facts}))


class Lease:
    """A lock that outlives neither its holder nor its term: renewed while held, free once it expires."""

    def __init__(self, database: Database[Document], name: str, holder: str, seconds: float) -> None:
        self._leases = database["leases"]
        self.name, self.holder, self.seconds = name, holder, seconds
        self._stop = threading.Event()

    def take(self) -> bool:
        """Takes the lease when it is free or has expired; False while another holds it."""
        now = utc_now()
        free = {"_id": self.name, "$or": [{"holder": self.holder}, {"expires_at": {"$lt": now}}]}
        try:
            with mongo_errors("take the lock"):
                self._leases.find_one_and_update(free, self._until(now), upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def renew(self) -> bool:
        """Holds the lease for another term; False when another took it meanwhile, be it that it is free again."""
        with mongo_errors("keep the lock"):
            mine = {"_id": self.name, "holder": self.holder}
            return self._leases.find_one_and_update(mine, self._until(utc_now())) is not None

    def check(self) -> None:
        """Raises BusyError when the lease was lost: then nothing may be published any more."""
        if not self.renew():
            raise BusyError(
                f"{self.name}: this run stalled and another took over. It published nothing; what it had to do is "
                "done by the other or by the next run."
            )

    def _until(self, now: datetime) -> Document:
        return {"$set": {"holder": self.holder, "expires_at": now + timedelta(seconds=self.seconds)}}

    def release(self) -> None:
        """Gives the lease back. What cannot be given back expires, so this never fails."""
        self._stop.set()
        with suppress(BarflowError), mongo_errors("give the lock back"):
            self._leases.delete_one({"_id": self.name, "holder": self.holder})

    def _renew(self) -> None:
        while not self._stop.wait(self.seconds / 3):
            with suppress(BarflowError):  # the run's own thread meets it at its next check
                self.renew()

    @contextmanager
    def held(self, wait_seconds: float, say: Callable[[str], None]) -> Iterator[Lease]:
        """Holds the lease for a block, waiting for it at first. Raises BusyError when another run keeps it."""
        deadline = time.monotonic() + wait_seconds
        told = False
        while not self.take():
            if time.monotonic() > deadline:
                raise BusyError(
                    f"{self.name}: another run is at work. Nothing was changed. Wait for it to end, then run again."
                )
            if not told:
                say(f"{self.name}: another run is at work or died lately; waiting up to {wait_seconds:.0f} s for it")
                told = True
            time.sleep(min(0.5, self.seconds / 4))
        threading.Thread(target=self._renew, daemon=True, name=f"lease {self.name}").start()
        try:
            yield self
        finally:
            self.release()
