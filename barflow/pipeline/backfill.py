"""Backfill: fetch past sessions, and plan its calls, credits and finish time without a call.

The plan simulates the client's calls with the rules of barflow.twelvedata.credits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from barflow.errors import BadInputError, UnavailableError
from barflow.market.sessions import BAR, Session, new_york, previous_session, sessions_between, utc_now
from barflow.pipeline.backfill_workers import fetch_in_parallel, workers_for
from barflow.pipeline.ingest import HOP, Ingest, open_ingest
from barflow.pipeline.ingest_report import IngestReport
from barflow.pipeline.status import expected_by
from barflow.pipeline.stores import Stores
from barflow.progress import Log
from barflow.settings import Settings
from barflow.staging.ledger import new_run_id
from barflow.text import counted
from barflow.twelvedata.client import MOST_ROWS, SymbolError, symbols_at_once
from barflow.twelvedata.credits import MINUTE, Credits

Chunk = tuple[datetime, datetime]


@dataclass(frozen=True)
class BackfillPlan:
    """What a backfill takes at most: sessions that are stored or answered need no call. All times are in UTC.

    ``chunks`` are ranges of whole sessions that fit into one answer, oldest first: the open of their first and last
    bar. ``minutes`` and ``days`` count the clock minutes and UTC days with calls. ``finishes_at`` is the end of the
    last such minute.
    """

    symbols: tuple[str, ...]
    first: date
    last: date
    sessions: int
    bars: int  # of all symbols, if nothing is missing
    chunks: list[Chunk]
    calls: int
    credits: int
    minutes: int
    days: int
    starts_at: datetime
    finishes_at: datetime
    credits_per_minute: int
    credits_per_day: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as one JSON object, with times and dates as ISO text."""
        return {
            "symbols": list(self.symbols),
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "sessions": self.sessions,
            "bars": self.bars,
            "chunks": [[start.isoformat(), end.isoformat()] for start, end in self.chunks],
            "calls": self.calls,
            "credits": self.credits,
            "minutes": self.minutes,
            "days": self.days,
            "starts_at": self.starts_at.isoformat(timespec="seconds"),
            "finishes_at": self.finishes_at.isoformat(timespec="seconds"),
            "credits_per_minute": self.credits_per_minute,
            "credits_per_day": self.credits_per_day,
        }

    def describe(self) -> str:
        """Return the plan in a few lines of text."""
        cap = "no daily cap" if self.credits_per_day is None else f"{self.credits_per_day:,} a day"
        lines = [
            f"{counted(len(self.symbols), 'symbol')}, {counted(self.sessions, 'session')} "
            f"from {self.first} to {self.last}: up to {self.bars:,} bars",
            f"{counted(self.calls, 'call')} for {counted(self.credits, 'credit')}, "
            f"in {counted(len(self.chunks), 'chunk')} of whole sessions",
            f"{counted(self.minutes, 'minute')} of calls at {self.credits_per_minute:,} credits a minute and {cap}",
            f"the credits allow it to finish by {self.finishes_at:%Y-%m-%d %H:%M} UTC",
        ]
        if self.days > 1:
            lines.append(
                f"calls on {self.days} UTC days: it stops when a day's credits are used up; "
                "run the same command again after 00:00 UTC, and it resumes where it stopped"
            )
        if len(self.chunks) > 1:
            lines.append("One credit per symbol asks for its first bar: sessions before it are not asked for.")
        lines.append("Sessions that are stored or were answered before are not fetched again, so it may take less.")
        return "\n".join(lines)


