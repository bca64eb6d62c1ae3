"""Ticks for the tests of ingest, and the state that they leave in MongoDB."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr
from pymongo.database import Database
from twelvedata_calls import CLOCK

from barflow.market.bars import VALUES
from barflow.market.sessions import utc_now
from barflow.pipeline.ingest import Ingest
from barflow.pipeline.ingest_report import Counts
from barflow.staging.connection import Document
from barflow.twelvedata.client import Answer, SymbolError, TwelveDataClient
from emulators.twelvedata.bar_source import BarSource, Row
from emulators.twelvedata.server import TwelveDataEmulator

KEY = "emulator-key"
SYMBOLS = ("AAPL", "MSFT")
# Fields that may differ between two runs that end in the same state.
RUN_FIELDS = ("known_from", "run_id", "first_seen_at", "updated_at", "requested_at", "seen_at", "last_seen_at", "times")


def ingest(
    api: TwelveDataEmulator,
    database: Database[Document],
    *,
    history: int = 20,
    revision: int = 2,
    clock: Callable[[], datetime] = CLOCK,
) -> Ingest:
    """Return ingest against an emulator, with the API's largest batches and no limit of credits."""
    client = TwelveDataClient(api.url, SecretStr(KEY), credits_per_minute=10_000, credits_per_day=None, batch_size=120)
    return Ingest(client, database, history_sessions=history, revision_sessions=revision, clock=clock)


class FakeClient:
    """A client that returns these results one after the other. It raises an exception in its turn."""

    def __init__(self, *results: Answer | SymbolError | BaseException) -> None:
        self.results = results

    def time_series(self, symbols: Sequence[str], *window: datetime, on_raw: object) -> Iterator[Answer | SymbolError]:
        for result in self.results:
            if isinstance(result, BaseException):
                raise result
            yield result


def scripted(database: Database[Document], *results: Answer | SymbolError | BaseException, now: datetime) -> Ingest:
    """Return ingest with a fake client that returns these results."""
    client: Any = FakeClient(*results)
    return Ingest(client, database, history_sessions=20, revision_sessions=2, clock=lambda: now)


def answer(symbol: str, rows: Sequence[Row], requested_at: datetime | None = None, **meta: str) -> Answer:
    """Return a symbol's answer with these bars."""
    return Answer(symbol, {"symbol": symbol, **meta}, [as_value(row) for row in rows], requested_at or utc_now())


def as_value(row: Row) -> dict[str, Any]:
    """Return a bar as it is in an answer."""
    names = ("open", "high", "low", "close", "volume")
    return {"datetime": f"{row[0]:%Y-%m-%d %H:%M:%S}", **dict(zip(names, row[1:], strict=True))}


Values = tuple[float, float, float, float, int]


def stored(database: Database[Document], symbol: str) -> dict[datetime, Values]:
    """Return every stored bar of a symbol by its open (UTC), in dollars and shares."""
    bars: dict[datetime, Values] = {}
    for document in database["bars"].find({"symbol": symbol}):
        for ts, *values in zip(*(document[name] for name in VALUES), strict=True):
            assert ts not in bars, f"{symbol} {ts} is stored twice"
            bars[ts] = tuple(values)
    return bars


def expected(source: BarSource, symbol: str, start: datetime, end: datetime) -> dict[datetime, Values]:
    """Return the source's bars in [start, end): the bars that must be stored."""
    return {
        row[0]: (float(row[1] or 0), float(row[2] or 0), float(row[3] or 0), float(row[4] or 0), int(row[5] or 0))
        for row in source.rows(symbol, start, end)
    }


def end_state(database: Database[Document], *collections: str) -> dict[str, Document]:
    """Return all documents by ``_id``, without the fields that may differ between runs."""
    names = collections or ("bars", "rejected_bars")
    return {
        document["_id"]: {name: value for name, value in document.items() if name not in RUN_FIELDS}
        for name in names
        for document in database[name].find()
    }


def counts(**values: int) -> dict[str, int]:
    """Return the counts of a symbol. Those that are not given are zero."""
    return {**asdict(Counts()), **values}


def utc(text: str) -> datetime:
    """Return the moment of a text such as ``2025-07-02 13:30`` in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def everything(database: Database[Document]) -> str:
    """Return the whole database as text, to search it for secrets."""
    return re.sub(r"\s+", " ", str([[*database[name].find()] for name in database.list_collection_names()]))
