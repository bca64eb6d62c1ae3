"""Which alerts follow from new and revised bars? Pure: values in, events and the next state out.

A rule fires where it holds at a bar and did not hold at the bar before it of the session, on the same side, and not
within its cool-down since it last fired; cool-downs count by the bars' time, so the same bars give the same alerts
whenever they are judged. News are the bars of sessions from a symbol's horizon on, the newest session when it was
first judged, and of the last few sessions: a first run or a backfill brings history, not a flood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from barflow.alerts.history import Seen, SymbolState, trimmed
from barflow.alerts.rules import Rule, RuleBook, SilenceRule
from barflow.alerts.signals import BAR_MINUTES, NEITHER, SIGNALS, View
from barflow.errors import BadInputError
from barflow.market.bars import SessionBars
from barflow.market.sessions import BAR, last_sessions, session, sessions_between
from barflow.staging.sessions import StoredSession

# An alert on an older session would help nobody; corrections reach back two sessions, an outage may take longer.
NEWS_SESSIONS = 5


@dataclass(frozen=True)
class Event:
    """One alert: a rule, a symbol and a bar (its open, UTC; of a silence, the first bar that is missing).

    ``value`` is in the rule's unit, against ``reference`` (dollars or shares); ``price`` is the last close, dollars.
    """

    rule: Rule
    symbol: str
    session_date: date
    bar_start: datetime
    direction: str | None
    value: float
    reference: float | None
    price: float

    @property
    def id(self) -> str:
        """The stable id: ``gap_5pct|TSLA|2025-07-07T13:30:00Z``."""
        return f"{self.rule.id}|{self.symbol}|{self.bar_start:%Y-%m-%dT%H:%M:%SZ}"


class Evaluator:
    """Judges symbols at one moment, ``now`` by the market's clock (UTC)."""

    def __init__(self, book: RuleBook, now: datetime) -> None:
        self.book, self.now = book, now
        opened = last_sessions(now, NEWS_SESSIONS)
        if not opened:
            raise BadInputError(f"no session has opened by {now:%Y-%m-%d %H:%M} UTC: there is nothing to judge")
        self.newest, self._oldest_news = opened[-1], opened[0].session_date
        self.history = book.history + NEWS_SESSIONS
        self.detail = book.detail + NEWS_SESSIONS

    def start(self, symbol: str) -> SymbolState:
        """The state of a symbol that was never judged."""
        return SymbolState(symbol, self.newest.session_date)

    def filled(self, state: SymbolState) -> bool:
        """Whether the state has what the rules look at, as far as it was stored."""
        return state.history >= self.history and state.detail >= self.detail

    def advance(self, state: SymbolState, changed: Iterable[StoredSession]) -> tuple[SymbolState, list[Event]]:
        """Judges what is new in these sessions of the symbol, and the silence since its last bar."""
        judge = _Judge(self.book.rules(state.symbol), state)
        news_from = max(state.horizon, self._oldest_news)
        sessions, silent = dict(state.sessions), {self.newest.session_date}
        for stored in sorted(changed, key=lambda item: item.bars.session_date):
            day, old = stored.bars.session_date, sessions.get(stored.bars.session_date)
            if old is not None and old.version > stored.version:
                continue  # a faster tick has judged a later version
            seen = sessions[day] = Seen.of(stored)
            if day >= news_from and (old is None or old.version < seen.version):
                past = [sessions[known] for known in sorted(sessions) if known < day]
                judge.bars(stored.bars, seen, past, seen.fresh(old))
                silent.add(day)
        for day in sorted(day for day in silent if day >= news_from):
            judge.end(day, sessions, self.now)
        kept = trimmed(sessions, self.history, self.detail)
        after = replace(state, history=self.history, detail=self.detail, sessions=kept, fired=judge.fired)
        return after, judge.events


def judge_history(book: RuleBook, sessions: Iterable[SessionBars], until: datetime) -> list[Event]:
    """What would have fired, had each of these sessions been judged as it closed, up to ``until`` (UTC).

    In order of their bars, then of symbols and rules.
    """
    by_day: dict[date, dict[str, SessionBars]] = {}
    for bars in sessions:
        by_day.setdefault(bars.session_date, {})[bars.symbol] = bars
    events: list[Event] = []
    states: dict[str, SymbolState] = {}
    for traded in sessions_between(min(by_day), until.date()) if by_day else []:
        if traded.opens >= until:
            break
        evaluator, today = Evaluator(book, min(until, traded.closes)), by_day.get(traded.session_date, {})
        for symbol in dict.fromkeys([*states, *today]):
            changed = [StoredSession(today[symbol], 1)] if symbol in today else []
            states[symbol], found = evaluator.advance(states.get(symbol) or evaluator.start(symbol), changed)
            events += found
    return sorted(events, key=lambda event: (event.bar_start, event.symbol, event.rule.id))


class _Judge:
    """Collects the events of one symbol, and when each rule last fired."""

    def __init__(self, rules: Sequence[Rule], state: SymbolState) -> None:
        self.symbol = state.symbol
        self.rules = [(rule, SIGNALS[type(rule)]) for rule in rules if type(rule) in SIGNALS]
        self.silences = [rule for rule in rules if isinstance(rule, SilenceRule)]
        self.fired = dict(state.fired)
        self.events: list[Event] = []

    def bars(self, bars: SessionBars, seen: Seen, past: Sequence[Seen], fresh: Sequence[int]) -> None:
        """Judges the bars in these places of a session, in order, each with what came before it."""
        view = View(bars, seen.slots, past)
        for at in fresh:
            for rule, signal in self.rules:
                now = signal(rule, view, at)
                if now == NEITHER:
                    continue
                before = signal(rule, view, at - 1) if at else NEITHER
                for direction, hit, held in zip(("up", "down"), now, before, strict=True):
                    if hit and not held and getattr(rule, "direction", "both") in ("both", direction):
                        self._fire(rule, bars.session_date, bars.ts[at], direction, *hit, bars.close[at])
            if at or past:
                slot = seen.slots[at - 1] + 1 if at else 0
                price = bars.close[at - 1] if at else past[-1].last_close
                self._silent(bars.session_date, slot, (seen.slots[at] - slot) * BAR_MINUTES, price)

    def end(self, day: date, sessions: Mapping[date, Seen], now: datetime) -> None:
        """Judges the time since a session's last bar, up to ``now`` or its close."""
        traded = session(day)
        last = sessions.get(day) or next((sessions[known] for known in sorted(sessions)[::-1] if known < day), None)
        if traded is None or last is None:
            return
        slot = last.slots[-1] + 1 if last.session_date == day else 0
        quiet = min(now, traded.closes) - (traded.opens + slot * BAR)
        self._silent(day, slot, quiet // timedelta(minutes=1), last.last_close)

    def _silent(self, day: date, slot: int, minutes: int, price: float) -> None:
        for rule in self.silences:
            traded = session(day)
            if minutes >= rule.minutes and traded is not None:
                self._fire(rule, day, traded.opens + slot * BAR, None, minutes, None, price)

    def _fire(
        self,
        rule: Rule,
        day: date,
        bar_start: datetime,
        direction: str | None,
        value: float,
        reference: float | None,
        price: float,
    ) -> None:
        last = self.fired.get(rule.id)
        if last is not None:
            if last == bar_start or abs(bar_start - last) < timedelta(minutes=rule.cool_down_minutes):
                return
            last = max(last, bar_start)
        self.fired[rule.id] = last or bar_start
        self.events.append(Event(rule, self.symbol, day, bar_start, direction, value, reference, price))
