"""The evaluation of one share: the screen chooses the places, and the live code evaluates them."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from barflow.alerts.evaluate import Evaluator, Event, SymbolEvaluation, levels_left_behind
from barflow.alerts.history import EvaluatedSession, SymbolState
from barflow.alerts.rules import Rule, RuleBook
from barflow.alerts.signals import BAR_MINUTES, SessionView, Signal
from barflow.backtest.ranges import Bools
from barflow.backtest.screen import Screen
from barflow.backtest.series import Series
from barflow.market.sessions import Session
from barflow.staging.sessions import StoredSession

# An open this far from the close before it may look like a split. The smallest split that one looks like is 3-for-2.
LIKE_A_SPLIT = 1.3
Work = list[tuple[Rule, Callable[[Any, SessionView, int], Signal], list[int]]]


@dataclass
class Found:
    """What was found of one share, from the session ``since`` to the session ``to``. ``since`` is None without bars."""

    symbol: str
    since: date | None = None
    to: date = date.max
    bars: int = 0
    events: list[Event] = field(default_factory=list)
    cooled_down: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Other:
    """Another symbol that rules name: its sessions, and its states at their closes."""

    def __init__(self, book: RuleBook, series: Series, sessions: Sequence[Session], until: datetime) -> None:
        self._evaluation = _Evaluation(book, series, sessions, until) if sessions else None
        self._views: dict[date, SessionView] = {}

    def view(self, day: date) -> SessionView | None:
        """Return a session as the rules see it, or None if its bars are no news."""
        evaluation = self._evaluation
        if evaluation is None or day < evaluation.sessions[0].session_date:
            return None
        row = evaluation.series.places.get(day)
        if day not in self._views and row is not None:
            self._views[day] = evaluation.view(row)
        return self._views.get(day)

    @cached_property
    def states(self) -> dict[date, SymbolState]:
        """Return the states, by session."""
        states: dict[date, SymbolState] = {}
        if self._evaluation:
            book, series, sessions, until = self._evaluation.given
            evaluate_all(book, series, sessions, until, {}, states)
        return states


Others = Mapping[str, Other]
NO_OTHERS: Others = MappingProxyType({})


def evaluate_all(
    book: RuleBook,
    series: Series,
    sessions: Sequence[Session],
    until: datetime,
    others: Others = NO_OTHERS,
    states: dict[date, SymbolState] | None = None,
) -> Found:
    """Evaluate every bar of these sessions, each session at its close, as ticks do. Add the ``states`` by session."""
    if not sessions:
        return Found(series.symbol)
    states = {} if states is None else states
    found, state = Found(series.symbol, sessions[0].session_date, sessions[-1].session_date), None
    waiting = [*series.days]
    for traded in sessions:
        evaluator = Evaluator(book, min(until, traded.closes))
        count = bisect.bisect_right(waiting, traded.session_date)
        changed = [StoredSession(series.session(series.places[day]), 1) for day in waiting[:count]]
        del waiting[:count]
        state = state or evaluator.new_state(series.symbol)
        found.bars += sum(len(item.bars) for item in changed if item.bars.session_date >= state.horizon)
        evaluated = evaluator.evaluate(state, changed, series.splits)
        day = traded.session_date
        states[day] = evaluated.state
        at_close = {name: other.states[day] for name, other in others.items() if day in other.states}
        comparison = evaluator.comparison(evaluated.state, at_close)
        compared = evaluator.compare(comparison, adjust=series.splits is not None)
        state = compared.state
        found.events += [*evaluated.events, *compared.events]
        found.cooled_down += [*evaluated.cooled_down, *compared.cooled_down]
        found.notes += evaluated.notes
    return found


def evaluate(
    book: RuleBook, series: Series, sessions: Sequence[Session], until: datetime, others: Others = NO_OTHERS
) -> Found:
    """Evaluate the bars of these sessions that the screen leaves. The result is that of ``evaluate_all``."""
    if not sessions:
        return Found(series.symbol)
    return _Evaluation(book, series, sessions, until, others).found()


class _Evaluation:
    """The evaluation of one share."""

    def __init__(
        self,
        book: RuleBook,
        series: Series,
        sessions: Sequence[Session],
        until: datetime,
        others: Others = NO_OTHERS,
    ) -> None:
        self.given = book, series, sessions, until
        self.book, self.series, self.sessions, self.until, self._others = book, series, sessions, until, others
        self.live = SymbolEvaluation(
            book.rules(series.symbol), SymbolState(series.symbol, sessions[0].session_date), series.splits
        )
        self.least_silence = min((rule.minutes for rule in self.live.silences), default=0)
        self.evaluator = Evaluator(book, min(until, sessions[0].closes))
        self._packed: list[EvaluatedSession] = []
        self._summaries: list[EvaluatedSession] = []
        self._seen = dict.fromkeys((rule.id for rule in book.fixed_levels(series.symbol)), sessions[0].session_date)
        self._splits = list(series.splits or ())

    def found(self) -> Found:
        """Return what the rules fire."""
        since, last = self.sessions[0].session_date, self.sessions[-1].session_date
        first, end = (bisect.bisect_left(self.series.days, since), bisect.bisect_right(self.series.days, last))
        unknown = self._like_a_split()
        work = self._places(first, unknown)
        gaps = self._gaps()
        for traded in self.sessions:
            row = self.series.places.get(traded.session_date)
            if row is not None and (row in work or row in gaps or unknown[row]):
                self._session(row, work.get(row, []), gaps.get(row, []))
            self._end_of(traded)
        bars = int(self.series.starts[end] - self.series.starts[first])
        return Found(self.series.symbol, since, last, bars, self.live.events, self.live.cooled_down, self.live.notes)

    def _session(self, row: int, work: Work, gaps: list[int]) -> None:
        """Evaluate places of a session by the live code."""
        self.live.forget_older()
        view = self.view(row)
        seen = {name: other.view(self.series.days[row]) for name, other in self._others.items()}
        view.others = {name: found for name, found in seen.items() if found}
        self.live.note_unknown_split(view)
        for rule, signal, places in work:
            for at in places:
                self.live.rule_at(rule, signal, view, at)
        for at in gaps:
            self.live.gap_before(view, at)

    def view(self, row: int) -> SessionView:
        """Return a session as the rules see it."""
        slots = self.series.session_slots(row)
        return SessionView(self.series.session(row), slots, self._past(row), self.series.splits)

    def _end_of(self, traded: Session) -> None:
        """Evaluate the silence since the last bar at the close of a session, and the levels at its splits."""
        day, now = traded.session_date, min(self.until, traded.closes)
        for split in [split for split in self._splits if split.ex_date <= day]:
            self._splits.remove(split)
            rules = self.book.fixed_levels(self.series.symbol)
            self.live.notes += levels_left_behind(rules, split, self._seen)
        if not self.live.silences:
            return
        row = bisect.bisect_right(self.series.days, day) - 1
        slot = int(self.series.slots[self.series.starts[row + 1] - 1]) + 1 if self.series.days[row] == day else 0
        if (now - traded.opens) // timedelta(minutes=1) - slot * BAR_MINUTES >= self.least_silence:
            self.live.end_of_session(day, {self.series.days[row]: self.series.packed(row, prices=False)}, now)

    def _places(self, first: int, unknown: Bools) -> dict[int, Work]:
        """Return the places that the screen leaves, by session and rule."""
        found: dict[int, Work] = {}
        screen, starts = Screen(self.series, unknown), self.series.starts
        for rule, signal in self.live.rules:
            places = screen.places(rule)
            places = places[places >= starts[first]]
            rows = screen.columns.row[places]
            ends = np.append(np.flatnonzero(np.diff(rows)) + 1, len(rows)).tolist() if len(rows) else []
            within = (places - starts[rows]).tolist()
            begin = 0
            for end in ends:
                found.setdefault(int(rows[begin]), []).append((rule, signal, within[begin:end]))
                begin = end
        return found

    def _gaps(self) -> dict[int, list[int]]:
        """Return the bars after a gap that is long enough for a silence, as places in their session, by session."""
        if not self.least_silence:
            return {}
        slots, starts = self.series.slots.astype(np.int64), self.series.starts
        before = np.roll(slots, 1) + 1
        before[starts[:-1]] = 0
        found: dict[int, list[int]] = {}
        for place in np.flatnonzero((slots - before) * BAR_MINUTES >= self.least_silence).tolist():
            row = int(np.searchsorted(starts, place, "right")) - 1
            found.setdefault(row, []).append(place - int(starts[row]))
        return found

    def _like_a_split(self) -> Bools:
        """Return the sessions whose open may look like a split that is not known, to the live code."""
        days = len(self.series.days)
        if self.series.splits is None:
            return np.zeros(days, np.bool_)
        closes = self.series.prices["close"][self.series.starts[1:] - 1]
        apart = np.roll(closes, 1) / self.series.prices["open"][self.series.starts[:-1]]
        near = (apart < LIKE_A_SPLIT) & (apart > 1 / LIKE_A_SPLIT)
        # After a known split, the close is in other shares.
        known = {split.ex_date for split in self.series.splits if split.ratio != 1}
        for row in {bisect.bisect_left(self.series.days, day) for day in known}:
            if row < days:
                near[row] = False
        near[:1] = True
        return ~near

    def _past(self, row: int) -> list[EvaluatedSession]:
        """Return the sessions before one, as the state has them: older ones with their last bar alone."""
        for place in range(len(self._packed), row):
            self._packed.append(self.series.packed(place, prices=self.book.prices > 0))
            self._summaries.append(self._packed[place].summary())
        if self.series.days[row] == self.sessions[0].session_date:
            return self._packed[:row]  # the first evaluation gets them whole
        whole = max(0, row - self.evaluator.detail)
        oldest = max(0, row - self.evaluator.history)
        return [*self._summaries[oldest:whole], *self._packed[max(whole, oldest) : row]]
