"""Rule evaluation on new and revised bars. Pure: it takes values and returns events and the next state.

A rule fires when it holds at a bar but did not hold, in the same direction, at the session's previous bar. It does not
fire within its cool-down. Cool-downs count in the bars' time, so the same bars give the same alerts whenever they are
evaluated. Only recent bars fire: those of the last ``NEWS_SESSIONS`` sessions, and none before the symbol's horizon,
which is the newest session at its first evaluation. A first run or a backfill therefore fires no flood of alerts.

Past sessions are compared in the shares of the evaluated session, by the splits that are known. A dividend is a true
change of the price.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from barflow.alerts.comparison import Comparison
from barflow.alerts.history import Compared, EvaluatedSession, SymbolState, in_shares_of, trimmed
from barflow.alerts.rules import ALL, ExpressionRule, LevelRule, Rule, RuleBook, SilenceRule
from barflow.alerts.signals import BAR_MINUTES, NEITHER, SIGNALS, SessionView, Signal
from barflow.alerts.values import expression
from barflow.errors import BadInputError
from barflow.market.actions import Split, split_text
from barflow.market.sessions import BAR, last_sessions, session
from barflow.staging.sessions import StoredSession

# An alert on an older session is of no use. Corrections reach back two sessions, an outage may last longer.
NEWS_SESSIONS = 5
ALL_SIGNALS: dict[type[Any], Callable[[Any, SessionView, int], Signal]] = {**SIGNALS, ExpressionRule: expression}
NEVER_FIRED: Mapping[str, Sequence[datetime]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Event:
    """One alert: a rule fired for a symbol at a bar, or a silence for the feed (symbol ``*``).

    ``bar_start`` is the bar's open (UTC); for a silence, that of the first missing bar. ``value`` is in the rule's
    unit, compared with ``reference`` (dollars or shares). ``price`` is the last close, in dollars; None for the feed.
    ``split`` is the ratio of the splits between the session and the one before it.
    """

    rule: Rule
    symbol: str
    session_date: date
    bar_start: datetime
    direction: str | None
    value: float
    reference: float | None
    price: float | None
    split: float = 1.0

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the constructor and its arguments: pickle takes twice as long for slots."""
        return Event, FIELDS(self)

    @property
    def id(self) -> str:
        """Return the stable id, such as ``gap_5pct|TSLA|2025-07-07T13:30:00Z``."""
        return f"{self.rule.id}|{self.symbol}|{self.bar_start:%Y-%m-%dT%H:%M:%SZ}"


FIELDS = attrgetter(*(item.name for item in fields(Event)))


class Evaluated(NamedTuple):
    """A symbol's next state, the events, notes for the tick's report, and the events that a cool-down dropped."""

    state: SymbolState
    events: list[Event]
    notes: list[str]
    cooled_down: list[Event]


