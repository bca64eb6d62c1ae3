"""Staging rejects malformed documents, merges concurrent writes, and loses nothing that MongoDB acknowledged."""

from __future__ import annotations

import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from bson.int64 import Int64
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure, WriteError
from ticks import end_state, expected, ingest, stored, utc
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS, MARKET

from barflow.errors import BadInputError, BarflowError, UnavailableError
from barflow.market.bars import SessionBars, document_key
from barflow.market.sessions import last_sessions, utc_now
from barflow.market.validation import validate
from barflow.staging.connection import DRIVER_DEFAULTS, UTC_AWARE, Document, connect
from barflow.staging.raw_answers import RawAnswers
from barflow.staging.sessions import Staging
from barflow.twelvedata.client import RawResponse
from emulators.twelvedata.server import TwelveDataEmulator
from local.mongo import start_mongo
from local.starting import free_port

Mongo = Database[Document]
DAY = DAY_OPENS.date()


def session_bars(symbol: str = "AAPL", day: date = DAY, first: int = 0, last: int = 78, **changes: Any) -> SessionBars:
    """Return bars of a session of the synthetic market. ``changes`` set a column to one value in all of them."""
    [traded] = [item for item in last_sessions(DAY_CLOSES, 30) if item.session_date == day]
    rows = MARKET.rows(symbol, traded.opens, traded.closes)[first:last]
    names = ("open", "high", "low", "close", "volume")
    values = [{"datetime": f"{row[0]:%Y-%m-%d %H:%M:%S}", **dict(zip(names, row[1:], strict=True))} for row in rows]
    found = validate(symbol, {}, values, DAY_CLOSES).sessions[day]
    return replace(found, **{name: [value] * len(found) for name, value in changes.items()})


@pytest.fixture
def staging(database: Mongo) -> Staging:
    made = Staging(database)
    made.ensure()
    return made


def test_the_first_tick_creates_collections_validator_and_indexes(market: TwelveDataEmulator, database: Mongo) -> None:
    ingest(market, database, history=1).tick(["AAPL"])
    assert set(database.list_collection_names()) >= {"bars", "raw_responses", "ledger"}
    [bars] = database.list_collections(filter={"name": "bars"})
    assert "$jsonSchema" in bars["options"]["validator"]
    assert indexes(database, "bars")["symbol", "session_date"]["unique"]
    assert ("updated_at",) in indexes(database, "bars")
    assert indexes(database, "raw_responses")["requested_at",]["expireAfterSeconds"] == 30 * 24 * 3600
    assert ("run_id",) in indexes(database, "raw_responses")
    assert ("symbol", "seen_at") in indexes(database, "rejected_bars")
    assert ("hop", "started_at") in indexes(database, "ledger")


def indexes(database: Mongo, collection: str) -> dict[tuple[str, ...], Document]:
    return {tuple(index["key"]): index for index in database[collection].list_indexes()}


def test_the_validator_of_an_older_version_is_replaced(database: Mongo) -> None:
    database.create_collection("bars", validator={"$jsonSchema": {"bsonType": "object"}})
    Staging(database).ensure()
    with pytest.raises(WriteError, match="validation"):
        database["bars"].insert_one({"_id": "AAPL|5min|2025-07-02"})


