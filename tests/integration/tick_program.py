"""How does a test run a tick in a process of its own, and have it die at a chosen point? By this program.

``python tick_program.py SETTINGS``; JSON: uri, database, api, now, symbols and optionally die: [method, call, writes].
It prints "ready", waits for a line on its standard input, runs the tick and prints each symbol's counts. With
``die`` it sends itself SIGKILL in that call of that method of PyMongo's Collection: before the call, or, for a
bulk, after so many of its writes.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from pymongo.collection import Collection

from barflow.pipeline import ingest
from barflow.staging.connection import connect
from barflow.twelvedata.client import TwelveDataClient


def main(settings: dict[str, Any]) -> None:
    now = datetime.fromisoformat(settings["now"])
    key = SecretStr("emulator-key")
    client = TwelveDataClient(settings["api"], key, credits_per_minute=10_000, credits_per_day=None, batch_size=120)
    database = connect(settings["uri"], settings["database"])
    hop = ingest.Ingest(client, database, history_sessions=20, revision_sessions=2, clock=lambda: now)
    ingest.FLUSH_BARS = 2000  # several writes a tick
    if "die" in settings:
        die_in(*settings["die"])
    print("ready", flush=True)
    sys.stdin.readline()
    report = hop.tick(settings["symbols"])
    print(json.dumps({symbol: asdict(counts) for symbol, counts in report.counts.items()}))


def die_in(method: str, call: int, writes: int | None = None) -> None:
    """Has this process killed in the n-th call (from 0) of a method of a collection."""
    original = getattr(Collection, method)
    calls = itertools.count()

    def dying(self: Collection[Any], *args: Any, **options: Any) -> Any:
        if next(calls) == call:
            if writes:
                original(self, args[0][:writes], **options)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **options)

    setattr(Collection, method, dying)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
