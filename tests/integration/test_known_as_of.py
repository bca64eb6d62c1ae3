"""What was known, when (G9): each version of a bar is kept, also if runs die, cross or repeat.

A journal keeps every answer that was stored. For any moment T, the archive as of T must equal what the journal says of
the answers that were asked for until T.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pymongo.database import Database
from pymongo.errors import ConnectionFailure

import barflow
from barflow.errors import UnavailableError
from barflow.lake.partitions import Lake
from barflow.market.bars import Bar, SessionBars, document_key
from barflow.market.sessions import BAR, session, utc_now
from barflow.pipeline import process, process_plan
from barflow.pipeline.partition_tasks import Key, Sessions, Written, _sessions, write_partition
from barflow.settings import Settings
from barflow.staging.connection import Document, connect
from barflow.staging.known_from import add_known_from, count_without
from barflow.staging.ledger import Ledger
from barflow.staging.sessions import Staging

DAYS = (date(2025, 6, 30), date(2025, 7, 1), date(2025, 7, 2))
SYMBOLS = ("AAPL", "BRK.B")
SLOTS = 8
# A bar's values: open, high, low, close, volume.
Values = tuple[float, float, float, float, int]
# An answer: when it was asked for, and the values by symbol and bar.
Answered = tuple[datetime, dict[tuple[str, datetime], Values]]
Known = dict[tuple[str, datetime], tuple[Values, datetime, int]]


def opens(day: date) -> tuple[datetime, ...]:
    traded = session(day)
    assert traded is not None
    return traded.slots[:SLOTS]


@dataclass
class Market:
    """A source that revises bars. No bar ever returns to values that it had before."""

    dice: random.Random
    now: datetime = opens(DAYS[0])[0]
    values: dict[tuple[str, datetime], Values] = field(default_factory=dict)
    count: int = 0

    def advance(self, by: timedelta) -> None:
        self.now += by
        self.now -= timedelta(microseconds=self.now.microsecond % 1000)
        for symbol in SYMBOLS:
            for day in DAYS:
                for ts in opens(day):
                    if ts + BAR <= self.now and ((symbol, ts) not in self.values or self.dice.random() < 0.03):
                        self.values[symbol, ts] = self.fresh()

    def fresh(self) -> Values:
        self.count += 1
        price = 100 + self.count / 64
        return (price, price + 1, price - 1, price + 0.5, self.count)

    def answer(self) -> Answered:
        """Answer for some of the symbols and sessions, each whole."""
        wanted = [(symbol, day) for symbol in SYMBOLS for day in DAYS if self.dice.random() < 0.6]
        held = {key: value for key, value in self.values.items() if (key[0], key[1].date()) in wanted}
        return self.now, held


class Journal:
    """Every answer that was stored, and what follows from it."""

    def __init__(self) -> None:
        self.answers: list[Answered] = []

    def as_of(self, moment: datetime) -> Known:
        known: Known = {}
        for asked, held in sorted((item for item in self.answers if item[0] <= moment), key=lambda item: item[0]):
            for key, values in held.items():
                before = known.get(key)
                if before is None or before[0] != values:
                    known[key] = (values, asked, before[2] + 1 if before else 0)
        return known


def sessions_of(answer: Answered) -> list[tuple[SessionBars, datetime]]:
    bars: dict[tuple[str, date], list[Bar]] = defaultdict(list)
    for (symbol, ts), values in answer[1].items():
        bars[symbol, ts.date()].append(Bar(ts, *values))
    return [(SessionBars.of(symbol, day, found), answer[0]) for (symbol, day), found in bars.items()]


class Interrupted(Staging):
    """Staging in which something happens after a save wrote the superseded versions, before the sessions."""

    def __init__(self, database: Database[Document], meanwhile: Callable[[], None]) -> None:
        super().__init__(database)
        add = self.versions.add
        waiting = [meanwhile]

        def add_then(versions: Any) -> None:
            add(versions)
            if waiting:
                waiting.pop()()

        self.versions.add = add_then  # type: ignore[method-assign]


@dataclass
class Archive:
    """A staging database and a lake, and process without Spark between them."""

    database: Database[Document]
    settings: Settings
    staging: Staging = field(init=False)

    def __post_init__(self) -> None:
        self.staging = Staging(self.database)
        self.staging.ensure()

    @property
    def lake(self) -> Lake:
        return Lake(self.settings.require("lake_uri"))

    def process(self) -> None:
        process.run(self.settings, lambda line: None)

    def as_of(self, moment: datetime) -> Known:
        """Return what the files of the lake say of a moment, read without the code under test."""
        known: Known = {}
        for symbol, month, _ in self.lake.partitions():
            bars, past = self.lake.read(symbol, month), self.lake.read_history(symbol, month)
            assert bars is not None
            rows = [*bars.to_pylist(), *(past.to_pylist() if past else [])]
            for row in rows:
                if row["known_from"] <= moment and moment < row.get("known_until", datetime.max.replace(tzinfo=UTC)):
                    assert row["session_date"] == row["ts"].date()
                    assert (symbol, row["ts"]) not in known, "two versions of one moment"
                    values = (row["open"], row["high"], row["low"], row["close"], row["volume"])
                    known[symbol, row["ts"]] = (values, row["known_from"], row["revision"])
        return known

    def read(self, moment: datetime | None) -> Known:
        """Return what barflow.read says of a moment, or now."""
        lake = self.settings.require("lake_uri")
        rows = barflow.read(SYMBOLS, DAYS[0], DAYS[-1], adjust="none", as_of=moment, lake=lake).to_pylist()
        values = [(row["open"], row["high"], row["low"], row["close"], row["volume"]) for row in rows]
        keys = [(row["symbol"], row["ts"]) for row in rows]
        told = [(row["known_from"], row["revision"]) for row in rows]
        assert keys == sorted(keys), "sorted by symbol and ts"
        return {key: (found, *known) for key, found, known in zip(keys, values, told, strict=True)}


@pytest.fixture
def archive(database: Database[Document], mongodb_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    def stage(working: Any, planned: Mapping[Key, Sessions]) -> list[Written]:
        """Do what the Spark tasks do, in this process."""
        staging = Staging(connect(mongodb_uri, database.name, tz_aware=False))
        chunk = sorted((key, sorted(days)) for key, days in planned.items())
        lake, part = working.lake, f"{working.lease.holder}/0"
        return [write_partition(lake, part, key, *found) for key, found in _sessions(staging, lake, chunk)]

    monkeypatch.setattr(process, "_stage_bars", stage)
    settings = Settings(mongodb_uri=mongodb_uri, mongodb_database=database.name, lake_uri=str(tmp_path / "lake"))
    return Archive(database, settings)


@pytest.mark.parametrize("seed", range(4))
def test_the_archive_as_of_any_moment_equals_a_journal_of_all_answers(
    archive: Archive, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:  # a manifest for each symbol
        monkeypatch.setattr(process_plan, "PARTITIONS_PER_SLICE", 1)
    dice = random.Random(seed)
    market, journal = Market(dice), Journal()
    slow: list[Answered] = []

    def store(answer: Answered, staging: Staging | None = None) -> None:
        (staging or archive.staging).save(sessions_of(answer), "test")
        journal.answers.append(answer)

    def killed() -> None:
        raise ConnectionFailure("killed")

    def step() -> str:
        what = dice.choices(("tick", "slow", "late", "killed", "race", "process", "expire"), (6, 3, 3, 1, 2, 3, 1))[0]
        if what == "tick":
            store(market.answer())
        elif what == "slow":
            slow.append(market.answer())
        elif what == "late" and slow:
            store(slow.pop(dice.randrange(len(slow))))
        elif what == "killed":
            with suppress(UnavailableError):  # an answer without news writes nothing
                Interrupted(archive.database, killed).save(sessions_of(market.answer()), "test")
        elif what == "race":
            one = market.answer()
            market.advance(timedelta(seconds=dice.uniform(0.5, 3)))
            two = market.answer()
            first, second = dice.sample([one, two], 2)
            store(first, Interrupted(archive.database, lambda: store(second)))
            if second not in journal.answers:  # the first one had no news
                store(second)
        elif what == "process":
            archive.process()
        elif what == "expire":
            slow.clear()  # a session expires months after its last tick
            archive.process()
            gone = {"_id": document_key(dice.choice(SYMBOLS), dice.choice(DAYS))}
            archive.staging.expire(archive.database["bars"].find(gone))
        return what

    steps = []
    for _ in range(60):
        market.advance(timedelta(seconds=dice.choice((1, 40, 300, 4000, 20000)) * dice.uniform(0.5, 1.5)))
        steps.append(step())
        if steps[-1] == "process":
            assert archive.as_of(market.now) == journal.as_of(market.now), steps
    for answer in slow:
        store(answer)
    archive.process()
    moments = [moment for asked, _ in journal.answers for moment in (asked - timedelta(milliseconds=1), asked)]
    for moment in [*moments, market.now]:
        known = journal.as_of(moment)
        assert archive.as_of(moment) == known, (moment, steps)
        assert archive.read(moment) == known
    assert archive.read(None) == archive.read(market.now) == journal.as_of(market.now)
    assert any(revision for _, _, revision in journal.as_of(market.now).values())


def test_documents_and_files_of_an_earlier_release_are_brought_up_to_date(archive: Archive) -> None:
    """What is unknown is never dated too early: a reader as of a moment sees nothing of its future."""
    market = Market(random.Random(7))
    market.advance(timedelta(hours=5))
    archive.staging.save(sessions_of((market.now, dict(market.values))), "test")
    first_seen = archive.database["bars"].find_one({})["first_seen_at"]  # type: ignore[index]
    [ts, *_] = opens(DAYS[0])
    changed = dict.fromkeys([("AAPL", ts)], market.fresh())
    revised_at = market.now + timedelta(hours=1)
    archive.staging.save(sessions_of((revised_at, changed)), "test")
    archive.process()
    # As an earlier release left them: no array, no column, no history.
    archive.database["bars"].update_many({}, {"$unset": {"known_from": ""}}, bypass_document_validation=True)
    archive.database["bar_versions"].drop()
    path = Path(archive.lake.path("AAPL", "2025-06"))
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["known_from"]), path)
    os.utime(path, (1_800_000_000, 1_800_000_000))
    Path(archive.lake.history_path("AAPL", "2025-06")).unlink()
    old = archive.lake.read("AAPL", "2025-06")
    assert old is not None
    assert {*old["known_from"].to_pylist()} == {datetime.fromtimestamp(1_800_000_000, UTC)}, "when it was written"

    # A tick revises a bar of such a document, before anybody ran the migration.
    again = dict.fromkeys([("AAPL", ts)], market.fresh())
    archive.staging.save(sessions_of((revised_at + timedelta(hours=1), again)), "test")
    assert count_without(archive.database) == 1, "BRK.B"
    assert add_known_from(archive.database) == 1
    assert (count_without(archive.database), add_known_from(archive.database)) == (0, 0)
    archive.process()
    for symbol, known_from in (("AAPL", first_seen), ("BRK.B", market.now)):
        table = archive.lake.read(symbol, "2025-06")
        assert table is not None
        # The file of BRK.B knew better than its document.
        assert table["known_from"].to_pylist()[1:] == [known_from] * (table.num_rows - 1)
    past = archive.lake.read_history("AAPL", "2025-06")
    assert past is not None
    [row] = past.to_pylist()
    assert ((row["open"], row["known_from"]), row["known_until"]) == (
        (changed["AAPL", ts][0], revised_at),
        revised_at + timedelta(hours=1),
    )


def test_a_lake_is_complete_until_the_oldest_tick_that_is_still_storing(archive: Archive) -> None:
    market, ledger = Market(random.Random(8)), Ledger(archive.database)
    market.advance(timedelta(hours=5))
    before = utc_now()
    archive.staging.save(sessions_of(market.answer()), "test")
    archive.process()
    complete = archive.lake.complete_until()
    assert complete is not None
    assert before - timedelta(seconds=1) < complete < utc_now()
    ledger.start("ingest", "slow")
    started = ledger.last("ingest")["started_at"] - timedelta(milliseconds=1)  # type: ignore[index]
    market.advance(timedelta(hours=1))
    archive.staging.save(sessions_of((market.now, dict(market.values))), "test")
    archive.process()
    assert archive.lake.complete_until() == started
    ledger.finish("slow", "failed", {})
    archive.staging.save(sessions_of((market.now, {("AAPL", opens(DAYS[0])[0]): market.fresh()})), "test")
    process.run(archive.settings, lambda line: None, symbols=["AAPL"])
    assert archive.lake.complete_until() == started, "a run of some symbols says nothing of the others"


def test_an_answer_of_the_same_millisecond_is_not_among_those_that_a_lake_holds(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2025, 7, 2, 15, 0, 0, 704_990, tzinfo=UTC)
    monkeypatch.setattr("barflow.staging.ledger.utc_now", lambda: now)
    complete_until = Ledger(archive.database).all_stored_until()
    answer = {("AAPL", opens(DAYS[0])[0]): Market(random.Random(10)).fresh()}
    archive.staging.save(sessions_of((now + timedelta(microseconds=5), answer)), "test")
    [document] = archive.database["bars"].find()
    assert complete_until < document["known_from"][0] < now


def test_an_expired_session_takes_its_versions_along(archive: Archive) -> None:
    market = Market(random.Random(9))
    market.advance(timedelta(hours=5))
    key = document_key("AAPL", DAYS[0])
    for _ in range(2):
        held = {("AAPL", ts): market.fresh() for ts in opens(DAYS[0])}
        archive.staging.save(sessions_of((market.now, held)), "test")
        market.advance(timedelta(minutes=1))
    archive.process()
    assert len(archive.staging.versions.of([key])[key]) == SLOTS
    archive.staging.expire([{"_id": key, "version": 1}])
    assert len(archive.staging.versions.of([key])[key]) == SLOTS, "the session changed in between"
    assert archive.staging.expire(archive.database["bars"].find({"_id": key})) == 1
    assert archive.staging.versions.of([key]) == {}
    assert len(archive.as_of(market.now)) == SLOTS
