"""A month of ticks for the tests of backtests as known: revisions, late bars, a split, an outage, kills and races.

Only a few bars of each session exist, so that a month takes seconds. Everything follows from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from alert_ticks import FakeClient, Result, rules
from pymongo.database import Database

from barflow.alerts.journal import EvaluationJournal
from barflow.alerts.outbox import AlertStates, Outbox, PendingEvaluations
from barflow.alerts.rules import RuleBook
from barflow.alerts.tick import Alerts
from barflow.errors import UnavailableError
from barflow.market.actions import Split
from barflow.market.instruments import Instruments, parse_instruments
from barflow.market.sessions import BAR, Session, previous_session, sessions_between
from barflow.pipeline.ingest import Ingest
from barflow.pipeline.replay import replay_rejected
from barflow.staging.actions import Actions
from barflow.staging.actions import Answer as ActionsAnswer
from barflow.staging.connection import Document
from barflow.staging.quarantine import Quarantine
from barflow.staging.sessions import Staging
from barflow.twelvedata.client import Answer

FIRST, LAST = date(2025, 7, 1), date(2025, 7, 31)
SPLIT_DAY, RENAME_DAY = date(2025, 7, 15), date(2025, 7, 21)
SYMBOLS = ("AAPL", "BRK.B", "META", "TSLA")
INSTRUMENTS = parse_instruments(
    {
        "instrument": [
            {"symbol": "META", "former": [{"symbol": "FB", "last_day": previous_session(RENAME_DAY).session_date}]}
        ]
    }  # type: ignore[union-attr]
)
OUTAGE_DAY = date(2025, 7, 9)
HISTORY, SLOTS = 6, 14
# When ticks run on some days. Every other day has its own times.
SLOTS_OF = {SPLIT_DAY: (1, 4, 8), OUTAGE_DAY: (1, 2, 8, 13)}
LEVEL = {"id": "level", "kind": "level", "level": 100.0, "cool_down_minutes": 20}
WEAK = {"id": "weak", "when": 'change_pct < of("BRK.B").change_pct - 0.2', "cool_down_minutes": 20}
RULES = rules(
    LEVEL,
    {"id": "level_as_of", "kind": "level", "level": 99.0, "as_of": FIRST, "cool_down_minutes": 0},
    {"id": "move", "kind": "move", "percent": 1.0, "minutes": 15, "cool_down_minutes": 30},
    {"id": "gap", "kind": "gap", "percent": 1.0},
    {"id": "unknown_split", "kind": "split"},
    {"id": "volume", "kind": "volume", "times": 2.0, "sessions": 4, "cool_down_minutes": 1440},
    {"id": "bar_average", "kind": "average", "bars": 6, "cool_down_minutes": 15},
    {"id": "day_average", "kind": "average", "sessions": 4, "cool_down_minutes": 60},
    {"id": "extreme", "kind": "extreme", "sessions": 3},
    {"id": "stale", "kind": "silence", "minutes": 20, "cool_down_minutes": 30},
    {"id": "both", "when": "crosses_above(close, sma(5)) && volume_times(4) > 0.8", "cool_down_minutes": 10},
    WEAK,
    {"id": "apart", "when": 'of("FB").close > of("TSLA").close', "symbols": ["AAPL", "FB", "META"]},
    {"id": "turn", "when": "close < earlier(1).low && change_pct > -20.0", "cool_down_minutes": 0},
)
# The steps of an evaluation at which a tick dies, or another tick runs.
STEPS: list[tuple[type, str]] = [
    (PendingEvaluations, "add"),
    (Staging, "save"),
    (AlertStates, "load"),
    (EvaluationJournal, "add"),
    (AlertStates, "save"),
    (Outbox, "insert"),
    (AlertStates, "remove_outgoing"),
    (PendingEvaluations, "remove"),
]


class Killed(BaseException):
    """The end of a tick that is killed."""


@contextmanager
def at_step(owner: type, name: str, call: int, what: Callable[[], None], *, after: bool) -> Iterator[None]:
    """Do something before or after a call of a method."""
    original, calls = getattr(owner, name), []

    def patched(*arguments: Any, **options: Any) -> Any:
        calls.append(True)
        if len(calls) == call and not after:
            what()
        result = original(*arguments, **options)
        if len(calls) == call and after:
            what()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, patched)
        yield


@dataclass
class Month:
    """A market, and the ticks that ask it. ``calm`` ticks all succeed, and their answers are stored at once."""

    database: Database[Document]
    seed: int
    book: RuleBook = RULES
    calm: bool = False
    ticks: int = 4
    values: dict[tuple[str, datetime], tuple[float, ...]] = field(default_factory=dict)
    slow: list[Answer] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.prices = dict.fromkeys(SYMBOLS, 100.0)
        self.withheld: set[tuple[str, datetime]] = set()

    def run(self) -> None:
        """Run all ticks of the month."""
        before = previous_session(FIRST, HISTORY)
        assert before is not None
        for traded in sessions_between(before.session_date, LAST):
            self.open(traded)
            if traded.session_date >= FIRST:
                slots = self.dice.sample((1, 2, 4, 7, 8, 11, 13, 14), self.ticks)
                for slot in sorted(SLOTS_OF.get(traded.session_date, slots)):
                    self.at(traded.slots[slot] + timedelta(seconds=self.dice.uniform(1, 50)))

    def open(self, traded: Session) -> None:
        """Make the bars of a session."""
        for symbol in SYMBOLS:
            if symbol == "TSLA" and traded.session_date == SPLIT_DAY:
                self.prices[symbol] /= 10
            self.prices[symbol] *= 1 + self.dice.gauss(0, 0.01)
            for ts in traded.slots[:SLOTS]:
                self.values[symbol, ts] = self.bar(symbol)
                if self.dice.random() < (0 if self.calm else 0.04):
                    self.withheld.add((symbol, ts))

    def bar(self, symbol: str) -> tuple[float, ...]:
        opened = self.prices[symbol]
        close = self.prices[symbol] = opened * (1 + self.dice.gauss(0, 0.006))
        high, low = max(opened, close) * 1.001, min(opened, close) * 0.999
        prices = (round(price, 4) for price in (opened, high, low, close))
        return (*prices, int(1000 * self.dice.lognormvariate(0, 0.6)))

    def asked(self, now: datetime) -> dict[str, str]:
        """Return by present symbol the one that ticks ask for."""
        return {name: "FB" if name == "META" and now.date() < RENAME_DAY else name for name in SYMBOLS}

    def revise(self, now: datetime) -> None:
        """Change some bars of the last sessions, and deliver some withheld ones."""
        since = previous_session(now.date(), 2)
        assert since is not None
        for key in self.values:
            if since.opens <= key[1] <= now and self.dice.random() < 0.02:
                self.values[key] = tuple(
                    round(value * 1.004, 4) if place < 4 else value for place, value in enumerate(self.values[key])
                )
        self.withheld = {key for key in self.withheld if self.dice.random() < 0.7}

    def answers(self, now: datetime, *, future: bool = False) -> list[Answer]:
        """Answer for the bars of the last three sessions, or of all before the first tick."""
        back = previous_session(now.date(), 2 if self.database["bars"].find_one() else HISTORY)
        assert back is not None
        found = []
        for present, name in self.asked(now).items():
            rows = [
                (ts, values)
                for (symbol, ts), values in sorted(self.values.items())
                if symbol == present
                and back.opens <= ts
                and (ts + BAR <= now or (future and ts <= now + 2 * BAR))
                and (symbol, ts) not in self.withheld
            ]
            texts = [
                {
                    "datetime": f"{ts:%Y-%m-%d %H:%M:%S}",
                    **dict(zip(("open", "high", "low", "close", "volume"), map(str, values), strict=True)),
                }
                for ts, values in rows
            ]
            moment = now + timedelta(milliseconds=self.dice.randrange(900))
            found.append(Answer(name, {"symbol": name}, texts, moment))
        return found

    def tick(self, now: datetime, results: Sequence[Result], symbols: Sequence[str] = ()) -> None:
        """Run a tick for all or some symbols, in a process of its own as far as it can tell."""
        # Nobody knows a new name before its first day.
        instruments = Instruments() if now.date() < RENAME_DAY else INSTRUMENTS
        alerts = Alerts(self.database, self.book, (), lambda: now, instruments)
        client: Any = FakeClient(results)
        hop = Ingest(
            client,
            self.database,
            history_sessions=HISTORY,
            revision_sessions=2,
            clock=lambda: now + timedelta(seconds=2),
            alerts=alerts,
            instruments=instruments,
        )
        if self.done:
            hop.ensure = lambda: None  # type: ignore[method-assign]
        hop.tick(symbols or [*self.asked(now).values()])

    def learn(self, ratio: float | None, now: datetime) -> None:
        """Stage what is known of the split of TSLA."""
        splits = [Split("TSLA", SPLIT_DAY, ratio, "endpoint", now)] if ratio else []
        Actions(self.database).store([ActionsAnswer("TSLA", "split", splits, "endpoint", now, now)])

    def at(self, now: datetime) -> None:
        """Do what happens at a moment."""
        self.revise(now)
        self.split(now)
        if self.calm or not self.database["bars"].find_one():
            self.tick(now, self.answers(now))
            self.done.append("tick")
            return
        if now.date() == OUTAGE_DAY and now.hour >= 14:
            kind = "outage"
        elif now.date() == SPLIT_DAY and now.hour == 13:
            kind = "tick"
        else:
            weights = (8, 2, 5, 1, 3, 2, 2, 2, 3, 4)
            kinds = ("tick", "slow", "killed", "half", "race", "partial", "future", "replay", "forget", "other")
            kind = self.dice.choices(kinds, weights)[0]
        self.done.append(kind)
        getattr(self, f"_{kind}")(now)

    def split(self, now: datetime) -> None:
        """Learn a wrong ratio on the ex-date after the open, and the right one on the next day."""
        if now.date() == SPLIT_DAY:
            self.learn(None if now.minute < 50 and now.hour == 13 else 8.0, now)
        elif now.date() == date(2025, 7, 16):
            self.learn(8.0 if now.hour == 13 else 10.0, now)

    def _tick(self, now: datetime) -> None:
        self.tick(now, self.answers(now))

    def _slow(self, now: datetime) -> None:
        """Ask, and store the answer after those of later ticks. Store an earlier one now, or one twice."""
        late, self.slow = self.slow, self.answers(now)
        self.tick(now, [*late, *(late if self.dice.random() < 0.3 else ())])

    def _killed(self, now: datetime) -> None:
        """Kill the tick at some step, and for some calls of it."""
        owner, name = self.dice.choice(STEPS)

        def die() -> None:
            raise Killed

        with at_step(owner, name, self.dice.randrange(1, 4), die, after=self.dice.random() < 0.5), suppress(Killed):
            self.tick(now, self.answers(now))
            return
        self.done.append(f"died at {name}")

    def _half(self, now: datetime) -> None:
        """Kill the tick when it has stored half of the states."""
        save = AlertStates.save

        def half(states: AlertStates, changes: Sequence[Any]) -> set[str]:
            save(states, changes[: len(changes) // 2])
            raise Killed

        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            patch.setattr(AlertStates, "save", half)
            self._tick(now)

    def _race(self, now: datetime) -> None:
        """Run another tick at some step of a tick. It started somewhat earlier or later, and may die, too."""
        owner, name = self.dice.choice(STEPS)
        answers, other = self.answers(now), now + timedelta(seconds=self.dice.uniform(-200, 200))
        call, after = self.dice.randrange(1, 4), self.dice.random() < 0.5
        fate = self.dice.choice((self._tick, self._killed, self._partial))
        with at_step(owner, name, call, lambda: fate(other), after=after):
            self.revise(now)
            self.tick(now, answers)

    def _partial(self, now: datetime) -> None:
        """Get only some of the answers."""
        found = self.answers(now)
        with suppress(UnavailableError):
            self.tick(now, [*found[: self.dice.randrange(len(found))], UnavailableError("does not answer")])

    def _other(self, now: datetime) -> None:
        """Revise another symbol, in a tick for it alone, when a tick has read its state to compare symbols."""
        answers = self.answers(now)

        def revise() -> None:
            for key in self.values:
                if key[0] == "BRK.B" and key[1].date() == now.date():
                    self.values[key] = (*(round(value * 0.98, 4) for value in self.values[key][:4]), 1000)
            self.tick(now, [item for item in self.answers(now) if item.symbol == "BRK.B"], ["BRK.B"])

        with at_step(Alerts, "_states_to_compare", 1, revise, after=True):
            self.tick(now, answers)

    def _outage(self, now: datetime) -> None:
        with suppress(UnavailableError):
            self.tick(now, [UnavailableError("does not answer")])

    def _future(self, now: datetime) -> None:
        """Get bars that are rejected, because they are not complete."""
        self.tick(now, self.answers(now, future=True))

    def _replay(self, now: datetime) -> None:
        """Restore rejected bars, and tick."""
        replay_rejected(self.database, Quarantine(self.database).find(), now)
        self._tick(now)

    def _forget(self, now: datetime) -> None:
        """Let the pending evaluations of dead ticks expire."""
        self.database["alert_pending"].update_many({}, {"$set": {"since": datetime(2020, 1, 1, tzinfo=UTC)}})
        self._tick(now)
