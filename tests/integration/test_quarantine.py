"""Every rejected bar is stored with its reasons and payload, and can be replayed (guarantee G5)."""

from __future__ import annotations

import uuid
import zlib
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.database import Database
from ticks import SYMBOLS, answer, as_value, counts, expected, ingest, scripted, stored, utc
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS, MARKET, reset

from barflow.errors import BadInputError
from barflow.market.sessions import BAR, sessions_between, utc_now
from barflow.market.validation import REASONS
from barflow.operations.expiry import expire_rejected
from barflow.pipeline.ingest_report import raise_errors
from barflow.pipeline.replay import replay_rejected
from barflow.staging.connection import Document, connect
from barflow.staging.ledger import Ledger
from barflow.staging.quarantine import MAX_PAYLOAD_BYTES, Quarantine, received_row
from barflow.staging.sessions import Staging
from barflow.twelvedata.client import Answer
from emulators.twelvedata.bar_source import Row
from emulators.twelvedata.server import TwelveDataEmulator
from emulators.twelvedata.switches import VALUE_KINDS

Mongo = Database[Document]
SPOILED = DAY_OPENS + 40 * BAR
DAY = sessions_between(DAY_OPENS.date(), DAY_OPENS.date())[0]

# By fault of the emulator: the reason code that it leads to, and how many of 78 bars are rejected.
REASON_OF = {
    "missing_field": ("missing_field", 1),
    "null_price": ("missing_field", 1),
    "nan_price": ("not_a_number", 1),
    "text_price": ("not_a_number", 1),
    "zero_price": ("non_positive_price", 1),
    "negative_price": ("non_positive_price", 1),
    "high_below_low": ("ohlc_inconsistent", 1),
    "negative_volume": ("negative_volume", 1),
    "bad_timestamp": ("bad_timestamp", 1),
    "off_grid": ("off_grid", 1),
    "outside_session": ("outside_session", 1),
    "future_bar": ("future_bar", 1),
    "conflicting_duplicate": ("conflicting_duplicate", 1),
    "huge_price": ("out_of_bounds", 1),
    "huge_volume": ("out_of_bounds", 1),
    "new_york_times": ("wrong_time_zone", 78),
    "wrong_symbol": ("wrong_symbol", 78),
    "giant_row": ("ohlc_inconsistent", 1),
    "nested_row": ("not_a_number", 1),
    "wrong_interval": ("wrong_interval", 78),
    "wrong_currency": ("wrong_currency", 78),
    "wrong_exchange": ("wrong_exchange", 78),
    "wrong_type": ("wrong_type", 78),
}


def test_every_fault_of_a_value_and_every_reason_code_is_tested() -> None:
    assert set(REASON_OF) | {"duplicate", "unordered"} == set(VALUE_KINDS)
    assert {code for code, _ in REASON_OF.values()} == set(REASONS)


@pytest.mark.parametrize("kind", REASON_OF)
def test_a_rejected_bar_is_stored_with_its_code_and_payload_and_the_others_as_bars(
    market: TwelveDataEmulator, database: Mongo, kind: str
) -> None:
    reason, lost = REASON_OF[kind]
    market.switches.fail(kind, symbol="AAPL", ts=SPOILED)  # type: ignore[arg-type]
    report = ingest(market, database, history=1).tick(SYMBOLS)
    found = report.counts["AAPL"]
    assert (found.received, found.new) == (found.rejected + 78 - lost, 78 - lost)
    assert asdict(report.counts["MSFT"]) == counts(received=78, new=78)
    found_rejected = [*database["rejected_bars"].find()]
    assert len(found_rejected) == found.rejected
    sent = orjson.loads(zlib.decompress(database["raw_responses"].find_one()["body"]))["AAPL"]["values"]  # type: ignore[index]
    for item in found_rejected:
        assert reason in item["reasons"]
        assert received_row(item) in sent, "exactly as received"
        assert (item["symbol"], item["run_id"], item["replayed_at"]) == ("AAPL", report.run_id, None)
    bars = expected(MARKET, "AAPL", DAY_OPENS, DAY_CLOSES)
    assert stored(database, "AAPL") == {ts: v for ts, v in bars.items() if lost == 1 and ts != SPOILED}
    assert report.outcome == ("partial" if lost == 78 else "succeeded")
    if lost == 78:
        with pytest.raises(BadInputError, match=f"Every bar was rejected for AAPL .*{reason}.* 1 other symbol was"):
            raise_errors(report)


