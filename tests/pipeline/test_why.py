"""`barflow why` names the right answer, versions, file, load and alerts of each bar of a rehearsed month.

The month has corrections, a bar that is corrected twice between two runs, and rows that validation rejects. A journal
holds what each tick was answered. It is made from the market and the requests, not from a store.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from harness import Pipeline

from barflow.alerts.message import Message
from barflow.alerts.rules_file import parse_rules
from barflow.alerts.tick import Alerts
from barflow.market.sessions import BAR, session, sessions_between, utc_now
from barflow.operations.why import collect, staged
from barflow.operations.why.collect import Sources, why
from barflow.operations.why.story import Why
from barflow.pipeline.ingest import run as run_tick
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.warehouse import one_bar
from barflow.warehouse.connection import connect
from emulators.twelvedata.server import TwelveDataEmulator
from local.synthetic import SyntheticBars

MARKET = SyntheticBars(seed=11)
SYMBOLS = ("AAPL", "MSFT")
MONTH = sessions_between(date(2025, 7, 1), date(2025, 7, 31))
SAMPLES = 150
Bar = tuple[str, datetime]
Row = tuple[str, ...]
# Fires on many bars: a close that moved by 0.2 % within half an hour.
RULE = {"id": "move", "kind": "move", "percent": 0.2, "minutes": 30, "cool_down_minutes": 0}


class Recorder:
    """A channel that accepts every alert. What it accepted is part of the journal."""

    name, digest_above = "sns", None

    def __init__(self) -> None:
        self.accepted: dict[Bar, set[str]] = defaultdict(set)

    def send(self, messages: list[Message]) -> Iterator[dict[str, None]]:
        for message in messages:
            self.accepted[message.symbol, message.bar_start].add(message.id)
            yield {message.id: None}


@dataclass
class Tick:
    """What one tick was answered, by bar, and the wall-clock times around it."""

    run_id: str
    began: datetime
    ended: datetime
    rows: dict[Bar, Row]


@dataclass
class Journal:
    """The ticks of a rehearsal, and which process run and load followed each of them first."""

    ticks: list[Tick] = field(default_factory=list)
    published: dict[str, str] = field(default_factory=dict)  # a tick's run id -> the process run
    loaded: dict[str, str] = field(default_factory=dict)  # a process run -> the load
    recorder: Recorder = field(default_factory=Recorder)

    def versions(self, bar: Bar) -> list[tuple[Tick, Row]]:
        """Return the accepted values of a bar in the order in which they were first answered."""
        found: list[tuple[Tick, Row]] = []
        for tick in self.ticks:
            row = tick.rows.get(bar)
            if row and is_valid(row) and (not found or numbers(found[-1][1]) != numbers(row)):
                found.append((tick, row))
        return found

    def rejected(self, bar: Bar) -> list[Row]:
        return [row for tick in self.ticks if (row := tick.rows.get(bar)) and not is_valid(row)]

    def session_run(self, bar: Bar) -> str:
        """Return the last process run that followed a change of the bar's session."""
        day = bar[1].date()
        others = {item for tick in self.ticks for item in tick.rows if item[0] == bar[0] and item[1].date() == day}
        return max(self.published[tick.run_id] for item in others for tick, _ in self.versions(item))


def numbers(row: Row) -> tuple[float, ...]:
    return tuple(map(float, row))


def is_valid(row: Row) -> bool:
    opened, high, low, close, _ = numbers(row)
    return low <= min(opened, close) and max(opened, close) <= high


