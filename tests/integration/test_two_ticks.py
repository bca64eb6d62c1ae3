"""A tick may be killed anywhere, repeated, or run twice at once: the end state is that of one clean run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo.database import Database
from ticks import end_state, ingest, utc
from twelvedata_calls import CLOCK, DAY_OPENS, reset

from barflow.market.sessions import BAR
from barflow.staging.connection import Document, connect
from emulators.twelvedata.server import TwelveDataEmulator

Mongo = Database[Document]
PROGRAM = Path(__file__).with_name("tick_program.py")
SYMBOLS = ["AAPL", "MSFT", "NVDA", "TSLA"]
NEXT_DAY = utc("2025-07-03 15:02")


def spoil(api: TwelveDataEmulator, times: int) -> None:
    """One bar of MSFT is refused, in so many answers."""
    api.switches.fail("zero_price", symbol="MSFT", ts=DAY_OPENS + 5 * BAR, times=times)


def start(api: TwelveDataEmulator, uri: str, database: Mongo, **options: Any) -> subprocess.Popen[str]:
    """A process that is ready to tick."""
    settings = {"uri": uri, "database": database.name, "api": api.url, "now": CLOCK.now.isoformat(), "symbols": SYMBOLS}
    command = [sys.executable, str(PROGRAM), json.dumps(settings | options)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def go(*processes: subprocess.Popen[str]) -> list[dict[str, dict[str, int]]]:
    """Lets processes that are ready tick at the same time; returns the counts of those that got to their end."""
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in processes]
    return [json.loads(output) for output in outputs if output]


def second_day(api: TwelveDataEmulator) -> None:
    """What the next tick finds: a new session, two corrections, and a bar that it must refuse."""
    CLOCK.now = NEXT_DAY
    api.switches.correct("AAPL", DAY_OPENS + 3 * BAR, volume="424242")
    api.switches.correct("TSLA", utc("2025-07-01 14:00"), volume="424242")


@pytest.fixture(scope="module")
def clean(market_server: TwelveDataEmulator, mongodb_uri: str) -> Iterator[dict[str, Document]]:
    """The end state of one clean first run and one clean tick on the day after."""
    api, database = reset(market_server), connect(mongodb_uri, f"clean_ticks_{uuid4().hex[:8]}")
    ingest(api, database).tick(SYMBOLS)
    second_day(api)
    spoil(api, times=1)
    report = ingest(api, database).tick(SYMBOLS)
    assert (report.total.revised, report.total.rejected) == (2, 1), "there is something to lose"
    yield end_state(database)
    database.client.close()


def test_two_first_runs_at_once_end_in_the_state_of_one(
    market: TwelveDataEmulator, mongodb_uri: str, database: Mongo, clean: dict[str, Document]
) -> None:
    one, two = go(*(start(market, mongodb_uri, database) for _ in range(2)))
    stored = {symbol: sum(len(item["ts"]) for item in database["bars"].find({"symbol": symbol})) for symbol in SYMBOLS}
    for symbol in SYMBOLS:
        assert one[symbol]["new"] + two[symbol]["new"] == stored[symbol], "each bar is new to one of the two"
        for counts in (one[symbol], two[symbol]):
            assert counts["received"] == counts["new"] + counts["unchanged"]
    assert database["ledger"].count_documents({"outcome": "succeeded"}) == 2

    second_day(market)
    spoil(market, times=2)
    one, two = go(*(start(market, mongodb_uri, database) for _ in range(2)))
    assert sum(counts["revised"] for tick in (one, two) for counts in tick.values()) == 2
    assert [tick["MSFT"]["rejected"] for tick in (one, two)] == [1, 1]
    for counts in (*one.values(), *two.values()):
        parts = ("new", "revised", "unchanged", "rejected", "forming")
        assert counts["received"] == sum(counts[name] for name in parts)
    assert end_state(database) == clean
    assert [item["times"] for item in database["rejected_bars"].find()] == [2]


# Where a tick dies: in which call of which method of a collection, and after how many writes of a bulk.
FIRST_RUN_DIES = {
    "before anything is stored": ("bulk_write", 0, None),
    "after one session": ("bulk_write", 0, 1),
    "in the middle of a bulk": ("bulk_write", 0, 7),
    "between two bulks": ("bulk_write", 1, None),
}
LATER_TICK_DIES = {
    "before the raw answer is kept": ("insert_many", 0, None),
    "between the raw answer and the store": ("bulk_write", 0, None),
    "between the refused bars and the good ones": ("bulk_write", 1, None),
    "in the middle of the good bars": ("bulk_write", 1, 3),
    "before the ledger is closed": ("update_one", 0, None),
}


@pytest.mark.parametrize("point", FIRST_RUN_DIES)
def test_a_first_run_killed_anywhere_is_completed_by_the_next_tick(
    market: TwelveDataEmulator, mongodb_uri: str, database: Mongo, clean: dict[str, Document], point: str
) -> None:
    kill(start(market, mongodb_uri, database, die=FIRST_RUN_DIES[point]))
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
    kill(start(market, mongodb_uri, database, die=LATER_TICK_DIES[point]))
    [dead] = database["ledger"].find({"outcome": "running"})
    assert "counts" not in dead, "the ledger shows a run that died, and claims nothing for it"
    ingest(market, database).tick(SYMBOLS)
    assert end_state(database) == clean


def kill(process: subprocess.Popen[str]) -> None:
    """Lets a process tick that is to die of it."""
    assert go(process) == []
    assert process.returncode == -signal.SIGKILL
