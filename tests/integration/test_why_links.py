"""`barflow why` on real stores: it follows a bar through every hop, and names each link that is missing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import random_session, revised
from psycopg.types.json import Jsonb
from pymongo.database import Database

from barflow.alerts.message import Message
from barflow.alerts.outbox import Outbox
from barflow.cli.main import main
from barflow.cli.why import _deliveries
from barflow.errors import BadInputError, UnavailableError
from barflow.lake.manifests import Manifest, Partition
from barflow.lake.partitions import Lake
from barflow.market.actions import Dividend, Split
from barflow.market.bars import SessionBars
from barflow.market.instruments import Instruments, parse_instruments
from barflow.market.sessions import BAR, utc_now
from barflow.market.validation import Rejected
from barflow.operations.why import collect, published, staged
from barflow.operations.why.collect import NoSuchBarError, Sources, why
from barflow.operations.why.story import Why
from barflow.pipeline.partition_tasks import write_partition
from barflow.pipeline.process import promote
from barflow.pipeline.replay import replay_rejected
from barflow.pipeline.session_columns import columns_of
from barflow.staging.actions import Actions, Answer
from barflow.staging.connection import Document, connect
from barflow.staging.ledger import SUCCEEDED, Ledger
from barflow.staging.quarantine import Quarantine
from barflow.staging.raw_answers import ANSWERS_KEPT, RawAnswers
from barflow.staging.sessions import Staging
from barflow.twelvedata.client import RawResponse

DAY, SLOT = "2025-07-02", 13
BARS = random_session("AAPL", DAY, bars=20)
TS = BARS.ts[SLOT]
NEW_YORK_TIME = "2025-07-02 10:35"
NAMES = ("open", "high", "low", "close", "volume")


def values(bars: SessionBars, slot: int = SLOT) -> dict[str, float]:
    return {name: getattr(bars, name)[slot] for name in NAMES}


def row(bars: SessionBars, slot: int = SLOT) -> dict[str, str]:
    """Return a bar as Twelve Data sends it."""
    return {
        "datetime": f"{bars.ts[slot]:%Y-%m-%d %H:%M:%S}",
        **{name: repr(it) for name, it in values(bars, slot).items()},
    }


def rows(bars: SessionBars) -> list[dict[str, str]]:
    return [row(bars, slot) for slot in reversed(range(len(bars)))]


@dataclass
class Pipeline:
    """The stores of a test, and the hops as the product's own functions write them, without Spark."""

    database: Database[Document]
    naive: Database[Document]
    lake: Lake
    dsn: str
    connection: psycopg.Connection[Any]
    instruments: Instruments = field(default_factory=Instruments)
    asked: list[datetime] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.staging, self.ledger = Staging(self.database), Ledger(self.database)
        self.answers = RawAnswers(self.database)
        for store in (self.staging, self.answers, self.ledger, Quarantine(self.database), Outbox(self.database)):
            store.ensure()

    @property
    def sources(self) -> Sources:
        return Sources(lambda: self.database, lambda: self.lake, lambda: nullcontext(self.connection), self.instruments)

    def why(self, symbol: str = "AAPL", time: str = NEW_YORK_TIME, **changed: Any) -> Why:
        return why(replace(self.sources, **changed), symbol, time)

    def answer(
        self, run_id: str, body: bytes, symbols: Sequence[str] = ("AAPL",), at: datetime | None = None
    ) -> datetime:
        """Store an answer. Return the moment of its request, which differs from every other one."""
        moment = at or max(utc_now(), *(item + timedelta(milliseconds=50) for item in self.asked), utc_now())
        self.asked.append(moment)
        self.answers.store(RawResponse(body, tuple(symbols), moment, 200), run_id)
        time.sleep(APART)
        return moment

    def ingest(
        self, run_id: str, *sessions: SessionBars, body: bytes | None = None, at: datetime | None = None
    ) -> None:
        """Answer and store sessions, in one batch."""
        time.sleep(APART)
        self.ledger.start("ingest", run_id)
        by_symbol = {item.symbol: {"values": rows(item), "status": "ok"} for item in sessions}
        single = json.dumps(next(iter(by_symbol.values())) if len(by_symbol) == 1 else by_symbol).encode()
        moment = self.answer(run_id, body or single, [*by_symbol], at)
        self.staging.save([(item, moment) for item in sessions], run_id)
        self.ledger.finish(run_id, SUCCEEDED, {})

    def process(self, run_id: str, symbol: str = "AAPL", day: str = DAY) -> None:
        """Publish a staged session."""
        time.sleep(APART)
        month = day[:7]
        self.ledger.start("process", run_id, lake=self.lake.uri, symbols=None)
        naive = Staging(self.naive)
        documents = list(naive.between(symbol, day, day))
        written = write_partition(
            self.lake,
            run_id,
            (symbol, month),
            [*map(columns_of, documents)],
            naive.versions.of([item["_id"] for item in documents]),
        )
        promote(self.lake, [written])
        versions = {day: counts[0] for day, counts in written.sessions.items()}
        self.lake.publish(Manifest(run_id, utc_now(), (Partition(symbol, month, written.rows, versions),)))
        self.ledger.finish(run_id, SUCCEEDED, {symbol: {"rows": written.rows}}, manifest=run_id)

    def load(self, load_id: str, manifests: Sequence[str], bars: SessionBars = BARS) -> None:
        """Load a session with the longer bars that contain its bar, and the ledger row."""
        time.sleep(APART)
        one = values(bars)
        slots = {"bar_5min": SLOT, "bar_30min": 12, "bar_1h": 12, "bar_1d": 0}
        run = self.connection.execute
        for table, slot in slots.items():
            run(f"delete from market.{table} where symbol = %s", [bars.symbol])
            run(
                f"insert into market.{table} (symbol, bar_start, session_date, open, high, low, close, volume, vwap, "
                "bar_count, expected_bars, load_id) values (%s, %s, %s, %s, %s, %s, %s, %s, null, 1, 1, %s)",
                [bars.symbol, bars.ts[slot], bars.session_date, *one.values(), load_id],
            )
        run("delete from market.daily_metrics where symbol = %s", [bars.symbol])
        run(
            "insert into market.daily_metrics (symbol, session_date, close, rsi_14, load_id) "
            "values (%s, %s, 1, 55, %s)",
            [bars.symbol, bars.session_date, load_id],
        )
        run(
            "insert into ops.load_run (load_id, manifests, started_at, finished_at, rows, outcome) values "
            "(%s, %s, clock_timestamp(), clock_timestamp(), %s, 'loaded')",
            [load_id, list(manifests), Jsonb({})],
        )