class Rehearsal:
    """A market, its corrections, and the pipeline that follows it."""

    def __init__(self, pipeline: Pipeline, api: TwelveDataEmulator, journal: Journal) -> None:
        self.pipeline, self.api, self.journal = pipeline, api, journal
        self.corrections: dict[Bar, dict[str, str]] = {}
        self.now = MONTH[0].opens

    def bars(self, first: int, last: int) -> list[Bar]:
        """Return the bars of some of the month's sessions."""
        return [(symbol, ts) for symbol in SYMBOLS for traded in MONTH[first:last] for ts in traded.slots]

    def correct(self, bar: Bar, **values: str) -> None:
        self.corrections.setdefault(bar, {}).update(values)
        self.api.switches.correct(*bar, **values)

    def tick(self, now: datetime) -> None:
        """Run one tick at a moment of the market, and write its answers into the journal."""
        self.now = now
        self.api.requests.clear()
        with self.pipeline.in_environment():
            stores = Stores(load_settings(), clock=lambda: now)
        channels: Any = [self.journal.recorder]
        stores.__dict__["alerts"] = Alerts(stores.database, parse_rules({"rule": [RULE]}), channels, lambda: now)
        began = utc_now()
        report = run_tick(stores, SYMBOLS, lambda _: None)
        assert not report.errors, report.errors
        rows = {
            (symbol, row[0]): self.answered(symbol, row)
            for call in self.api.requests
            if call.path == "/time_series" and call.params["interval"] == "5min"
            for symbol in call.symbols
            for row in MARKET.rows(symbol, moment(call.params["start_date"]), moment(call.params["end_date"]) + BAR)
            if row[0] + BAR <= now
        }
        self.journal.ticks.append(Tick(report.run_id, began, utc_now(), rows))

    def answered(self, symbol: str, row: Any) -> Row:
        names = ("open", "high", "low", "close", "volume")
        corrected = self.corrections.get((symbol, row[0]), {})
        return tuple(corrected.get(name, text) for name, text in zip(names, row[1:], strict=True))

    def process(self) -> None:
        run = self.pipeline.process()["run_id"]
        for tick in self.journal.ticks:
            self.journal.published.setdefault(tick.run_id, run)

    def load(self) -> None:
        load = self.pipeline.aggregate()["run_id"]
        for run in self.journal.published.values():
            self.journal.loaded.setdefault(run, load)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def rehearsal(pipeline: Pipeline) -> Iterator[Rehearsal]:
    """Yield a month in four ticks, three process runs and two loads."""
    pipeline.settings |= {
        "BARFLOW_HISTORY_SESSIONS": "22",
        "BARFLOW_REVISION_SESSIONS": "15",
        "BARFLOW_ACTIONS_SOURCE": "none",
        "TWELVEDATA_API_KEY": "emulator-key",
    }
    dice = random.Random(15)
    holder: list[Rehearsal] = []
    with TwelveDataEmulator(MARKET, clock=lambda: holder[0].now) as api:
        pipeline.settings["BARFLOW_TWELVEDATA_URL"] = api.url
        made = Rehearsal(pipeline, api, Journal())
        holder.append(made)
        made.tick(MONTH[10].closes)
        made.process()
        made.load()
        twice = dice.sample(made.bars(2, 10), 150)
        broken = dice.sample(made.bars(2, 10), 20)
        for number, bar in enumerate(twice):
            made.correct(bar, volume=str(1000 + number))
        originals = {bar: made.answered(bar[0], MARKET.rows(bar[0], bar[1], bar[1] + BAR)[0])[1] for bar in broken}
        for bar in broken:
            made.correct(bar, high="0.01")
        made.tick(MONTH[11].slots[40])
        for bar, high in originals.items():
            made.correct(bar, high=high)
        for number, bar in enumerate(twice[:100]):
            made.correct(bar, volume=str(2000 + number))
        made.tick(MONTH[16].closes)
        made.process()
        for number, bar in enumerate(dice.sample(made.bars(8, 16), 150)):
            made.correct(bar, volume=str(3000 + number))
        made.tick(MONTH[-1].closes)
        made.process()
        made.load()
        yield made