class Evaluator:
    """Evaluates symbols at one moment: ``now`` of the market's clock (UTC)."""

    def __init__(self, book: RuleBook, now: datetime) -> None:
        self.book, self.now = book, now
        opened = last_sessions(now, NEWS_SESSIONS)
        if not opened:
            raise BadInputError(f"no session has opened by {now:%Y-%m-%d %H:%M} UTC: there is nothing to evaluate")
        self.newest, self._oldest_news = opened[-1], opened[0].session_date
        self.history = book.history + NEWS_SESSIONS
        self.detail = book.detail + NEWS_SESSIONS
        self.prices = book.prices + NEWS_SESSIONS if book.prices else 0

    def new_state(self, symbol: str) -> SymbolState:
        """Return the state of a symbol that was never evaluated."""
        return SymbolState(symbol, self.newest.session_date)

    def has_history(self, state: SymbolState) -> bool:
        """Return whether the state holds all stored sessions that the rules look at."""
        return state.history >= self.history and state.detail >= self.detail and state.prices >= self.prices

    def sessions_to_repeat(self, state: SymbolState, splits: Sequence[Split] | None) -> set[date]:
        """Return the evaluated sessions whose comparisons change, because splits were learned, changed or withdrawn.

        Only an ex-date within the last ``NEWS_SESSIONS`` sessions repeats any. Later bars compare by the new splits.
        """
        if not splits and not state.splits:
            return set()
        changed = {day for day, _ in state.splits.items() ^ self._in_force(state, splits).items()}
        first = min((day for day in changed if day >= self._oldest_news), default=date.max)
        return {day for day in state.sessions if day >= max(first, state.horizon)}

    def _in_force(self, state: SymbolState, splits: Sequence[Split] | None) -> dict[date, float]:
        """Return the ratio of each split by its ex-date, up to the newest session.

        A later split in the state stays there: a tick that started later has evaluated it.
        """
        if not splits and not state.splits:
            return state.splits
        newest = self.newest.session_date
        later = {day: ratio for day, ratio in state.splits.items() if day > newest}
        return later | {split.ex_date: split.ratio for split in splits or () if split.ex_date <= newest}

    def evaluate(
        self,
        state: SymbolState,
        changed: Iterable[StoredSession],
        splits: Sequence[Split] | None = (),
        fired: Mapping[str, Sequence[datetime]] = NEVER_FIRED,
    ) -> Evaluated:
        """Evaluate the new and revised bars of a symbol's sessions, and the silence since its last bar.

        ``splits`` are the symbol's current ones; None compares all prices as they are. ``fired`` holds by rule the
        bars (opens, UTC) of all its alerts, for the sessions that are evaluated again.
        """
        evaluation = SymbolEvaluation(self.book.rules(state.symbol), state, splits, fired)
        repeat = self.sessions_to_repeat(state, splits)
        first = Compared(self.newest.session_date)
        compared = {name: state.compared.get(name, first).without({*repeat}) for name in self.book.others(state.symbol)}
        news_from = max(state.horizon, self._oldest_news)
        sessions, to_end = dict(state.sessions), {self.newest.session_date}
        for stored in sorted(changed, key=lambda item: item.bars.session_date):
            day, old = stored.bars.session_date, sessions.get(stored.bars.session_date)
            if old is not None and old.version > stored.version:
                continue  # a faster tick has evaluated a later version
            new = sessions[day] = EvaluatedSession.of(stored, prices=self.prices > 0)
            is_new, is_repeated = old is None or old.version < new.version, day in repeat
            repeat.discard(day)
            if day >= news_from and (is_new or is_repeated):
                past = [sessions[known] for known in sorted(sessions) if known < day]
                view = SessionView(stored.bars, new.slots, past, splits)
                evaluation.bars(view, new.changed_since(old), again=is_repeated)
            if day >= news_from and is_new:
                to_end.add(day)
        for day in sorted(day for day in to_end if day >= news_from):
            evaluation.end_of_session(day, sessions, self.now)
        levels = self._levels(state)
        notes = [*evaluation.notes, *self._levels_left_behind(state, levels, splits or ())]
        recent = trimmed(sessions, self.history, self.detail, self.prices)
        after = replace(
            state,
            history=self.history,
            detail=self.detail,
            prices=self.prices,
            sessions=recent,
            fired=evaluation.fired,
            splits=self._in_force(state, splits),
            levels=levels,
            compared=compared,
        )
        return Evaluated(after, evaluation.events, notes, evaluation.cooled_down)

    def _comparing(self, state: SymbolState) -> list[Rule]:
        """Return the symbol's rules that name another symbol. ``evaluate`` knows no value of it, so they are silent."""
        return [rule for rule in self.book.rules(state.symbol) if rule.others]

    def comparison(self, state: SymbolState, others: Mapping[str, SymbolState]) -> Comparison:
        """Return the bars at which the symbol's rules that name other symbols wait for evaluation.

        The states of ``others`` must be at least as new as ``state``.
        """
        whole = {name: other for name, other in others.items() if self.has_history(other)}
        return Comparison(state, whole if self.has_history(state) else {}, self._oldest_news)

    def is_late(self, comparison: Comparison) -> bool:
        """Return whether a bar waits that is older than one at which a rule that names another symbol fired."""
        state = comparison.state
        fired = [state.fired[rule.id] for rule in self._comparing(state) if rule.id in state.fired]
        return bool(fired) and comparison.first_bar < max(fired)

    def compare(
        self, comparison: Comparison, fired: Mapping[str, Sequence[datetime]] = NEVER_FIRED, *, adjust: bool = True
    ) -> Evaluated:
        """Evaluate the rules that name other symbols, at the bars that wait.

        ``fired`` is as for ``evaluate``, for a comparison that is late. Without ``adjust``, prices are compared as they
        are.
        """
        state, views = comparison.after, comparison.views(adjust=adjust)
        events: list[Event] = []
        cooled_down: list[Event] = []
        for rule in self._comparing(state):
            evaluation = SymbolEvaluation([rule], state, (), fired)
            for day, view in views.items():
                evaluation.bars(view, comparison.places_of(rule, day), again=False)
            state = replace(state, fired=evaluation.fired)
            events += evaluation.events
            cooled_down += evaluation.cooled_down
        return Evaluated(state, events, [], cooled_down)

    def _levels(self, state: SymbolState) -> dict[str, date]:
        """Return, for each rule with a fixed level, the newest session when it was first evaluated."""
        rules, newest = self.book.fixed_levels(state.symbol), self.newest.session_date
        return {rule.id: state.levels.get(rule.id, newest) for rule in rules}

    def _levels_left_behind(
        self, state: SymbolState, levels: Mapping[str, date], splits: Sequence[Split]
    ) -> Iterator[str]:
        """Yield a note for each fixed level and each split that comes into force after its first evaluation."""
        for split in splits:
            if split.ex_date <= self.newest.session_date and split.ex_date not in state.splits:
                yield from levels_left_behind(self.book.fixed_levels(state.symbol), split, levels)

    def silences(self, state: SymbolState) -> list[Event]:
        """Return the silences of a symbol at this moment, also those that have fired before."""
        evaluation = SymbolEvaluation(self.book.rules(state.symbol), replace(state, fired={}))
        if self.newest.session_date >= state.horizon:
            evaluation.end_of_session(self.newest.session_date, state.sessions, self.now)
        return evaluation.events