@pytest.mark.parametrize(("kind", "note"), [("duplicate", None), ("unordered", "unordered: the answer was sorted")])
def test_an_unordered_or_duplicated_answer_is_stored_completely(
    market: TwelveDataEmulator, database: Mongo, kind: Any, note: str | None
) -> None:
    market.switches.fail(kind, symbol="AAPL", ts=SPOILED)
    report = ingest(market, database, history=1).tick(["AAPL"])
    repeated = int(kind == "duplicate")
    assert asdict(report.counts["AAPL"]) == counts(received=78 + repeated, new=78, unchanged=repeated)
    assert stored(database, "AAPL") == expected(MARKET, "AAPL", DAY_OPENS, DAY_CLOSES)
    assert report.notes.get("AAPL", []) == ([note] if note else [])
    assert not database["rejected_bars"].count_documents({})


faults = st.fixed_dictionaries(
    {"kind": st.sampled_from(sorted(VALUE_KINDS)), "symbol": st.sampled_from(SYMBOLS)},
    optional={
        "ts": st.integers(0, 79).map(lambda slot: DAY_OPENS + slot * BAR),
        "field": st.sampled_from(["open", "high", "low", "close", "volume", "datetime"]),
    },
)
moments = st.integers(0, 90).map(lambda minutes: DAY_CLOSES + timedelta(minutes=minutes - 60))
ticks = st.lists(st.tuples(moments, st.lists(faults, max_size=2)), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None)
@given(ticks=ticks)
def test_each_tick_balances_and_loses_no_bar_whatever_the_answers_hold(
    market_server: TwelveDataEmulator, mongodb_uri: str, ticks: list[tuple[datetime, list[dict[str, Any]]]]
) -> None:
    api, database = reset(market_server), connect(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}")
    hop = ingest(api, database, history=1)
    stored_bars = rejected = 0
    for moment, faulty in sorted(ticks, key=lambda tick: tick[0]):
        CLOCK.now = moment
        api.switches.clear()
        for fault in faulty:
            api.switches.fail(**fault)
        report = hop.tick(SYMBOLS)
        raw: dict[str, Any] = {}
        for answered in database["raw_responses"].find({"run_id": report.run_id}):
            body = orjson.loads(zlib.decompress(answered["body"]))
            # Symbols whose newest sessions differ are requested one by one, and such an answer has no symbol as key.
            raw |= body if len(answered["symbols"]) > 1 else {answered["symbols"][0]: body}
        for symbol in SYMBOLS:
            assert report.counts[symbol].received == len(raw[symbol]["values"])
            assert report.counts[symbol].balanced
        bars_now = sum(len(item["ts"]) for item in database["bars"].find())
        rejected_now = sum(item["times"] for item in database["rejected_bars"].find())
        assert (report.total.new, report.total.rejected) == (bars_now - stored_bars, rejected_now - rejected)
        stored_bars, rejected = bars_now, rejected_now
    api.switches.clear()
    CLOCK.now = DAY_CLOSES + timedelta(hours=1)
    hop.tick(SYMBOLS)
    for symbol in SYMBOLS:
        missing = expected(MARKET, symbol, DAY_OPENS, DAY_CLOSES).items() - stored(database, symbol).items()
        assert not missing, "a good answer brings the bars that the bad ones lacked"
    database.client.close()


def test_the_same_rejection_in_a_later_tick_is_counted_in_one_document(
    market: TwelveDataEmulator, database: Mongo
) -> None:
    hop = ingest(market, database, history=3)
    market.switches.fail("zero_price", symbol="AAPL", ts=SPOILED, times=2)
    first, second = hop.tick(["AAPL"]), hop.tick(["AAPL"])
    assert (first.counts["AAPL"].rejected, second.counts["AAPL"].rejected) == (1, 1)
    [item] = database["rejected_bars"].find()
    assert (item["times"], item["run_id"]) == (2, first.run_id)
    assert item["seen_at"] < item["last_seen_at"]