@dataclass
class Skipped:
    """How many sessions of the symbols a backfill did not ask for, and why."""

    stored: int = 0
    answered: int = 0  # without bars that are still staged
    before_first_bar: int = 0
    not_listed: int = 0

    def add(self, other: Skipped) -> None:
        """Add other counts to these."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    def describe(self) -> str:
        """Return the counts in a sentence, or an empty text if no session was skipped."""
        reasons = {
            "stored": self.stored,
            "answered before": self.answered,
            "before Twelve Data's first bar": self.before_first_bar,
            "outside of the listing": self.not_listed,
        }
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        total = counted(sum(reasons.values()), "session")
        advice = " `barflow backfill --again` fetches them again." if sum(reasons.values()) > self.not_listed else ""
        return f"skipped {total}: {why}.{advice}" if why else ""


@dataclass
class BackfillReport(IngestReport):
    """What a backfill of the symbols ``asked`` did, and which sessions it skipped."""

    skipped: Skipped = field(default_factory=Skipped)
    asked: list[str] = field(default_factory=list)

    def add(self, other: IngestReport) -> None:
        """Add what a tick or another process of the same backfill did."""
        super().add(other)
        if isinstance(other, BackfillReport):
            self.skipped.add(other.skipped)

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {**super().to_json(), "skipped": asdict(self.skipped)}


def run(
    stores: Stores,
    symbols: Sequence[str],
    first: date,
    last: date,
    log: Log,
    on_call: Callable[[int], None],
    *,
    again: bool = False,
) -> BackfillReport:
    """Fetch the sessions from ``first`` to ``last`` (exchange-local, both included).

    Many symbols of a large plan are fetched by several processes (barflow.pipeline.backfill_workers), some symbols at a
    time. Otherwise the oldest chunk of all symbols is first.

    A session is asked for once: a symbol is skipped in a chunk whose sessions are all stored whole, answered after they
    had closed, before Twelve Data's first bar, or outside of its listing. Sessions that are stored under a former
    symbol count as stored. So a backfill resumes where it stopped. With ``again`` it asks for every session again, and
    resumes an ``again`` of the same sessions that did not end. ``on_call`` receives the number of symbols of a chunk
    that are done. Raises as plan and Ingest.tick do.
    """
    chunks = plan_for(stores.settings, symbols, first, last, stores.clock()).chunks
    ingest = open_ingest(stores, log)
    ingest.ensure()
    if again:
        ingest.requests.begin_again(symbols, first, last, utc_now())
    if (workers := workers_for(stores, len(symbols))) > 1:
        report = BackfillReport(new_run_id("backfill"))
        for part in fetch_in_parallel(stores, symbols, partial(fetch, chunks=chunks, again=again), workers, log):
            report.add(part)
            on_call(len(part.asked) * len(chunks))
    else:
        report = fetch(ingest, symbols, log, chunks=chunks, again=again, on_call=on_call)
    if again:
        ingest.requests.end_again([symbol for symbol in symbols if symbol not in report.errors])
    if text := report.skipped.describe():
        log(text)
    return report


def fetch(
    ingest: Ingest,
    symbols: Sequence[str],
    log: Log,
    *,
    chunks: Sequence[Chunk],
    again: bool,
    on_call: Callable[[int], None] = lambda count: None,
) -> BackfillReport:
    """Fetch the chunks of these symbols in this process, oldest chunk first. Raises as Ingest.tick does."""
    report = BackfillReport(new_run_id("backfill"), asked=list(symbols))
    errors = _ask_first_bars(ingest, symbols, chunks, again=again, log=log)
    for start, end in chunks:
        left = [symbol for symbol in symbols if symbol not in errors]
        wanted, skipped = _to_ask(ingest, left, start, end, again=again)
        report.skipped.add(skipped)
        if done := len(symbols) - len(wanted):
            on_call(done)
        if wanted:
            tick = ingest.tick(wanted, window=(start, end), run_id=new_run_id(HOP), on_symbol=lambda _: on_call(1))
            report.add(tick)
            errors |= {symbol: error for symbol, error in tick.errors.items() if error.is_final or error.code >= 500}
    report.errors |= errors
    return report


def _ask_first_bars(
    ingest: Ingest, symbols: Sequence[str], chunks: Sequence[Chunk], *, again: bool, log: Log
) -> dict[str, SymbolError]:
    """Ask for the first bar of each symbol that has more than one chunk to fetch. Return the symbols' errors.

    It is asked once a symbol. For a single chunk it would cost as much as it can save.
    """
    known = ingest.requests.of(symbols)
    unknown = [symbol for symbol in symbols if not known[symbol].first_bar_is_asked]
    chunks_of: Counter[str] = Counter()
    if unknown and len(chunks) > 1:
        for start, end in chunks:
            chunks_of.update(_to_ask(ingest, unknown, start, end, again=again)[0])
    errors: dict[str, SymbolError] = {}
    for symbol in (symbol for symbol in unknown if chunks_of[symbol] > 1):
        try:
            day = ingest.first_bar(symbol)
        except UnavailableError as error:
            log(f"warning: first bars are unknown, so sessions before them are asked for. {error}")
            break
        if isinstance(day, SymbolError):
            errors[symbol] = day
        else:
            ingest.requests.set_first_bar(symbol, day)
    return errors


def _to_ask(
    ingest: Ingest, symbols: Sequence[str], start: datetime, end: datetime, *, again: bool
) -> tuple[list[str], Skipped]:
    """Return the symbols to request for a chunk, and the sessions of the other symbols."""
    now = ingest.clock()
    due = {item.session_date: expected_by(item, now) for item in sessions_between(start.date(), end.date())}
    bars: dict[tuple[str, date], int] = {}
    for document in ingest.staging.counts(ingest.instruments.stored_names(symbols), min(due), max(due)):
        day = date.fromisoformat(document["session_date"])
        key = (ingest.instruments.present_on(document["symbol"], day), day)
        bars[key] = max(document["bars"], bars.get(key, 0))
    wanted: list[str] = []
    skipped = Skipped()
    for symbol, answered in ingest.requests.of(symbols).items():
        found = Skipped()
        for day, expected in due.items():
            staged = bars.get((symbol, day), 0)
            if not ingest.instruments.is_listed(symbol, day):
                found.not_listed += 1
            elif staged and (answered.includes(day) or (not again and staged >= expected)):
                found.stored += 1
            elif answered.first_bar and day < answered.first_bar:
                found.before_first_bar += 1
            elif answered.includes(day):
                found.answered += 1
            else:
                wanted.append(symbol)
                break
        else:
            skipped.add(found)
    return wanted, skipped


def plan_for(
    settings: Settings, symbols: Sequence[str], first: date, last: date, now: datetime | None = None
) -> BackfillPlan:
    """Plan a backfill under the credits of the settings. Raise BadInputError for a range without sessions."""
    return plan(
        symbols,
        first,
        last,
        credits_per_minute=settings.credits_per_minute,
        credits_per_day=settings.credits_per_day,
        now=now or datetime.now(UTC),
        batch_size=settings.batch_size,
    )


def plan(
    symbols: Sequence[str],
    first: date,
    last: date,
    *,
    credits_per_minute: int,
    credits_per_day: int | None,
    now: datetime,
    batch_size: int,
) -> BackfillPlan:
    """Plan the sessions from ``first`` to ``last`` (exchange-local, both included) from ``now`` (UTC) on.

    It assumes that all credits of the current minute and day are left. Raises BadInputError for a range that is
    reversed, reaches into the future, leaves the calendar or has no session.
    """
    if not symbols:
        raise BadInputError("no symbols to fetch: name at least one, such as --symbols AAPL,MSFT")
    sessions = _sessions(first, last, now)
    chunks = _chunks(sessions, now)
    first_bars = [1] if len(chunks) > 1 else []  # a call for each symbol's first bar
    sizes = [*first_bars, *(symbols_at_once(*chunk, batch_size) for chunk in chunks)]
    calls = list(simulate(len(symbols), sizes, Credits(credits_per_minute, credits_per_day), now))
    minutes = {at.replace(second=0, microsecond=0) for at, _ in calls}
    return BackfillPlan(
        symbols=tuple(symbols),
        first=sessions[0].session_date,
        last=sessions[-1].session_date,
        sessions=len(sessions),
        bars=len(symbols) * sum(_opened(session, now) for session in sessions),
        chunks=chunks,
        calls=len(calls),
        credits=sum(count for _, count in calls),
        minutes=len(minutes),
        days=len({minute.date() for minute in minutes}),
        starts_at=now,
        finishes_at=max(minutes) + MINUTE,
        credits_per_minute=credits_per_minute,
        credits_per_day=credits_per_day,
    )


def simulate(
    symbols: int, batch_sizes: Sequence[int], credits: Credits, now: datetime
) -> Iterator[tuple[datetime, int]]:
    """Yield each call that the client makes: its earliest time and its credits. Each chunk has its batch size."""
    for batch_size in batch_sizes:
        waiting = symbols
        while waiting:
            if credits.day_is_spent(now):
                now = credits.resume_at(now)  # the user runs the command again, which makes batches of what is left
            batch = min(batch_size, waiting)
            while batch and not credits.day_is_spent(now):
                if not credits.left(now):
                    now = credits.resume_at(now)
                granted = min(credits.left(now), batch)
                credits.spend(granted, now)
                yield now, granted
                batch -= granted
                waiting -= granted


def _sessions(first: date, last: date, now: datetime) -> list[Session]:
    today = new_york(now).date()
    if first > last:
        raise BadInputError(f"the range {first} to {last} is reversed: its first day must not be after its last")
    if last > today:
        raise BadInputError(f"{last} is in the future: the last day that can be fetched is {today}, today in New York")
    found = [session for session in sessions_between(first, last) if session.opens <= now]
    if not found:
        before = previous_session(first)
        hint = f" The session before is {before.session_date}." if before else ""
        raise BadInputError(f"no session has opened from {first} to {last}: there is nothing to fetch.{hint}")
    return found


def _chunks(sessions: Sequence[Session], now: datetime) -> list[Chunk]:
    """Group whole sessions that fit into one answer, oldest first. The last chunk ends at the newest open bar."""
    chunks: list[Chunk] = []
    rows = MOST_ROWS + 1
    for session in sessions:
        rows += session.expected_bars
        if rows > MOST_ROWS:
            chunks.append((session.opens, session.opens))
            rows = session.expected_bars
        chunks[-1] = (chunks[-1][0], session.opens + BAR * (_opened(session, now) - 1))
    return chunks


def _opened(session: Session, now: datetime) -> int:
    """Return how many bars of a session have opened by ``now``. The session has opened."""
    return min(session.expected_bars, (now - session.opens) // BAR + 1)
