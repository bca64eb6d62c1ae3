"""Run a backtest: evaluate each session of a source at its close, by the code that evaluates live bars."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from multiprocessing import get_context, parent_process
from threading import Thread

from barflow.alerts.evaluate import Event, feed_silences
from barflow.alerts.rules import RuleBook, SilenceRule
from barflow.backtest.result import Backtest, in_order
from barflow.backtest.series import Series
from barflow.backtest.share import Found, Other, evaluate, evaluate_all
from barflow.backtest.sources import Archived, Source
from barflow.errors import BadInputError
from barflow.market.sessions import Session, new_york, sessions_between

SYMBOLS_AT_ONCE = 10


def run(
    book: RuleBook,
    source: Source,
    until: datetime,
    start: date | None = None,
    *,
    screened: bool = True,
    processes: int | None = None,
    on_symbols: Callable[[int], None] = lambda count: None,
) -> Backtest:
    """Return what the rules would have fired if each session had been evaluated at its close, up to ``until`` (UTC).

    Sessions before ``start`` are only looked back at; None: every session can fire. All splits of the source are known
    from the start. Without ``screened``, every bar is evaluated, which gives the same result and takes far longer.
    ``processes`` is how many evaluate at the same time; None: one per core if the archive has many shares.
    ``on_symbols`` is called with the number of shares that were evaluated since its last call.

    Raises BadInputError if no share has a bar that can fire.
    """
    others, missing = _others(book, source)
    job = _Job(book, source, until, start, screened, others)
    found: list[Found] = []
    for part in _in_processes(job, processes or _processes(source)):
        found += part
        on_symbols(len(part))
    first = min((share.since for share in found if share.since), default=None)
    if first is None:
        raise BadInputError(f"there are no bars of {', '.join(source.symbols)} up to {until:%Y-%m-%d %H:%M} UTC")
    feed = _feed(found)
    return Backtest(
        in_order([*_replaced((event for share in found for event in share.events), feed)]),
        in_order([event for share in found for event in share.cooled_down]),
        source.symbols,
        first,
        _opened(first, until)[-1].session_date,
        sum(share.bars for share in found),
        (*missing, *(f"{share.symbol}: {note}" for share in found for note in share.notes)),
    )


@dataclass(frozen=True)
class _Job:
    """What each process evaluates of its symbols."""

    book: RuleBook
    source: Source
    until: datetime
    start: date | None
    screened: bool
    others: Mapping[str, str]

    def __call__(self, symbols: Sequence[str]) -> list[Found]:
        evaluated = evaluate if self.screened else evaluate_all
        others = {name: Other(*self._evaluation(present)) for name, present in self.others.items()}
        return [evaluated(*self._evaluation(symbol), others) for symbol in symbols]

    def _evaluation(self, symbol: str) -> tuple[RuleBook, Series, Sequence[Session], datetime]:
        series = self.source.read(symbol)
        sessions = [item for item in self._sessions(series) if self._is_listed(symbol, item.session_date)]
        return self.book, series, sessions, self.until

    def _sessions(self, series: Series) -> list[Session]:
        """Return the sessions from a share's first one, or from ``start`` if it has earlier bars."""
        if not series.days:
            return []
        return _opened(max(series.days[0], self.start or series.days[0]), self.until)

    def _is_listed(self, symbol: str, day: date) -> bool:
        return self.source.instruments.is_listed(symbol, day)


def _others(book: RuleBook, source: Source) -> tuple[dict[str, str], list[str]]:
    """Return the present symbol of each symbol that rules of others name, and a note for each one without bars."""
    present, notes = {}, []
    for name in dict.fromkeys(name for symbol in source.symbols for name in book.others(symbol)):
        try:
            source.read(source.instruments.present(name))
        except BadInputError:
            notes.append(f"{name}: rules that name it are silent, because it has no bars here")
        else:
            present[name] = source.instruments.present(name)
    return present, notes


def _processes(source: Source) -> int:
    """Return how many processes are worth their start. Bars in memory would have to be copied to each."""
    most = len(source.symbols) // SYMBOLS_AT_ONCE
    return max(1, min(os.cpu_count() or 1, most)) if isinstance(source, Archived) else 1


def _in_processes(job: _Job, processes: int) -> Iterator[list[Found]]:
    """Yield what is found of each part of the symbols, in order."""
    symbols = job.source.symbols
    parts = [symbols[start : start + SYMBOLS_AT_ONCE] for start in range(0, len(symbols), SYMBOLS_AT_ONCE)]
    if processes == 1:
        yield from map(job, parts)
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _end_with_parent)
    try:
        yield from pool.map(job, parts)
    finally:
        pool.shutdown(cancel_futures=True)


def _opened(first: date, until: datetime) -> list[Session]:
    """Return the sessions from a day on that open before ``until`` (UTC)."""
    return [traded for traded in sessions_between(first, new_york(until).date()) if traded.opens < until]


def _end_with_parent() -> None:
    """End this process when its parent ends, also by a signal, instead of waiting for work forever."""
    parent = parent_process()
    assert parent is not None, "a pool started this process"

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _replaced(events: Iterable[Event], feed: Mapping[str, Event]) -> Iterator[Event]:
    """Yield events, and each alert of the feed once in the place of the silences that it replaces."""
    yield from {event.id: event for event in feed.values()}.values()
    for event in events:
        if not isinstance(event.rule, SilenceRule) or event.id not in feed:
            yield event


def _feed(found: Sequence[Found]) -> dict[str, Event]:
    """Return the one alert of the feed, by the id of each silence that it replaces, as ticks would have found it.

    At a moment, the silent shares are those whose gap had lasted for the minutes of the rule.
    """
    gaps: dict[tuple[str, date], list[Event]] = defaultdict(list)
    for event in (event for share in found for event in (*share.events, *share.cooled_down)):
        if isinstance(event.rule, SilenceRule):
            gaps[event.rule.id, event.session_date].append(event)
    replaced: dict[str, Event] = {}
    for (_, day), silences in sorted(gaps.items()):
        symbols = sum(share.since is not None and share.since <= day <= share.to for share in found)
        for moment in sorted({_noticed(event) for event in silences}):
            silent = [event for event in silences if _noticed(event) <= moment <= _ended(event)]
            replaced = feed_silences(silent, symbols) | replaced
    return replaced


def _noticed(event: Event) -> datetime:
    """Return when a silence had lasted for the minutes of its rule (UTC)."""
    assert isinstance(event.rule, SilenceRule)
    return event.bar_start + timedelta(minutes=event.rule.minutes)


def _ended(event: Event) -> datetime:
    """Return when a silence ended (UTC)."""
    return event.bar_start + timedelta(minutes=event.value)