@pytest.mark.parametrize(
    "odd", [{"volume": 2**64 - 1}, {"nul\0": "x"}, {"$set": {"a.b": 1}}, {"deep": [[[["x"]]]]}, {"volume": "\0"}]
)
def test_a_row_that_bson_cannot_hold_is_stored_too(database: Mongo, odd: dict[str, Any]) -> None:
    good = [as_value(row) for row in MARKET.rows("AAPL", DAY_OPENS, DAY_CLOSES)]
    bad = {**good[7], **odd, "close": "n/a"}
    sent = Answer("AAPL", {"symbol": "AAPL"}, [*good[:7], bad, *good[8:]], utc_now())
    found = scripted(database, sent, now=DAY_CLOSES).tick(["AAPL"]).counts["AAPL"]
    assert asdict(found) == counts(received=78, new=77, rejected=1)
    [item] = database["rejected_bars"].find()
    assert received_row(item) == bad


GIANT, DEEP = "9" * 17_000_000, orjson.loads("[" * 1000 + "]" * 1000)


@pytest.mark.parametrize(
    ("odd", "note"), [({"close": GIANT}, "17,000,"), ({"close": DEEP}, "too deeply"), ({"x" * 70_000: "n/a"}, "70,")]
)
def test_a_row_that_mongodb_cannot_hold_is_cut_with_a_note_and_fails_no_tick(
    database: Mongo, odd: dict[str, Any], note: str
) -> None:
    good = [as_value(row) for row in MARKET.rows("AAPL", DAY_OPENS, DAY_CLOSES)]
    bad = {**good[7], "close": "n/a", **odd}
    sent = Answer("AAPL", {"symbol": "AAPL"}, [*good[:7], bad, *good[8:]], utc_now())
    for _ in range(2):  # the same rejection again is counted
        found = scripted(database, sent, now=DAY_CLOSES).tick(["AAPL"]).counts["AAPL"]
    assert (found.received, found.unchanged, found.rejected) == (78, 77, 1)
    [item] = database["rejected_bars"].find()
    assert note in item["note"]
    assert len(item["payload"]) <= MAX_PAYLOAD_BYTES
    assert item["times"] == 2
    assert replay(database) == {"stored": 0, "unchanged": 0, "refused": {"not_a_number": 1}}


def test_rejected_bars_expire_when_no_answer_holds_them(market: TwelveDataEmulator, database: Mongo) -> None:
    market.switches.fail("zero_price", symbol="AAPL", ts=SPOILED)
    ingest(market, database, history=1).tick(["AAPL"])
    [seen] = [item["last_seen_at"] for item in database["rejected_bars"].find()]
    settings = SimpleNamespace(rejected_days=30)
    stores: Any = SimpleNamespace(database=database, settings=settings)
    assert expire_rejected(stores, seen + timedelta(days=30)) == 0
    assert expire_rejected(stores, seen + timedelta(days=30, seconds=1)) == 1


def reject_as_future(database: Mongo, *rows: Row) -> None:
    """Run a tick whose clock is ten minutes slow, so that it rejects good bars as bars from the future."""
    asked = utc_now() - timedelta(minutes=1)
    report = scripted(database, answer("AAPL", rows, asked), now=DAY_OPENS - timedelta(minutes=10)).tick(["AAPL"])
    assert report.counts["AAPL"].rejected == len(rows)


def replay(database: Mongo, **query: Any) -> dict[str, Any]:
    return vars(replay_rejected(database, Quarantine(database).find(**query), DAY_CLOSES))


def test_a_rejected_bar_is_stored_by_a_replay_once_its_reason_is_gone(database: Mongo) -> None:
    rows = MARKET.rows("AAPL", DAY_OPENS, DAY_OPENS + 3 * BAR)
    reject_as_future(database, *rows)
    quarantine = Quarantine(database)
    assert quarantine.counts() == {"AAPL": 3}
    assert replay(database) == {"stored": 3, "unchanged": 0, "refused": {}}
    assert stored(database, "AAPL") == expected(MARKET, "AAPL", DAY_OPENS, DAY_OPENS + 3 * BAR)
    assert quarantine.find() == []
    assert quarantine.counts() == {}
    assert [bool(item["replayed_at"]) for item in quarantine.find(waiting=False)] == [True] * 3
    assert replay(database) == {"stored": 0, "unchanged": 0, "refused": {}}