@pytest.fixture
def pipeline(database: Database[Document], mongodb_uri: str, warehouse_dsn: str, tmp_path: Path) -> Iterator[Pipeline]:
    naive = connect(mongodb_uri, database.name, tz_aware=False)
    with psycopg.connect(warehouse_dsn, autocommit=True, options="-c timezone=UTC") as connection:
        yield Pipeline(database, naive, Lake(str(tmp_path / "lake")), warehouse_dsn, connection)
    naive.client.close()


REVISED = revised(BARS, SLOT, close=BARS.low[SLOT], volume=BARS.volume[SLOT] + 7)
AGAIN = revised(REVISED, SLOT, close=BARS.high[SLOT])
# The ledger counts in milliseconds, and no two real runs are that near to each other.
APART = 0.01
NEVER_FETCHED = "The splits and dividends of AAPL were never fetched"


def two_versions(pipeline: Pipeline) -> None:
    """Bring a bar and its revision through every hop, each by its own runs."""
    pipeline.ingest("i-1", BARS, random_session("MSFT", DAY, bars=20))
    pipeline.process("p-1")
    pipeline.load("l-1", ["p-1"])
    pipeline.ingest("i-2", REVISED)
    pipeline.process("p-2")
    pipeline.load("l-2", ["p-2"], REVISED)


def only_never_fetched(found: Why) -> bool:
    return len(found.missing) == 1 and NEVER_FETCHED in found.missing[0]


