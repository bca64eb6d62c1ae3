"""Run a backtest: evaluate each session of a source at its close, by the code that evaluates live bars."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from barflow.alerts.evaluate import Evaluator, Event, feed_silences
from barflow.alerts.rules import RuleBook, SilenceRule
from barflow.backtest.result import Backtest, in_order
from barflow.backtest.series import Series
from barflow.backtest.sources import Source
from barflow.errors import BadInputError
from barflow.market.sessions import Session, new_york, sessions_between
from barflow.staging.sessions import StoredSession


@dataclass
class Found:
    """What was found of one share. ``since`` is the first session in which it could fire, None without bars."""

    symbol: str
    since: date | None
    bars: int = 0
    events: list[Event] = field(default_factory=list)
    cooled_down: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def run(book: RuleBook, source: Source, until: datetime, start: date | None = None) -> Backtest:
    """Return what the rules would have fired if each session had been evaluated at its close, up to ``until`` (UTC).

    Sessions before ``start`` are only looked back at; None: every session can fire. All splits of the source are known
    from the start. Raises BadInputError if no share has a bar that can fire.
    """
    found = []
    for symbol in source.symbols:
        series = source.read(symbol)
        found.append(_evaluate(book, series, _sessions(series, until, start), until))
    first = min((share.since for share in found if share.since), default=None)
    if first is None:
        raise BadInputError(f"there are no bars of {', '.join(source.symbols)} up to {until:%Y-%m-%d %H:%M} UTC")
    events = [event for share in found for event in share.events]
    cooled_down = [event for share in found for event in share.cooled_down]
    feed = _feed([*events, *cooled_down], [share.since for share in found if share.since])
    listed = source.instruments.is_listed
    events = [event for event in events if listed(event.symbol, event.session_date)]
    return Backtest(
        in_order([*{(each := feed.get(event.id, event)).id: each for event in events}.values()]),
        in_order([event for event in cooled_down if event.id not in feed]),
        source.symbols,
        first,
        _opened(first, until)[-1].session_date,
        sum(share.bars for share in found),
        tuple(f"{share.symbol}: {note}" for share in found for note in share.notes),
    )


def _opened(first: date, until: datetime) -> list[Session]:
    """Return the sessions from a day on that open before ``until`` (UTC)."""
    return [traded for traded in sessions_between(first, new_york(until).date()) if traded.opens < until]


def _sessions(series: Series, until: datetime, start: date | None) -> list[Session]:
    """Return the sessions in which a share can fire: from its first one, or from ``start`` if it has earlier bars."""
    return _opened(max(series.days[0], start or series.days[0]), until) if series.days else []


def _evaluate(book: RuleBook, series: Series, sessions: Sequence[Session], until: datetime) -> Found:
    """Evaluate each session of a share at its close."""
    if not sessions:
        return Found(series.symbol, None)
    found, state = Found(series.symbol, sessions[0].session_date), None
    waiting = [*series.days]
    for traded in sessions:
        evaluator = Evaluator(book, min(until, traded.closes))
        count = bisect.bisect_right(waiting, traded.session_date)
        changed = [StoredSession(series.session(series.places[day]), 1) for day in waiting[:count]]
        del waiting[:count]
        state = state or evaluator.new_state(series.symbol)
        found.bars += sum(len(item.bars) for item in changed if item.bars.session_date >= state.horizon)
        evaluated = evaluator.evaluate(state, changed, series.splits)
        state = evaluated.state
        found.events += evaluated.events
        found.cooled_down += evaluated.cooled_down
        found.notes += evaluated.notes
    return found


def _feed(events: Iterable[Event], since: Sequence[date]) -> dict[str, Event]:
    """Return the one alert of the feed, by the id of each silence that it replaces, as ticks would have found it.

    ``since`` holds the first session of each share. At a moment, the silent shares are those whose gap had lasted for
    the minutes of the rule.
    """
    gaps: dict[tuple[str, date], list[Event]] = defaultdict(list)
    for event in events:
        if isinstance(event.rule, SilenceRule):
            gaps[event.rule.id, event.session_date].append(event)
    replaced: dict[str, Event] = {}
    for (_, day), found in sorted(gaps.items()):
        symbols = sum(first <= day for first in since)
        for moment in sorted({_noticed(event) for event in found}):
            silent = [event for event in found if _noticed(event) <= moment <= _ended(event)]
            replaced = feed_silences(silent, symbols) | replaced
    return replaced


def _noticed(event: Event) -> datetime:
    """Return when a silence had lasted for the minutes of its rule (UTC)."""
    assert isinstance(event.rule, SilenceRule)
    return event.bar_start + timedelta(minutes=event.rule.minutes)


def _ended(event: Event) -> datetime:
    """Return when a silence ended (UTC)."""
    return event.bar_start + timedelta(minutes=event.value)
