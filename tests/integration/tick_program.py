"""A tick of ingest for a process of its own, which may kill itself at a chosen point."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import SecretStr
from pymongo.collection import Collection

from barflow.pipeline import ingest
from barflow.staging.connection import connect
from barflow.twelvedata.client import TwelveDataClient

Counts = dict[str, dict[str, int]]


def prepare(settings: Mapping[str, Any]) -> Callable[[], Counts]:
    """Return a tick that returns each symbol's counts.

    ``settings`` are uri, database, api (its address), now, symbols, and optionally die: (method, call, writes). With
    it, the process sends itself SIGKILL in that call of that method of PyMongo's Collection: before the call, or, in a
    bulk write, after that number of its writes.
    """
    key = SecretStr("emulator-key")
    client = TwelveDataClient(settings["api"], key, credits_per_minute=10_000, credits_per_day=None, batch_size=120)
    database = connect(settings["uri"], settings["database"])
    hop = ingest.Ingest(client, database, history_sessions=20, revision_sessions=2, clock=lambda: settings["now"])
    ingest.FLUSH_BARS = 2000  # several writes a tick
    if "die" in settings:
        die_in(*settings["die"])

    def tick() -> Counts:
        report = hop.tick(settings["symbols"])
        return {symbol: asdict(counts) for symbol, counts in report.counts.items()}

    return tick


def die_in(method: str, call: int, writes: int | None) -> None:
    """Kill this process in the n-th call (from 0) of a method of a collection."""
    original = getattr(Collection, method)
    calls = itertools.count()

    def dying(self: Collection[Any], *args: Any, **options: Any) -> Any:
        if next(calls) == call:
            if writes:
                original(self, args[0][:writes], **options)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **options)

    setattr(Collection, method, dying)