def test_two_ticks_may_create_the_collections_at_once(database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another tick may create a collection between the check and the creation. Some servers report that, some not."""
    Staging(database).ensure()
    [before] = database.list_collections(filter={"name": "bars"})
    monkeypatch.setattr(Database, "list_collections", lambda self, **options: iter(()))
    Staging(database).ensure()

    def answers(code: int) -> Callable[..., None]:
        def create(*args: object, **options: object) -> None:
            raise OperationFailure("no", code)

        return create

    monkeypatch.setattr(Database, "create_collection", answers(48))
    Staging(database).ensure()
    monkeypatch.setattr(Database, "create_collection", answers(13))
    with pytest.raises(UnavailableError, match="MongoDB could not create its collections and indexes: no"):
        Staging(database).ensure()
    monkeypatch.undo()
    assert [*database.list_collections(filter={"name": "bars"})] == [before]


@pytest.mark.parametrize(
    "wrong",
    [
        {"symbol": None},
        {"session_date": datetime(2025, 7, 2)},
        {"version": "1"},
        {"updated_at": "2025-07-02"},
        {"requested_at": None},
        {"first_seen_at": None},
        {"ts": ["2025-07-02 13:30:00"]},
        {"ts": []},
        {"open": ["211.5"]},
        {"high": 211.5},
        {"close": [211]},
        {"volume": [100]},
        {"volume": [100.0]},
        {"revision": [0.0]},
    ],
    ids=str,
)
def test_mongodb_rejects_a_malformed_document(staging: Staging, wrong: Document) -> None:
    staging.save([(session_bars(last=1), utc_now())], "run")
    document = staging.bars.find_one({}) or {}
    [name] = wrong
    with pytest.raises(WriteError, match="validation"):
        staging.bars.insert_one({**document, "_id": "other", "session_date": "2025-07-03"} | wrong)
    with pytest.raises(WriteError, match="validation"):
        staging.bars.update_one({"_id": document["_id"]}, {"$unset": {name: ""}})
    assert [*staging.bars.find()] == [document]


def test_the_error_of_a_rejected_write_is_one_line(staging: Staging) -> None:
    broken = replace(session_bars(last=2), high=["a price", "another"])
    with pytest.raises(
        BarflowError, match=r"^MongoDB could not store the bars, since it rejected a write: [^\n]+unchanged[.] [^\n]+$"
    ):
        staging.save([(broken, utc_now())], "run")


def test_volumes_are_stored_as_longs_and_prices_exactly(staging: Staging) -> None:
    staging.save([(session_bars(last=3, volume=7, high=210.0050049), utc_now())], "run")
    document = staging.bars.find_one({}) or {}
    assert document["volume"] == [7, 7, 7]
    assert {type(value) for value in document["volume"]} == {Int64}
    assert document["high"] == [210.0050049] * 3


class Interrupted(Staging):
    """Staging in which another run writes between the read and the write."""

    def __init__(self, database: Mongo, *others: SessionBars) -> None:
        super().__init__(database)
        self.others = [*others]

    def _by_key(self, keys: Sequence[str], shown: Document | None = None) -> Iterator[Document]:
        found = [*super()._by_key(keys, shown)]
        if self.others:
            Staging(self.database).save([(self.others.pop(0), utc_now())], "the other run")
        return iter(found)


def test_a_first_write_that_lost_a_race_is_merged(staging: Staging) -> None:
    slow = Interrupted(staging.database, session_bars(first=0, last=50))
    saved = slow.save([(session_bars(first=40, last=78), utc_now())], "slow")["AAPL"]
    assert (saved.new, saved.revised, saved.unchanged) == (28, 0, 10)
    assert stored(staging.database, "AAPL") == expected(MARKET, "AAPL", DAY_OPENS, DAY_CLOSES)


def test_a_change_that_lost_a_race_is_merged_and_the_other_sessions_are_stored_once(staging: Staging) -> None:
    days = [item.session_date for item in last_sessions(DAY_CLOSES, 4)]
    staging.save([(session_bars(day=day, last=10), utc_now()) for day in days], "first")
    # Two other runs change the second session, each between a read and a write of the slow one.
    slow = Interrupted(
        staging.database, session_bars(day=days[1], first=10, last=20), session_bars(day=days[1], first=20, last=30)
    )
    saved = slow.save([(session_bars(day=day, last=40), utc_now()) for day in days], "slow")["AAPL"]
    assert (saved.new, saved.revised, saved.unchanged) == (30 + 10 + 30 + 30, 0, 10 + 30 + 10 + 10)
    assert saved.sessions_changed == days
    lengths = {item["session_date"]: (len(item["ts"]), item["version"]) for item in staging.bars.find()}
    assert lengths == {str(day): (40, 4 if day == days[1] else 2) for day in days}


def test_idle_bars_with_the_values_of_other_bars_are_stored(staging: Staging) -> None:
    idle: dict[str, Any] = {"open": 10.0, "high": 10.0, "low": 10.0, "close": 10.0, "volume": 0}
    staging.save([(session_bars(last=3, **idle), utc_now())], "first")
    saved = staging.save([(session_bars(first=1, last=4, **idle), utc_now())], "second")["AAPL"]
    assert (saved.new, saved.revised, saved.unchanged) == (1, 0, 2)


def test_a_slow_older_answer_cannot_undo_a_correction(staging: Staging) -> None:
    early, late = utc_now(), utc_now() + timedelta(seconds=30)
    staging.save([(session_bars(last=10), early - timedelta(minutes=5))], "before")
    staging.save([(session_bars(last=10, volume=424242), late)], "corrected")
    saved = staging.save([(session_bars(last=12), early)], "slow")["AAPL"]
    assert (saved.new, saved.revised, saved.unchanged) == (2, 0, 10)
    document = staging.bars.find_one({}) or {}
    assert document["volume"][:10] == [424242] * 10
    assert len(document["ts"]) == 12, "it may fill gaps"
    other = staging.save([(session_bars(last=10), early + timedelta(seconds=9))], "slow too")["AAPL"]
    assert other.revised == 0, "filling a gap left the session's request time as it was"
    newer = staging.save([(session_bars(last=10), late + timedelta(seconds=1))], "newer")["AAPL"]
    assert newer.revised == 10


def test_each_session_of_a_save_has_its_own_request_time(staging: Staging) -> None:
    """With the oldest time for all of them, an answer from in between could undo the newest."""
    start = utc_now()
    moments = [start, start + timedelta(seconds=20)]
    staging.save([(session_bars("MSFT", last=5), moments[0]), (session_bars(last=5, volume=1), moments[1])], "batch")
    between = start + timedelta(seconds=10)
    saved = staging.save([(session_bars(last=5), between), (session_bars("MSFT", last=5, volume=1), between)], "slow")
    assert (saved["AAPL"].revised, saved["MSFT"].revised) == (0, 5)


def test_sessions_are_written_oldest_first(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next tick starts from the newest stored session, so it requests again what a killed tick left out."""
    days = [item.session_date for item in last_sessions(DAY_CLOSES, 5)]
    written: list[str] = []
    bulk_write = Collection.bulk_write

    def watched(self: Any, operations: Any, ordered: bool) -> Any:
        assert ordered
        written.extend(operation._doc["session_date"] for operation in operations)
        return bulk_write(self, operations, ordered=ordered)

    monkeypatch.setattr(Collection, "bulk_write", watched)
    staging.save([(session_bars(symbol, day), utc_now()) for day in reversed(days) for symbol in ("A", "B")], "run")
    assert written == sorted(written)
    assert len(written) == 10


def test_the_newest_session_of_each_symbol_is_found_however_old_it_is(staging: Staging) -> None:
    days = [item.session_date for item in last_sessions(DAY_CLOSES, 20)]
    newest = {"NOW": days[-1], "YESTERDAY": days[-2], "OLD": days[3]}
    staging.save(
        [(session_bars(name, day), utc_now()) for name, last in newest.items() for day in days if day <= last], "r"
    )
    assert staging.newest_sessions([*newest, "NEVER"], days[:-4:-1]) == newest
    assert staging.newest_sessions([*newest, "NEVER"], []) == newest


def test_a_symbols_sessions_are_read_by_a_range_of_days(staging: Staging) -> None:
    days = [item.session_date for item in last_sessions(DAY_CLOSES, 5)]  # three of June, two of July
    staging.save([(session_bars(name, day, last=2), utc_now()) for name in ("A", "B", "C") for day in days], "run")

    def read(*wanted: str) -> set[str]:
        return {document["_id"] for document in staging.between(*wanted)}

    assert read("A", "2025-06-01", "2025-06-31") == {document_key("A", day) for day in days[:3]}
    assert read("B", "2025-07-02", "2025-07-02") == {"B|5min|2025-07-02"}
    assert read("NEVER", "2025-07-01", "2025-07-31") == read("B", "2025-08-01", "2025-08-31") == set()


def test_documents_are_counted_by_symbol_day_and_time_of_change(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [item.session_date for item in last_sessions(DAY_CLOSES, 2)]
    staging.save([(session_bars(name, day, last=3), utc_now()) for name in ("A", "B") for day in days], "run")
    moment = utc_now()
    time.sleep(0.002)  # stamps are of whole milliseconds
    staging.save([(session_bars("B", last=5), utc_now())], "run")
    everything = [(item["_id"], (item["version"], item["bars"])) for item in staging.counts()]
    monkeypatch.setattr("barflow.staging.sessions.SYMBOLS_PER_COUNT", 1)
    monkeypatch.setattr("barflow.staging.sessions.DOCUMENTS_PER_COUNT", 3)
    assert sorted(everything) == sorted((item["_id"], (item["version"], item["bars"])) for item in staging.counts())
    assert len(everything) == 4
    assert dict(everything) == {
        "A|5min|2025-07-01": (1, 3),
        "A|5min|2025-07-02": (1, 3),
        "B|5min|2025-07-01": (1, 3),
        "B|5min|2025-07-02": (2, 5),
    }
    assert {item["_id"] for item in staging.counts(["A"], since=DAY)} == {"A|5min|2025-07-02"}
    [changed] = staging.counts(stamped_after=moment)
    assert [*staging.counts(["A"], stamped_after=moment)] == []
    assert (changed["_id"], changed["last"]) == ("B|5min|2025-07-02", DAY_OPENS + timedelta(minutes=20))


@pytest.mark.parametrize("ago", [1, 30, 31, 90, 500, 9000])
def test_the_newest_session_before_a_day_is_found_however_long_ago_it_was(staging: Staging, ago: int) -> None:
    staging.save([(session_bars(last=3), utc_now())], "run")
    [held] = staging.bars.find()
    for days in (ago, ago + 1, ago + 40):
        day = (DAY - timedelta(days=days)).isoformat()
        staging.bars.insert_one({**held, "_id": f"AAPL|5min|{day}", "session_date": day})
    assert staging.newest_before(["AAPL", "NONE"], DAY) == {"AAPL": (DAY - timedelta(days=ago)).isoformat()}


def test_an_answer_too_large_for_a_document_is_stored_in_parts(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barflow.staging.raw_answers.PART_BYTES", 300)
    body = str([*range(1000)]).encode()
    RawAnswers(staging.database).store(RawResponse(body, ("AAPL",), utc_now(), 200), "run")
    parts = [*staging.database["raw_responses"].find(sort=[("part", 1)])]
    assert len(parts) > 1
    assert {(part["parts"], part["encoding"], part["run_id"]) for part in parts} == {(len(parts), "zlib", "run")}
    assert zlib.decompress(b"".join(part["body"] for part in parts)) == body


def test_an_answer_that_is_not_text_is_stored_too(staging: Staging) -> None:
    RawAnswers(staging.database).store(RawResponse(b'{"status": \xff', ("AAPL",), utc_now(), 502), "run")
    assert staging.database["raw_responses"].count_documents({"http_status": 502}) == 1


def test_the_error_without_a_server_is_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DRIVER_DEFAULTS, "serverSelectionTimeoutMS", 300)
    with pytest.raises(UnavailableError) as caught:
        connect(f"mongodb://reader:hunter2@127.0.0.1:{free_port()}/")
    text = str(caught.value)
    assert text.startswith("MongoDB could not be reached: 127.0.0.1:")
    assert "BARFLOW_MONGODB_URI" in text
    assert "Topology" not in text, "no internals of the driver"
    assert "\n" not in text
    assert "hunter2" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "no traceback of the driver, which may hold the URI"


@pytest.mark.parametrize(
    "uri",
    ["postgresql://u:hunter2@h/", "mongodb://u:hunter2@", "mongodb://u:hunter2@h:port", "mongodb://u:hun/ter2@h/"],
)
def test_a_malformed_uri_is_bad_input_and_is_not_shown(uri: str) -> None:
    with pytest.raises(BadInputError, match="BARFLOW_MONGODB_URI is not a MongoDB URI") as caught:
        connect(uri)
    assert "ter2" not in str(caught.value)


class Server:
    """A MongoDB server that a test can kill."""

    def __init__(self, state: Path) -> None:
        (state / "logs").mkdir()
        self.state = state

    def start(self) -> Mongo:
        uri = start_mongo(self.state, self._remember, print)
        client: MongoClient[Document] = MongoClient(uri, serverSelectionTimeoutMS=1000)
        return client.get_database("barflow", codec_options=UTC_AWARE)

    def _remember(self, process: subprocess.Popen[bytes], number: int) -> None:
        self.process = process

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.kill()


def test_mongodb_killed_during_a_tick_loses_nothing_and_the_next_tick_completes_it(
    server: Server, market: TwelveDataEmulator, database: Mongo
) -> None:
    symbols = ["AAPL", "MSFT", "NVDA", "GOOGL", "TSLA", "AMD"]
    opened = server.start()
    ingest(market, opened).tick(symbols[:2])
    acknowledged = {item["_id"]: item for item in opened["bars"].find()}
    CLOCK.now = utc(
        "2025-07-03 17:00"
    )  # the close of a half day: one new session, and other symbols for the first time
    hop = ingest(market, opened)
    hop.staging = KilledServerStaging(opened, server)
    with pytest.raises(UnavailableError, match=r"^MongoDB could not [^\n]+, then run the same command again[.]$"):
        hop.tick(symbols)

    restarted = server.start()
    found = {item["_id"]: item for item in restarted["bars"].find()}
    assert {key: value for key, value in found.items() if key in acknowledged} == acknowledged
    for symbol in symbols[2:]:
        stored_keys = sorted(key for key, item in found.items() if item["symbol"] == symbol)
        assert stored_keys == requested_keys(symbol)[: len(stored_keys)], (
            "no session before the newest stored one is missing"
        )
    assert restarted["ledger"].count_documents({"outcome": "running"}) == 1, "the run that died"
    ingest(market, restarted).tick(symbols)

    CLOCK.now = DAY_CLOSES
    ingest(market, database).tick(symbols[:2])
    CLOCK.now = utc("2025-07-03 17:00")
    ingest(market, database).tick(symbols)
    assert end_state(restarted) == end_state(database)


def requested_keys(symbol: str) -> list[str]:
    """Return the keys of the sessions that a first run requests, oldest first."""
    return [document_key(symbol, item.session_date) for item in last_sessions(CLOCK(), 20)]


class KilledServerStaging(Staging):
    """Staging whose server is killed while it writes."""

    def __init__(self, database: Mongo, server: Server) -> None:
        super().__init__(database)
        self.server = server

    def save(self, sessions: Any, run_id: str) -> Any:
        Timer(0.1, self.server.process.kill).start()  # this process, since self.server may have another one by then
        return super().save(sessions, run_id)
