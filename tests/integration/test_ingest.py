"""A tick requests what it needs, stores what it received, counts every bar, and rewrites nothing unchanged."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, timedelta

import pytest
from pymongo.database import Database
from ticks import (
    KEY,
    SYMBOLS,
    answer,
    as_value,
    counts,
    everything,
    expected,
    ingest,
    scripted,
    stored,
    utc,
)
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS, MARKET

from barflow.errors import BadInputError, BarflowError, UnavailableError, VendorRefusedError
from barflow.market.recordings import Recording
from barflow.market.sessions import BAR, NEW_YORK, last_sessions, session, utc_now
from barflow.pipeline.ingest_report import raise_errors
from barflow.staging.connection import Document
from barflow.staging.ledger import FAILED, PARTIAL, SUCCEEDED
from barflow.twelvedata.client import Answer
from emulators.twelvedata.bar_source import Row
from emulators.twelvedata.server import TwelveDataEmulator

Mongo = Database[Document]
HISTORY = last_sessions(DAY_CLOSES, 20)
HISTORY_BARS = sum(item.expected_bars for item in HISTORY)


def requested_starts(api: TwelveDataEmulator) -> dict[str, str]:
    return {symbol: call.params["start_date"] for call in api.requests for symbol in call.symbols}


def test_a_first_run_requests_the_last_twenty_sessions(market: TwelveDataEmulator, database: Mongo) -> None:
    report = ingest(market, database).tick(SYMBOLS)
    assert requested_starts(market) == dict.fromkeys(SYMBOLS, f"{HISTORY[0].opens:%Y-%m-%d %H:%M:%S}")
    for symbol in SYMBOLS:
        assert asdict(report.counts[symbol]) == counts(received=HISTORY_BARS, new=HISTORY_BARS)
        assert stored(database, symbol) == expected(MARKET, symbol, HISTORY[0].opens, DAY_CLOSES)
    assert database["bars"].count_documents({}) == len(SYMBOLS) * len(HISTORY)


def test_a_later_tick_requests_only_the_revision_window_for_one_credit_a_symbol(
    market: TwelveDataEmulator, database: Mongo
) -> None:
    hop = ingest(market, database)
    hop.tick(SYMBOLS)
    market.requests.clear()
    CLOCK.now = utc("2025-07-03 14:00")
    report = hop.tick(SYMBOLS)
    window = session(date(2025, 6, 30))  # two sessions before the newest stored one
    assert window
    assert requested_starts(market) == dict.fromkeys(SYMBOLS, f"{window.opens:%Y-%m-%d %H:%M:%S}")
    assert sum(call.credits for call in market.requests) == len(SYMBOLS)
    # Three whole sessions again, six bars of the new one, and the one that is forming.
    assert asdict(report.counts["AAPL"]) == counts(received=241, unchanged=234, new=6, forming=1)


def test_each_symbol_continues_from_its_own_newest_session(market: TwelveDataEmulator, database: Mongo) -> None:
    hop = ingest(market, database)
    CLOCK.now = utc("2025-05-01 20:00")
    hop.tick(["AAPL"])
    CLOCK.now = utc("2025-07-01 20:00")
    hop.tick(["MSFT"])
    market.requests.clear()
    CLOCK.now = DAY_CLOSES
    hop.tick(["AAPL", "MSFT", "NVDA"])
    starts = {symbol: text[:10] for symbol, text in requested_starts(market).items()}
    assert starts == {"AAPL": "2025-04-29", "MSFT": "2025-06-27", "NVDA": str(HISTORY[0].session_date)}
    first = last_sessions(utc("2025-05-01 20:00"), 20)[0]
    assert stored(database, "AAPL") == expected(MARKET, "AAPL", first.opens, DAY_CLOSES), "two months without a gap"


def test_a_forming_bar_is_stored_only_after_its_close(market: TwelveDataEmulator, database: Mongo) -> None:
    hop = ingest(market, database, history=3)
    CLOCK.now = DAY_OPENS + timedelta(minutes=7)
    first = hop.tick(["AAPL"])
    assert asdict(first.counts["AAPL"]) == counts(received=158, new=157, forming=1)
    assert max(stored(database, "AAPL")) == DAY_OPENS
    CLOCK.now = DAY_OPENS + timedelta(minutes=10)
    second = hop.tick(["AAPL"])
    assert asdict(second.counts["AAPL"]) == counts(received=159, new=1, unchanged=157, forming=1)
    assert stored(database, "AAPL") == expected(MARKET, "AAPL", HISTORY[-3].opens, DAY_OPENS + 2 * BAR)
    assert all(not any(item["revision"]) for item in database["bars"].find()), "never stored before its close"


def test_a_bar_that_closes_after_the_request_is_still_forming(database: Mongo) -> None:
    rows = MARKET.rows("AAPL", DAY_OPENS, DAY_OPENS + 2 * BAR)
    asked = DAY_OPENS + 2 * BAR - timedelta(milliseconds=50)
    hop = scripted(database, answer("AAPL", rows, asked), now=DAY_OPENS + 2 * BAR + timedelta(seconds=3))
    assert asdict(hop.tick(["AAPL"]).counts["AAPL"]) == counts(received=2, new=1, forming=1)


def test_a_correction_raises_the_revision_and_version_of_its_session_only(
    market: TwelveDataEmulator, database: Mongo
) -> None:
    hop = ingest(market, database)
    hop.tick(SYMBOLS)
    before = {item["_id"]: item for item in database["bars"].find()}
    ts = DAY_OPENS + 12 * BAR
    market.switches.correct("AAPL", ts, volume="424242")
    report = hop.tick(SYMBOLS)
    assert (report.counts["AAPL"].revised, report.counts["MSFT"].revised) == (1, 0)
    after = {item["_id"]: item for item in database["bars"].find()}
    changed = after.pop("AAPL|5min|2025-07-02")
    old = before.pop("AAPL|5min|2025-07-02")
    assert after == before
    assert (changed["version"], changed["first_seen_at"]) == (2, old["first_seen_at"])
    assert changed["updated_at"] > old["updated_at"]
    assert changed["run_id"] == report.run_id
    assert [place for place, count in enumerate(changed["revision"]) if count] == [12]
    assert stored(database, "AAPL")[ts][4] == 424242
    market.switches.correct("AAPL", ts, volume="424243")
    hop.tick(SYMBOLS)
    again = database["bars"].find_one({"_id": changed["_id"]})
    assert again
    assert (again["version"], again["revision"][12]) == (3, 2)


def test_a_tick_without_news_writes_no_bar(market: TwelveDataEmulator, database: Mongo) -> None:
    hop = ingest(market, database)
    hop.tick(SYMBOLS)
    before = [*database["bars"].find(sort=[("_id", 1)])]
    report = hop.tick(SYMBOLS)
    assert [*database["bars"].find(sort=[("_id", 1)])] == before
    assert report.total.received == report.total.unchanged == 2 * 3 * 78


def test_an_unknown_symbol_does_not_stop_the_others(market: TwelveDataEmulator, database: Mongo) -> None:
    reported: list[str] = []
    hop = ingest(market, database, history=1)
    report = hop.tick(["AAPL", "UNKNOWN", "MSFT"], on_symbol=reported.append)
    assert sorted(reported) == ["AAPL", "MSFT", "UNKNOWN"]
    assert {symbol: item.code for symbol, item in report.errors.items()} == {"UNKNOWN": 404}
    assert {symbol: item.new for symbol, item in report.counts.items()} == {"AAPL": 78, "MSFT": 78}
    assert report.outcome == PARTIAL


def test_a_symbols_error_in_a_batch_leaves_it_to_the_next_tick(market: TwelveDataEmulator, database: Mongo) -> None:
    hop = ingest(market, database, history=1)
    market.switches.fail("vendor_error", symbol="MSFT", status=404, text="This symbol is available starting with Grow")
    assert hop.tick(SYMBOLS).outcome == PARTIAL
    assert not stored(database, "MSFT")
    assert hop.tick(SYMBOLS).outcome == SUCCEEDED
    assert len(stored(database, "MSFT")) == 78


def test_a_tick_fails_when_every_symbol_is_refused(market: TwelveDataEmulator, database: Mongo) -> None:
    report = ingest(market, database).tick(["UNKNOWN", "BADNAME"])
    assert report.outcome == FAILED
    [run] = database["ledger"].find()
    assert (run["outcome"], [item["symbol"] for item in run["errors"]]) == (FAILED, ["UNKNOWN", "BADNAME"])


@pytest.mark.parametrize(
    "error",
    [
        VendorRefusedError("the credits of the day are used up"),
        UnavailableError("no answer"),
        ZeroDivisionError("secret"),
    ],
)
def test_a_failed_call_fails_the_tick_and_leaves_the_stored_bars(
    market: TwelveDataEmulator, database: Mongo, error: Exception
) -> None:
    """An earlier system emptied its store before it fetched, and reported success when the fetch failed."""
    ingest(market, database).tick(["AAPL", "MSFT"])
    before = {item["_id"]: item for item in database["bars"].find()}
    fresh = answer("NVDA", MARKET.rows("NVDA", DAY_OPENS, DAY_CLOSES))
    hop = scripted(database, fresh, error, now=DAY_CLOSES)
    with pytest.raises(type(error)):
        hop.tick(["NVDA", "AAPL", "MSFT"], run_id="broken")
    assert {item["_id"]: item for item in database["bars"].find({"symbol": {"$ne": "NVDA"}})} == before
    run = hop.ledger.last("ingest")
    assert run
    assert (run["outcome"], run["run_id"]) == (FAILED, "broken")
    assert run["error"] == (str(error) if isinstance(error, BarflowError) else "ZeroDivisionError")


def test_an_answer_may_come_in_parts_that_overlap_within_a_session(database: Mongo) -> None:
    noon = DAY_OPENS + 30 * BAR
    newer, older = MARKET.rows("AAPL", noon, DAY_CLOSES), MARKET.rows("AAPL", DAY_OPENS, noon + BAR)
    hop = scripted(database, answer("AAPL", newer), answer("AAPL", older), now=DAY_CLOSES)
    report = hop.tick(["AAPL"])
    assert asdict(report.counts["AAPL"]) == counts(received=79, new=78, unchanged=1)
    assert stored(database, "AAPL") == expected(MARKET, "AAPL", DAY_OPENS, DAY_CLOSES)


def test_a_symbol_without_bars_has_zero_counts(database: Mongo) -> None:
    report = scripted(database, Answer("AAPL", {}, [], utc_now()), now=DAY_CLOSES).tick(["AAPL"])
    assert (asdict(report.counts["AAPL"]), report.outcome) == (counts(), SUCCEEDED)


def test_bars_are_stored_in_utc_before_and_after_a_clock_change(market: TwelveDataEmulator, database: Mongo) -> None:
    """An earlier system stored New York time as if it were UTC."""
    CLOCK.now = utc("2025-11-03 21:00")
    ingest(market, database, history=2).tick(["AAPL"])
    assert all(call.params["timezone"] == "UTC" for call in market.requests)
    opens = {item["session_date"]: (item["ts"][0], item["ts"][-1]) for item in database["bars"].find()}
    assert opens == {
        "2025-10-31": (utc("2025-10-31 13:30"), utc("2025-10-31 19:55")),
        "2025-11-03": (utc("2025-11-03 14:30"), utc("2025-11-03 20:55")),
    }


def test_an_answer_in_new_york_time_is_rejected_whole(database: Mongo) -> None:
    rows = MARKET.rows("AAPL", DAY_OPENS, DAY_CLOSES)
    local: list[Row] = [(row[0].astimezone(NEW_YORK), *row[1:]) for row in rows]
    hop = scripted(database, answer("AAPL", local), now=DAY_CLOSES)
    found = hop.tick(["AAPL"]).counts["AAPL"]
    # Read as UTC, the bars from 13:30 on alone would be valid.
    assert (found.received, found.rejected) == (78, 78)
    assert {item["reasons"][0] for item in database["rejected_bars"].find()} == {"wrong_time_zone"}


def test_rejected_bars_beside_a_forming_one_are_an_error_of_the_symbol(database: Mongo) -> None:
    rows = MARKET.rows("AAPL", DAY_OPENS, DAY_OPENS + 3 * BAR)
    absurd: list[Row] = [(*row[:5], str(10**18)) for row in rows[:2]]
    report = scripted(
        database,
        answer("AAPL", [*absurd, rows[2]], DAY_OPENS + 3 * BAR),
        now=DAY_OPENS + 2 * BAR + timedelta(minutes=1),
    ).tick(["AAPL"])
    assert asdict(report.counts["AAPL"]) == counts(received=3, rejected=2, forming=1)
    assert report.outcome == "partial"
    with pytest.raises(BadInputError, match=r"rejected for AAPL \(2 of 3 out_of_bounds"):
        raise_errors(report)


def test_conflicting_versions_in_one_answer_do_not_replace_the_stored_bar(
    market: TwelveDataEmulator, database: Mongo
) -> None:
    """An earlier system dropped duplicates without an order and stored an arbitrary one."""
    hop = ingest(market, database, history=3)
    hop.tick(["AAPL"])
    before = [*database["bars"].find()]
    market.switches.fail("conflicting_duplicate")
    found = hop.tick(["AAPL"]).counts["AAPL"]
    assert asdict(found) == counts(received=235, unchanged=233, rejected=2)
    assert [*database["bars"].find()] == before


def with_jump(rows: list[Row], day: date, factor: float) -> list[Row]:
    """Return the bars with the prices from a day on multiplied by a factor."""

    def scale(text: str | None) -> str:
        return f"{float(text or 0) * factor:.5f}"

    return [
        (row[0], *map(scale, row[1:5]), row[5]) if row[0].date() >= day else row  # type: ignore[misc]
        for row in rows
    ]


@pytest.mark.parametrize(
    ("factor", "flag"), [(1 / 10, "possible_split 10:1"), (3.0, "possible_split 1:3"), (0.924, "price_jump")]
)
def test_a_price_jump_is_flagged_in_the_ledger_and_every_bar_is_stored(
    emulator: Callable[..., TwelveDataEmulator], database: Mongo, factor: float, flag: str
) -> None:
    rows = MARKET.rows("AAPL", HISTORY[-2].opens, DAY_CLOSES)
    bars = Recording(("AAPL", row) for row in with_jump(rows, HISTORY[-1].session_date, factor))
    api = emulator(bars)
    hop = ingest(api, database, history=2, clock=lambda: DAY_CLOSES)
    report = hop.tick(["AAPL"])
    assert asdict(report.counts["AAPL"]) == counts(received=156, new=156)
    run = hop.ledger.last("ingest")
    assert run
    [note] = run["notes"]
    assert note.startswith(f"AAPL: {flag}: ")
    assert note.endswith("at 2025-07-02 13:30 UTC")


def test_answers_are_stored_as_received_without_the_key(market: TwelveDataEmulator, database: Mongo) -> None:
    report = ingest(market, database, history=1).tick([*SYMBOLS, "UNKNOWN"])
    [raw] = database["raw_responses"].find()
    assert (raw["run_id"], raw["symbols"], raw["http_status"]) == (report.run_id, [*SYMBOLS, "UNKNOWN"], 200)
    close = as_value(MARKET.rows("AAPL", DAY_OPENS, DAY_OPENS + BAR)[0])["close"]
    assert close.encode() in zlib.decompress(raw["body"])
    assert utc_now() - raw["requested_at"] < timedelta(minutes=5)
    assert KEY not in everything(database)
    assert KEY not in str(vars(report))


def test_a_run_id_is_used_once(market: TwelveDataEmulator, database: Mongo) -> None:
    hop = ingest(market, database, history=1)
    hop.tick(["AAPL"], run_id="once")
    with pytest.raises(BarflowError, match="the ledger has a run once already"):
        hop.tick(["MSFT"], run_id="once")
    assert not stored(database, "MSFT")