def test_each_version_is_followed_from_its_answer_to_its_load(pipeline: Pipeline) -> None:
    two_versions(pipeline)
    found = pipeline.why()
    first, second = found.versions
    assert [item.model_dump(include={*NAMES}) for item in found.versions] == [values(BARS), values(REVISED)]
    assert [(item.manifest, item.load_id) for item in found.versions] == [("p-1", "l-1"), ("p-2", "l-2")]
    assert first.published_at < first.loaded_at < second.known_from < second.published_at < second.loaded_at  # type: ignore[operator]
    assert (first.known_until, second.known_until) == (second.known_from, None)
    assert [(item.revision, item.run_id, item.symbols, item.credits) for item in found.answers] == [
        (0, "i-1", ["AAPL", "MSFT"], 2),
        (1, "i-2", ["AAPL"], 1),
    ]
    assert [item.rows for item in found.answers] == [[row(BARS)], [row(REVISED)]]
    assert [item.requested_at for item in found.answers] == [first.known_from, second.known_from]
    assert (found.file, found.manifest, found.load_id) == (pipeline.lake.path("AAPL", "2025-07"), "p-2", "l-2")
    assert found.stored.agree
    assert {name: item["bar_start"] for name, item in found.aggregates.items()} == {
        "bar_30min": BARS.ts[12],
        "bar_1h": BARS.ts[12],
        "bar_1d": BARS.ts[0],
    }
    assert found.daily_metrics is not None
    assert found.daily_metrics["rsi_14"] == 55
    assert only_never_fetched(found)


def test_a_bar_that_did_not_change_names_its_own_manifest_and_the_session_s(pipeline: Pipeline) -> None:
    two_versions(pipeline)
    other = pipeline.why(time="2025-07-02T13:30Z")
    assert [item.manifest for item in other.versions] == ["p-1"]
    assert other.manifest == "p-2"


def test_the_hop_that_has_not_run_yet_is_named(pipeline: Pipeline) -> None:
    pipeline.ingest("i-1", BARS)
    staged = pipeline.why()
    pipeline.process("p-1")
    processed = pipeline.why()
    pipeline.load("l-1", ["p-1"])
    pipeline.ingest("i-2", REVISED)
    revised_only = pipeline.why()
    pipeline.process("p-2")
    not_loaded = pipeline.why()
    assert "The lake does not hold the bar yet. The next `barflow process` writes it." in staged.missing
    assert (staged.file, staged.manifest, staged.versions[0].manifest, staged.stored.lake) == (None, None, None, None)
    assert "The warehouse does not hold the bar yet. The next `barflow aggregate` loads it." in processed.missing
    assert (processed.manifest, processed.load_id, processed.aggregates) == ("p-1", None, {})
    assert any("The lake holds an earlier version" in line for line in revised_only.missing)
    assert not revised_only.stored.agree
    assert [item.manifest for item in revised_only.versions] == ["p-1", None]
    assert any("The warehouse holds an earlier version" in line for line in not_loaded.missing)
    assert [(item.manifest, item.load_id) for item in not_loaded.versions] == [("p-1", "l-1"), ("p-2", None)]
    assert (not_loaded.manifest, not_loaded.load_id) == ("p-2", "l-1")


def test_a_version_that_was_superseded_before_it_was_published_has_the_manifest_of_its_history(
    pipeline: Pipeline,
) -> None:
    pipeline.ingest("i-1", BARS)
    pipeline.ingest("i-2", REVISED)
    pipeline.process("p-1")
    pipeline.ingest("i-3", AGAIN)
    pipeline.process("p-2")
    assert [item.manifest for item in pipeline.why().versions] == ["p-1", "p-1", "p-2"]


def test_a_late_answer_does_not_move_the_manifest_of_the_version_after_it(pipeline: Pipeline) -> None:
    asked = utc_now()
    pipeline.ingest("i-1", BARS)
    pipeline.process("p-1")
    pipeline.ingest("i-late", REVISED, at=asked)
    pipeline.process("p-2")
    found = pipeline.why()
    assert [answer.run_id for answer in found.answers] == ["i-late", "i-1"]
    assert [item.manifest for item in found.versions] == ["p-2", "p-1"]
    assert any("Process run p-1 worked while version 0 was stored" in line for line in found.missing)


def test_a_damaged_row_of_the_warehouse_is_named(pipeline: Pipeline) -> None:
    two_versions(pipeline)
    pipeline.connection.execute("update market.bar_5min set volume = 1 where symbol = 'AAPL'")
    found = pipeline.why()
    assert not found.stored.agree
    assert f"The warehouse differs from the lake: volume 1 instead of {REVISED.volume[SLOT]}." in found.missing[0]