def feed_silences(silences: Iterable[Event], symbols: int) -> dict[str, Event]:
    """Return the one alert of the feed, by the id of each symbol's silence that it replaces.

    The feed is silent by a rule when more than half of the ``symbols`` are, and at least two. Its first missing bar is
    that of most of them, so that a later tick finds the same id.
    """
    by_rule: dict[str, list[Event]] = defaultdict(list)
    for event in silences:
        by_rule[event.rule.id].append(event)
    replaced: dict[str, Event] = {}
    for found in by_rule.values():
        if len(found) >= 2 and 2 * len(found) > symbols:
            starts = Counter(event.bar_start for event in found)
            usual = min(found, key=lambda event: (-starts[event.bar_start], event.bar_start))
            feed = replace(usual, symbol=ALL, price=None)
            replaced |= {event.id: feed for event in found}
    return replaced


class SymbolEvaluation:
    """Collects the events and notes of one symbol, and the bars at which each rule fired."""

    def __init__(
        self,
        rules: Sequence[Rule],
        state: SymbolState,
        splits: Sequence[Split] | None = (),
        fired: Mapping[str, Sequence[datetime]] = NEVER_FIRED,
    ) -> None:
        self.symbol, self.splits = state.symbol, splits
        self.rules = [(rule, ALL_SIGNALS[type(rule)]) for rule in rules if type(rule) in ALL_SIGNALS]
        self.silences = [rule for rule in rules if isinstance(rule, SilenceRule)]
        self._bars_fired = {name: [bar] for name, bar in state.fired.items()}
        for name, bars in fired.items():
            self._bars_fired.setdefault(name, []).extend(bars)
        self.events: list[Event] = []
        self.cooled_down: list[Event] = []
        self.notes: list[str] = []

    @property
    def fired(self) -> dict[str, datetime]:
        """Return the newest bar (its open, UTC) at which each rule fired."""
        return {name: max(bars) for name, bars in self._bars_fired.items()}

    def forget_older(self) -> None:
        """Keep only the newest bar at which each rule fired, as the state does between two evaluations."""
        self._bars_fired = {name: [bar] for name, bar in self.fired.items()}

    def bars(self, view: SessionView, changed: Sequence[int], *, again: bool) -> None:
        """Evaluate the bars at the ``changed`` places of a session, in order, each with the bars before it.

        With ``again``, the other bars are evaluated too, except by rules that compare only within the session.
        """
        comparing = [item for item in self.rules if item[0].looks_back] if again else []
        self.note_unknown_split(view)
        for at in range(len(view.bars)) if again else changed:
            is_changed = not again or at in changed
            for rule, signal in self.rules if is_changed else comparing:
                self.rule_at(rule, signal, view, at)
            if is_changed and self.silences:
                self.gap_before(view, at)

    def note_unknown_split(self, view: SessionView) -> None:
        """Note if a session is not compared with earlier ones."""
        if view.unknown_split is not None and view.last_close is not None:
            self.notes.append(_unknown_split(view, view.unknown_split, view.last_close))

    def rule_at(
        self, rule: Rule, signal: Callable[[Any, SessionView, int], Signal], view: SessionView, at: int
    ) -> None:
        """Fire a rule that holds at a place of a session and did not hold, on the same side, at the one before."""
        now = signal(rule, view, at)
        if now == NEITHER:
            return
        before = signal(rule, view, at - 1) if at else NEITHER
        for direction, hit, held in zip(("up", "down"), now, before, strict=True):
            if hit and not held and getattr(rule, "direction", "both") in ("both", direction):
                event = Event(
                    rule,
                    self.symbol,
                    view.bars.session_date,
                    view.bars.ts[at],
                    direction if rule.has_sides else None,
                    *hit,
                    price=view.bars.close[at],
                    split=view.split,
                )
                self._fire(event)

    def gap_before(self, view: SessionView, at: int) -> None:
        """Evaluate the silence before the bar at a place of a session."""
        price = view.bars.close[at - 1] if at else view.last_close
        if price is not None:
            slot = view.slots[at - 1] + 1 if at else 0
            self._silence(view.bars.session_date, slot, (view.slots[at] - slot) * BAR_MINUTES, price)

    def end_of_session(self, day: date, sessions: Mapping[date, EvaluatedSession], now: datetime) -> None:
        """Evaluate the silence since a session's last bar, up to ``now`` or the session's close."""
        traded = session(day)
        last = sessions.get(day) or next((sessions[known] for known in sorted(sessions)[::-1] if known < day), None)
        if traded is None or last is None:
            return
        slot = last.slots[-1] + 1 if last.session_date == day else 0
        silence = min(now, traded.closes) - (traded.opens + slot * BAR)
        [last_known] = in_shares_of(day, [last], self.splits or ())
        self._silence(day, slot, silence // timedelta(minutes=1), last_known.last_close)

    def _silence(self, day: date, slot: int, minutes: int, price: float) -> None:
        """Fire each silence rule whose limit is at most ``minutes``. The gap starts at slot ``slot``."""
        for rule in self.silences:
            traded = session(day)
            if minutes >= rule.minutes and traded is not None:
                self._fire(Event(rule, self.symbol, day, traded.opens + slot * BAR, None, minutes, None, price))

    def _fire(self, event: Event) -> None:
        """Add an event, unless its rule fired at the same bar or within its cool-down."""
        earlier = self._bars_fired.setdefault(event.rule.id, [])
        if event.bar_start in earlier:
            return
        cool_down = timedelta(minutes=event.rule.cool_down_minutes)
        if any(abs(event.bar_start - bar) < cool_down for bar in earlier):
            self.cooled_down.append(event)
            return
        earlier.append(event.bar_start)
        self.events.append(event)


def _unknown_split(view: SessionView, ratio: float, close: float) -> str:
    """Return the note that a session is not compared with earlier ones."""
    return (
        f"the session of {view.bars.session_date} opens at {view.bars.open[0]:,.2f} after a close of {close:,.2f}, "
        f"like a {split_text(ratio)} that is not known: no rule compares it with earlier sessions. Run "
        f"`barflow actions refresh --symbols {view.bars.symbol}`. If there was no split, import one with the ratio 1"
    )


def levels_left_behind(rules: Iterable[LevelRule], split: Split, levels: Mapping[str, date]) -> Iterator[str]:
    """Yield a note for each fixed level that was first evaluated before a split. ``levels`` has the day by rule."""
    for rule in rules:
        if split.ratio != 1 and levels[rule.id] < split.ex_date:
            yield _level_left_behind(rule, split, levels[rule.id])


def _level_left_behind(rule: LevelRule, split: Split, seen: date) -> str:
    """Return the note that a level may be in the shares before a split."""
    return (
        f"rule {rule.id} has had the level {rule.level:g} since {seen}, and {split.symbol} had a {split.label} on "
        f"{split.ex_date}. The level stays {rule.level:g} dollars a new share. If it means old shares, write as_of = "
        f"{seen} in the rule: it is then {rule.level / split.ratio:g} and follows later splits. If it means new "
        f"shares, write as_of = {split.ex_date}"
    )
