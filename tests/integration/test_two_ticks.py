"""A tick that is killed anywhere, repeated, or run twice at once ends in the state of one clean run (guarantee G2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import tick_program
from processes import Waiting, run, run_killed, start
from pymongo.database import Database
from ticks import end_state, ingest, utc
from twelvedata_calls import CLOCK, DAY_OPENS, reset

from barflow.market.sessions import BAR
from barflow.staging.connection import Document, connect
from emulators.twelvedata.server import TwelveDataEmulator

Mongo = Database[Document]
SYMBOLS = ["AAPL", "MSFT", "NVDA", "TSLA"]
NEXT_DAY = utc("2025-07-03 15:02")


def spoil(api: TwelveDataEmulator, times: int) -> None:
    """Make one bar of MSFT a rejected one, in the next ``times`` answers."""
    api.switches.fail("zero_price", symbol="MSFT", ts=DAY_OPENS + 5 * BAR, times=times)


def ready(api: TwelveDataEmulator, uri: str, database: Mongo, **options: Any) -> Waiting:
    """Return a process that is ready to tick."""
    settings = {"uri": uri, "database": database.name, "api": api.url, "now": CLOCK.now, "symbols": SYMBOLS}
    return start(tick_program.prepare, **settings, **options)


def second_day(api: TwelveDataEmulator) -> None:
    """Move to the next day: a new session and two corrections."""
    CLOCK.now = NEXT_DAY
    api.switches.correct("AAPL", DAY_OPENS + 3 * BAR, volume="424242")
    api.switches.correct("TSLA", utc("2025-07-01 14:00"), volume="424242")


@pytest.fixture(scope="module")
def clean(market_server: TwelveDataEmulator, mongodb_uri: str) -> Iterator[dict[str, Document]]:
    """Return the end state of one clean first run and one clean tick on the day after."""
    api, database = reset(market_server), connect(mongodb_uri, f"clean_ticks_{uuid4().hex[:8]}")
    ingest(api, database).tick(SYMBOLS)
    second_day(api)
    spoil(api, times=1)
    report = ingest(api, database).tick(SYMBOLS)
    assert (report.total.revised, report.total.rejected) == (2, 1), "the second tick revises and rejects bars"
    yield end_state(database)
    database.client.close()


def test_two_ticks_at_once_end_in_the_state_of_one(
    market: TwelveDataEmulator, mongodb_uri: str, database: Mongo, clean: dict[str, Document]
) -> None:
    one, two = run(*(ready(market, mongodb_uri, database) for _ in range(2)))
    stored = {symbol: sum(len(item["ts"]) for item in database["bars"].find({"symbol": symbol})) for symbol in SYMBOLS}
    for symbol in SYMBOLS:
        assert one[symbol]["new"] + two[symbol]["new"] == stored[symbol], "each bar is new in exactly one of the two"
        for counts in (one[symbol], two[symbol]):
            assert counts["received"] == counts["new"] + counts["unchanged"]
    assert database["ledger"].count_documents({"outcome": "succeeded"}) == 2

    second_day(market)
    spoil(market, times=2)
    one, two = run(*(ready(market, mongodb_uri, database) for _ in range(2)))
    assert sum(counts["revised"] for tick in (one, two) for counts in tick.values()) == 2
    assert [tick["MSFT"]["rejected"] for tick in (one, two)] == [1, 1]
    for counts in (*one.values(), *two.values()):
        parts = ("new", "revised", "unchanged", "rejected", "forming")
        assert counts["received"] == sum(counts[name] for name in parts)
    # The answer that was asked for first may be stored last: then it changes when a bar became known.
    found = end_state(database)
    assert found == {key: {**item, **_version_of(found[key])} for key, item in clean.items()}
    assert [item["times"] for item in database["rejected_bars"].find()] == [2]


def _version_of(document: Document) -> Document:
    return {name: document[name] for name in ("version",) if name in document}


# Where a tick is killed: a method of a collection, the number of its call, and the number of writes of a bulk write.
FIRST_RUN_DIES = {
    "before anything is stored": ("bulk_write", 0, None),
    "after one session": ("bulk_write", 0, 1),
    "in the middle of a bulk write": ("bulk_write", 0, 7),
    "between two bulk writes": ("bulk_write", 1, None),
}
LATER_TICK_DIES = {
    "before the raw answer is stored": ("insert_many", 0, None),
    "between the raw answer and the bars": ("bulk_write", 0, None),
    "between the rejected bars and the accepted ones": ("bulk_write", 1, None),
    "in the middle of the accepted bars": ("bulk_write", 1, 3),
    "before the end of the run is recorded": ("update_one", 0, None),
}


@pytest.mark.parametrize("point", FIRST_RUN_DIES)
def test_a_first_run_killed_anywhere_is_completed_by_the_next_tick(
    market: TwelveDataEmulator, mongodb_uri: str, database: Mongo, clean: dict[str, Document], point: str
) -> None:
    run_killed(ready(market, mongodb_uri, database, die=FIRST_RUN_DIES[point]))
    ingest(market, database).tick(SYMBOLS)
    second_day(market)
    spoil(market, times=1)
    ingest(market, database).tick(SYMBOLS)
    assert end_state(database) == clean


@pytest.mark.parametrize("point", LATER_TICK_DIES)
def test_a_later_tick_killed_anywhere_is_completed_by_the_next_tick(
    market: TwelveDataEmulator, mongodb_uri: str, database: Mongo, clean: dict[str, Document], point: str
) -> None:
    ingest(market, database).tick(SYMBOLS)
    second_day(market)
    spoil(market, times=2)
    run_killed(ready(market, mongodb_uri, database, die=LATER_TICK_DIES[point]))
    [dead] = database["ledger"].find({"outcome": "running"})
    assert "counts" not in dead, "the ledger shows a run that died, without counts"
    ingest(market, database).tick(SYMBOLS)
    assert end_state(database) == clean