def test_a_bar_on_a_later_page_of_its_request_is_found(pipeline: Pipeline) -> None:
    pipeline.ledger.start("ingest", "i-1")
    newer = {"values": [row(BARS, slot) for slot in range(15, 20)], "status": "ok"}
    asked = pipeline.answer("i-1", json.dumps(newer).encode())
    older = {"values": rows(BARS)[5:], "status": "ok"}
    pipeline.answer("i-0", json.dumps(older).encode())  # another run's
    page = pipeline.answer("i-1", json.dumps(older).encode())
    pipeline.staging.save([(BARS, asked)], "i-1")
    (found,) = pipeline.why().answers
    assert (found.run_id, found.rows) == ("i-1", [row(BARS)])
    assert found.requested_at == page.replace(microsecond=page.microsecond // 1000 * 1000)


def test_a_large_answer_in_parts_is_read(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barflow.staging.raw_answers.PART_BYTES", 1000)
    body = json.dumps({"values": rows(BARS), "status": "ok", "padding": [*range(3000)]})
    pipeline.ingest("i-1", BARS, body=body.encode())
    raw = pipeline.database["raw_responses"]
    assert raw.count_documents({"encoding": "zlib"}) > 1
    (found,) = pipeline.why().answers
    assert found.rows == [row(BARS)]

    [first, *others] = raw.find(sort=[("part", 1)])
    raw.delete_many({"_id": {"$in": [part["_id"] for part in others]}})
    as_text = {"$set": {"body": body}, "$unset": {"encoding": 1, "part": 1, "parts": 1}}
    raw.update_one({"_id": first["_id"]}, as_text)  # as earlier releases stored it
    (found,) = pipeline.why().answers
    assert found.rows == [row(BARS)]


def test_an_answer_that_has_expired_or_is_absent_is_named(pipeline: Pipeline) -> None:
    pipeline.ingest("i-1", BARS, at=utc_now() - ANSWERS_KEPT - timedelta(hours=1))
    pipeline.ingest("i-2", REVISED)
    pipeline.database["raw_responses"].delete_many({})
    found = pipeline.why()
    assert found.answers == []
    assert "The answer of version 0, known from" in found.missing[0]
    assert "has expired: answers are kept for 30 days." in found.missing[0]
    assert "version 1" in found.missing[1]
    assert "is not stored: an earlier release or another program stored the bar." in found.missing[1]


def test_a_session_that_an_earlier_release_stored_is_known_from_its_first_storage(pipeline: Pipeline) -> None:
    pipeline.ingest("i-1", BARS)
    bars = pipeline.database.get_collection("bars")
    later = (utc_now() + timedelta(seconds=2)).replace(microsecond=0)
    earlier_release: Document = {"$unset": {"known_from": ""}, "$set": {"first_seen_at": later}}
    bars.update_one({}, earlier_release, bypass_document_validation=True)
    found = pipeline.why()
    assert [item.known_from for item in found.versions] == [later]
    assert found.answers == []
    assert "is not stored: an earlier release" in found.missing[0]


def test_rejected_rows_of_the_bar_are_shown_with_their_reasons(pipeline: Pipeline) -> None:
    pipeline.ingest("i-1", BARS)
    inside, before, after = ({**row(BARS), "datetime": f"2025-07-02 14:{at}"} for at in ("37:11", "34:59", "40:00"))
    rejected = [Rejected("AAPL", payload, ("off_grid",)) for payload in (inside, before, after)]
    nested: Any = {**row(BARS), "close": [[[[[]]]]]}
    for _ in range(60):
        nested = {**row(BARS), "close": [nested]}
    rejected += [Rejected("AAPL", nested, ("not_a_number",)), Rejected("MSFT", row(BARS), ("wrong_symbol",))]
    quarantine = Quarantine(pipeline.database)
    for run_id in ("i-1", "i-2"):
        quarantine.add(rejected, run_id, utc_now())
    found = pipeline.why().validation
    assert found.accepted == 1
    assert [(item.payload, item.reasons, item.run_id, item.times) for item in found.rejected] == [
        (inside, ["off_grid"], "i-1", 2),
        (nested, ["not_a_number"], "i-1", 2),
    ]


def test_a_version_that_a_replay_stored_names_the_row_and_its_answer(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"values": rows(BARS), "status": "ok"}).encode()
    asked = pipeline.answer("i-1", body)
    quarantine = Quarantine(pipeline.database)
    quarantine.add([Rejected("AAPL", row(BARS), ("off_grid",))], "i-1", asked)
    (waiting,) = quarantine.find(["AAPL"])
    replay_rejected(pipeline.database, [waiting], utc_now())
    found = pipeline.why()
    (told,) = found.answers
    assert (told.run_id, told.replayed, told.rows) == ("i-1", waiting["_id"], [row(BARS)])
    assert told.requested_at < found.versions[0].known_from
    assert found.validation.rejected[0].replayed_at is not None


def message(name: str, ts: datetime, symbol: str = "AAPL") -> Message:
    return Message(
        schema_version=1, id=name, rule="level_101", kind="level", symbol=symbol, severity="info",
        session_date=ts.date(), bar_start=ts, direction="up", value=101, unit="dollars", reference=101,
        price=101, text=f"{symbol} rose to 101.00, through 101.00", created_at=utc_now(),
    )  # fmt: skip


def test_alerts_are_those_of_the_bar_with_the_state_of_each_channel(pipeline: Pipeline) -> None:
    pipeline.ingest("i-1", BARS)
    outbox = Outbox(pipeline.database)
    outbox.add(
        [
            (message("own", TS), ["sse", "slack", "webhook-1"]),
            (message("before", BARS.ts[SLOT - 1]), ["sse"]),
            (message("other", TS, "MSFT"), ["sse"]),
        ]
    )
    secret = "Slack answered: xoxb-1234-5678-secret"
    failed = {"channels.slack.last_error": secret, "channels.slack.attempts": 3}
    gone = {"channels.webhook-1.dropped_at": TS, "channels.webhook-1.attempts": 1}
    outbox.alerts.update_one({"_id": "own"}, {"$set": failed | gone})
    (alert,) = pipeline.why().alerts
    assert (alert.id, alert.text) == ("own", "AAPL rose to 101.00, through 101.00")
    sse, slack = alert.channels["sse"], alert.channels["slack"]
    assert (sse.delivered_at is not None, sse.attempts, sse.next_at) == (True, 1, None)
    assert (slack.delivered_at, slack.attempts, slack.next_at is not None) == (None, 3, True)
    assert slack.last_error == "Slack answered: …"
    dropped = alert.channels["webhook-1"]
    assert (dropped.delivered_at, dropped.dropped_at, dropped.next_at) == (None, TS, None)
    assert "webhook-1: dropped 2025-07-02 10:35 New York" in " ".join(_deliveries(alert))


def test_only_current_actions_after_the_bar_adjust_it(pipeline: Pipeline) -> None:
    pipeline.ingest("i-1", BARS)
    learned = datetime(2025, 7, 1, tzinfo=UTC)
    days = [date(2025, 7, 2), date(2025, 8, 4), date(2025, 9, 1), date(2026, 5, 4)]
    splits = [
        Split("AAPL", day, ratio, "endpoint", learned) for day, ratio in zip(days, (2.0, 4.0, 1.0, 3.0), strict=True)
    ]
    paid = [Dividend("AAPL", date(2025, 8, 11), 0.26, "USD", "endpoint", learned)]
    answers = [
        Answer("AAPL", "split", splits, "endpoint", learned, learned),
        Answer("AAPL", "dividend", paid, "endpoint", learned, learned),
    ]
    Actions(pipeline.database).store(answers)
    found = pipeline.why(clock=lambda: datetime(2025, 12, 1, tzinfo=UTC))
    assert [(item.ex_date, item.ratio, item.amount) for item in found.actions] == [
        (days[1], 4.0, None),
        (date(2025, 8, 11), None, 0.26),
    ]
    assert not any("never fetched" in line for line in found.missing)


def test_staging_that_expired_leaves_versions_and_manifests(pipeline: Pipeline) -> None:
    two_versions(pipeline)
    pipeline.database["bars"].delete_many({})
    pipeline.database["bar_versions"].delete_many({})
    found = pipeline.why()
    assert [item.model_dump(include={*NAMES}) for item in found.versions] == [values(BARS), values(REVISED)]
    assert [(item.manifest, item.load_id) for item in found.versions] == [("p-1", "l-1"), ("p-2", "l-2")]
    assert [item.run_id for item in found.answers] == ["i-1", "i-2"]
    assert (found.manifest, found.load_id, found.stored.staging) == ("p-2", "l-2", None)
    assert any("MongoDB no longer holds the bar" in line for line in found.missing)


def unavailable() -> Any:
    raise UnavailableError("it does not answer. Check the server.")


def test_runs_that_expired_from_the_ledger_are_found_by_their_loads(pipeline: Pipeline) -> None:
    two_versions(pipeline)
    before = pipeline.why()
    ledger = pipeline.database["ledger"]
    ledger.delete_one({"_id": "p-1"})
    assert pipeline.why().versions == before.versions
    ledger.delete_many({})
    assert pipeline.why().versions == before.versions


def test_a_store_that_does_not_answer_is_named_once_and_the_rest_is_shown(pipeline: Pipeline) -> None:
    two_versions(pipeline)
    calls: list[str] = []

    def down() -> Any:
        calls.append("asked")
        return unavailable()

    without_mongo = pipeline.why(database=down)
    assert calls == ["asked"]
    assert [item for item in without_mongo.missing if "MongoDB" in item] == [
        "MongoDB cannot be read, so what it holds is not shown: it does not answer. Check the server."
    ]
    assert [(item.manifest, item.load_id) for item in without_mongo.versions] == [("p-1", "l-1"), ("p-2", "l-2")]
    assert (without_mongo.manifest, without_mongo.stored.staging) == ("p-2", None)
    without_warehouse = pipeline.why(warehouse=unavailable)
    assert [(item.manifest, item.load_id) for item in without_warehouse.versions] == [("p-1", None), ("p-2", None)]
    assert "The warehouse cannot be read" in " ".join(without_warehouse.missing)
    without_lake = pipeline.why(lake=lambda: None)
    assert "This process has no access to the lake" in without_lake.missing[0]
    assert (len(without_lake.versions), without_lake.file, without_lake.load_id) == (2, None, "l-2")
    with pytest.raises(UnavailableError, match="MongoDB cannot be read"):
        pipeline.why("MSFT", database=unavailable)


def test_a_damaged_file_or_document_hides_nothing_else(pipeline: Pipeline) -> None:
    two_versions(pipeline)
    Path(pipeline.lake.path("AAPL", "2025-07")).write_bytes(b"damaged")
    pipeline.database["alerts"].insert_one({"_id": "later version", "symbol": "AAPL", "bar_start": TS})
    found = pipeline.why()
    assert len(found.versions) == 2
    assert any("The lake: the file cannot be read" in line for line in found.missing)
    assert any("MongoDB: alerts cannot be read" in line for line in found.missing)
    assert found.load_id == "l-2"


def test_a_renamed_share_is_found_under_both_names(pipeline: Pipeline) -> None:
    former = random_session("FB", "2022-06-07", bars=20)
    pipeline.ingest("i-1", former)
    pipeline.instruments = parse_instruments(
        {"instrument": [{"symbol": "META", "former": [{"symbol": "FB", "last_day": date(2022, 6, 8)}]}]}
    )
    by_former, by_present = (pipeline.why(name, "2022-06-07 09:35") for name in ("fb", "META"))
    assert by_former == by_present
    assert (by_former.symbol, by_former.present_symbol) == ("FB", "META")
    with pytest.raises(NoSuchBarError, match="no bar of META at 2022-06-09 09:35"):
        pipeline.why("FB", "2022-06-09 09:35")


def test_a_bar_that_does_not_exist_gets_one_message_with_the_bars_next_to_it(pipeline: Pipeline) -> None:
    pipeline.ingest("i-1", BARS, random_session("AAPL", "2025-07-07", bars=3))
    quarantine = Quarantine(pipeline.database)
    missing = {**row(BARS), "datetime": "2025-07-02 15:10:00"}
    quarantine.add([Rejected("AAPL", missing, ("non_positive_price",))], "i-1", utc_now())
    nearest = "next to it open at 2025-07-02 11:05 and 2025-07-07 09:30 New York."
    with pytest.raises(BadInputError, match=nearest) as refused:
        pipeline.why(time="2025-07-02 11:10")
    assert "`barflow rejected show" in str(refused.value)
    with pytest.raises(BadInputError, match="No store holds any bar of it"):
        pipeline.why("TSLA")
    with pytest.raises(BadInputError, match="is not a symbol"):
        pipeline.why("AA PL")
    pipeline.load("l-1", [])
    pipeline.database["bars"].delete_many({})
    with pytest.raises(BadInputError, match="next to it open at 2025-07-02 10:35 New York"):
        pipeline.why(time="2025-07-02 11:10")


Fault = Callable[[pytest.MonkeyPatch], None]


def wrong_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(collect, "history", lambda versions, real=collect.history: real(versions)[::-1])


def wrong_load(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(collect.one_bar, "first_load_of", lambda db, run, since: collect.one_bar.load_run(db, "l-2"))


def wrong_manifest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(published.Manifests, "of_version", lambda self, known, moments: ([*self.since(known)][-1], None))


def wrong_answer(patch: pytest.MonkeyPatch) -> None:
    real = staged.answer_of

    def of_the_first(database: Any, name: str, slot: Any, version: Any, rejected: Any) -> Any:
        found = real(database, name, slot, version, rejected)
        return found and found.model_copy(update={"run_id": "i-1"})

    patch.setattr(staged, "answer_of", of_the_first)


def wrong_alerts(patch: pytest.MonkeyPatch) -> None:
    real = staged.alerts_of
    patch.setattr(staged, "alerts_of", lambda db, names, slot: real(db, names, replace(slot, ts=slot.ts - BAR)))


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        *(
            (fault, test_each_version_is_followed_from_its_answer_to_its_load)
            for fault in (wrong_order, wrong_load, wrong_manifest, wrong_answer)
        ),
        (wrong_alerts, test_alerts_are_those_of_the_bar_with_the_state_of_each_channel),
    ],
)
def test_a_planted_fault_is_caught(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, fault: Fault, test: Callable[[Pipeline], None]
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, TypeError)):
        test(pipeline)