def test_an_archive_that_is_published_during_a_replay_is_not_complete_beyond_its_start(
    database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    reject_as_future(database, *MARKET.rows("AAPL", DAY_OPENS, DAY_OPENS + 2 * BAR))
    published: list[datetime] = []
    save = Staging.save

    def save_after_process(*given: Any, **named: Any) -> Any:
        published.append(Ledger(database).all_stored_until())
        return save(*given, **named)

    monkeypatch.setattr(Staging, "save", save_after_process)
    replay(database)
    [document] = database["bars"].find()
    assert len(published) == 2
    assert max(published) <= min(known.replace(tzinfo=UTC) for known in document["known_from"])
    assert Ledger(database).all_stored_until() > max(published)


def test_a_replay_fills_gaps_and_does_not_undo_newer_bars(market: TwelveDataEmulator, database: Mongo) -> None:
    first, second, third = MARKET.rows("AAPL", DAY_OPENS, DAY_OPENS + 3 * BAR)
    reject_as_future(database, (*first[:5], "1"), third)
    hop = scripted(database, answer("AAPL", [first, second]), now=DAY_CLOSES)
    hop.tick(["AAPL"])
    assert replay(database) == {"stored": 1, "unchanged": 1, "refused": {}}
    assert stored(database, "AAPL") == expected(MARKET, "AAPL", DAY_OPENS, DAY_OPENS + 3 * BAR)


def test_a_replayed_correction_is_a_revision(market: TwelveDataEmulator, database: Mongo) -> None:
    first = MARKET.rows("AAPL", DAY_OPENS, DAY_OPENS + BAR)[0]
    before = answer("AAPL", [first], utc_now() - timedelta(minutes=5))
    scripted(database, before, now=DAY_CLOSES).tick(["AAPL"])
    reject_as_future(database, (*first[:5], "1"))
    assert replay(database)["stored"] == 1
    [document] = database["bars"].find()
    assert (document["volume"], document["revision"], document["version"]) == ([1], [1], 2)


def test_an_interrupted_replay_may_be_repeated(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    reject_as_future(database, *MARKET.rows("AAPL", DAY_OPENS, DAY_OPENS + 3 * BAR))
    waiting = Quarantine(database).find()
    replay_rejected(database, waiting[:1], DAY_CLOSES)
    database["rejected_bars"].update_many({}, {"$set": {"replayed_at": None}})  # stored, but not marked as replayed
    assert replay(database) == {"stored": 2, "unchanged": 1, "refused": {}}


@pytest.mark.parametrize("kind", [kind for kind, (_, lost) in REASON_OF.items() if lost == 78])
def test_a_reason_that_depends_on_the_whole_answer_stays(
    market: TwelveDataEmulator, database: Mongo, kind: Any
) -> None:
    market.switches.fail("conflicting_duplicate", symbol="AAPL")
    market.switches.fail(kind, symbol="MSFT")
    ingest(market, database, history=1).tick(SYMBOLS)
    refused = {"conflicting_duplicate": 2, REASON_OF[kind][0]: 78}
    assert replay(database) == {"stored": 0, "unchanged": 0, "refused": refused}
    assert Quarantine(database).counts() == {"AAPL": 2, "MSFT": 78}


def test_rejected_bars_are_found_by_symbol_reason_and_start_of_their_id(
    market: TwelveDataEmulator, database: Mongo
) -> None:
    market.switches.fail("zero_price", symbol="AAPL")
    market.switches.fail("off_grid", symbol="MSFT")
    ingest(market, database, history=1).tick(SYMBOLS)
    quarantine = Quarantine(database)
    assert [item["symbol"] for item in quarantine.find(["AAPL"])] == ["AAPL"]
    [off_grid] = quarantine.find(reason="off_grid")
    assert off_grid["symbol"] == "MSFT"
    assert quarantine.find(["AAPL"], "off_grid") == []
    assert len(quarantine.find(limit=1)) == 1
    assert quarantine.get(off_grid["_id"][:8]) == off_grid
    assert quarantine.get("") is None, "two ids start with it"
    assert quarantine.get("no such id") is None


def test_a_bar_rejected_under_an_old_calendar_is_stored_after_an_update(
    database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = DAY_OPENS + 10 * BAR
    rows = MARKET.rows("AAPL", DAY_OPENS, end)
    with monkeypatch.context() as patch:
        patch.setattr("barflow.market.validation.parse_slots", {}.__getitem__)
        patch.setattr("barflow.market.validation.parse_slot", lambda text: None)
        report = scripted(database, answer("AAPL", rows), now=utc("2025-07-30 20:00")).tick(["AAPL"])
    assert report.counts["AAPL"].rejected == 10
    assert replay(database, reason="outside_session")["stored"] == 10
    assert stored(database, "AAPL") == expected(MARKET, "AAPL", DAY_OPENS, end)