def check(found: Why, bar: Bar, journal: Journal, pipeline: Pipeline) -> None:
    """Compare what `why` shows of a bar with the journal."""
    versions = journal.versions(bar)
    assert [(item.open, item.high, item.low, item.close, item.volume) for item in found.versions] == [
        numbers(row) for _, row in versions
    ]
    assert [item.revision for item in found.versions] == [*range(len(versions))]
    for told, following in zip(found.versions, [*found.versions[1:], None], strict=True):
        assert told.known_until == (following and following.known_from)
    assert [answer.run_id for answer in found.answers] == [tick.run_id for tick, _ in versions]
    for told, answer, (tick, row) in zip(found.versions, found.answers, versions, strict=True):
        assert tick.began.replace(microsecond=0) <= told.known_from == answer.requested_at <= tick.ended
        names = ("datetime", "open", "high", "low", "close", "volume")
        assert answer.rows == [dict(zip(names, (f"{bar[1]:%Y-%m-%d %H:%M:%S}", *row), strict=True))]
        run = journal.published[tick.run_id]
        assert (told.manifest, told.load_id) == (run, journal.loaded[run])
    assert [tuple(row.payload.values())[1:] for row in found.validation.rejected] == journal.rejected(bar)
    last = journal.session_run(bar)
    assert (found.manifest, found.load_id) == (last, journal.loaded[last])
    assert found.file == pipeline.lake.path(bar[0], "2025-07")
    assert {alert.id for alert in found.alerts} == journal.recorder.accepted.get(bar, set())
    assert all(alert.channels["sns"].delivered_at for alert in found.alerts)
    assert found.stored.agree
    assert found.stored.warehouse is not None
    assert {name: row["bar_start"] for name, row in found.aggregates.items()} == buckets(bar[1])
    assert found.daily_metrics is not None
    assert found.missing == [f"The splits and dividends of {bar[0]} were never fetched: `barflow actions refresh "
                             f"--symbols {bar[0]}` does."]  # fmt: skip


def buckets(ts: datetime) -> dict[str, datetime]:
    traded = session(ts.date())
    assert traded is not None
    starts = {"bar_30min": traded.bucket_start(ts, 30), "bar_1h": traded.bucket_start(ts, 60)}
    return {**starts, "bar_1d": traded.opens}


def reversed_versions(patch: pytest.MonkeyPatch) -> None:
    real = collect.history
    patch.setattr(collect, "history", lambda versions: real(versions)[::-1])


def newest_load(patch: pytest.MonkeyPatch) -> None:
    real = one_bar.loads_since
    patch.setattr(one_bar, "first_load_of", lambda db, run, since: real(db, since, 9)[-1])


def alerts_of_the_bar_before(patch: pytest.MonkeyPatch) -> None:
    real = staged.alerts_of
    patch.setattr(staged, "alerts_of", lambda db, names, slot: real(db, names, replace(slot, ts=slot.ts - BAR)))


FAULTS = (reversed_versions, newest_load, alerts_of_the_bar_before)


def test_why_agrees_with_a_journal_of_a_month(rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, journal = rehearsal.pipeline, rehearsal.journal
    everything = rehearsal.bars(0, len(MONTH))
    eventful = [bar for bar in everything if len(journal.versions(bar)) > 1 or journal.rejected(bar)]
    dice = random.Random(1)
    sample = [*dice.sample(everything, SAMPLES), *dice.sample(eventful, SAMPLES)]
    with connect(pipeline.warehouse_dsn, autocommit=True) as warehouse, pipeline.in_environment():
        stores = Stores(load_settings())
        lake = pipeline.lake
        sources = Sources(lambda: stores.database, lambda: lake, lambda: nullcontext(warehouse), stores.instruments)
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(lambda bar: why(sources, bar[0], bar[1].isoformat()), sample)
        for bar, answer in zip(sample, answers, strict=True):
            check(answer, bar, journal, pipeline)
        # The check catches each planted fault.
        bar = next(bar for bar in journal.recorder.accepted if len(journal.versions(bar)) > 1)
        for fault in FAULTS:
            with monkeypatch.context() as patch:
                fault(patch)
                found = why(sources, bar[0], bar[1].isoformat())
            with pytest.raises(AssertionError):
                check(found, bar, journal, pipeline)
    counts = [len(journal.versions(bar)) for bar in sample]
    assert min(counts.count(number) for number in (2, 3)) >= 10
    assert sum(bool(journal.rejected(bar)) for bar in sample) >= 3
    assert sum(bool(journal.recorder.accepted.get(bar)) for bar in sample) >= 20