def test_the_command_prints_a_story_or_one_object(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mongodb_uri: str
) -> None:
    two_versions(pipeline)
    time.sleep(APART)
    Outbox(pipeline.database).add([(message("own", TS), ["sse", "slack"])])
    monkeypatch.setenv("BARFLOW_MONGODB_URI", mongodb_uri)
    monkeypatch.setenv("BARFLOW_MONGODB_DATABASE", pipeline.database.name)
    monkeypatch.setenv("BARFLOW_WAREHOUSE_DSN", pipeline.dsn)
    monkeypatch.setenv("BARFLOW_LAKE_URI", pipeline.lake.root)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["barflow", "why", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    code, out, _ = run("AAPL", NEW_YORK_TIME, "--json")
    told = json.loads(out)
    assert code == 0
    assert told == json.loads(pipeline.why().model_dump_json())
    assert {"symbol", "bar_start", "versions", "answers", "file", "manifest", "load_id", "aggregates", "alerts"} < {
        *told
    }
    code, out, _ = run("aapl", "2025-07-02T14:36:59Z")
    story = out.splitlines()
    assert code == 0
    assert story[0] == "AAPL: the bar of 2025-07-02 10:35 New York (14:35 UTC), session 2025-07-02"
    assert max(len(line) for line in story if pipeline.lake.root not in line) <= 100
    place = {
        part: next(number for number, line in enumerate(story) if part in line)
        for part in ("the bar opens", "answer of run i-1", "published by p-1", "loaded by l-1", "answer of run i-2",
                     "published by p-2", "loaded by l-2", "alert level_101", "In the stores", "slack: waits", "Missing")
    }  # fmt: skip
    assert [*place.values()] == sorted(place.values())
    assert (run("AAPL", "2025-07-04 10:00")[0], run("AAPL", "2025-07-02 15:00")[0], run("A B", NEW_YORK_TIME)[0]) == (
        2,
        2,
        2,
    )
    monkeypatch.setenv("BARFLOW_WAREHOUSE_DSN", "postgresql://barflow:secret-word@127.0.0.1:1/none")
    code, out, err = run("AAPL", NEW_YORK_TIME)
    assert code == 0
    assert "The warehouse cannot be read, so what it holds is not shown" in " ".join(out.split())
    assert "secret-word" not in out + err
