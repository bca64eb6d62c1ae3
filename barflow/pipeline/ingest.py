"""Ingest: one tick fetches, validates and stages bars, and accounts for each bar it received (guarantee G1).

A tick requests the bars from the revision window before the newest stored session up to now, so it catches
corrections at no extra credit. A symbol without history gets its past sessions. The tick handles one answer at a time,
so its memory follows the batch size, not the number of symbols. It may be killed, repeated or run twice at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from pymongo.database import Database

from barflow.alerts.tick import Alerts
from barflow.errors import BarflowError
from barflow.market.bars import SessionBars
from barflow.market.instruments import Instruments
from barflow.market.sessions import Session, last_sessions, new_york, previous_session, session, utc_now
from barflow.market.validation import Validated, jump_flags, validate
from barflow.pipeline.ingest_report import Counts, IngestReport, add_rejections
from barflow.pipeline.lineage import Run, reported
from barflow.pipeline.lineage_staging import INGEST
from barflow.pipeline.stores import Stores
from barflow.pipeline.tick_actions import Flags, TickActions
from barflow.pipeline.vendor import open_client
from barflow.progress import Log
from barflow.staging.connection import Document
from barflow.staging.ledger import FAILED, Ledger, new_run_id
from barflow.staging.quarantine import Quarantine
from barflow.staging.raw_answers import RawAnswers
from barflow.staging.requests import Range, Requests, closed_sessions
from barflow.staging.sessions import Saved, Staging
from barflow.twelvedata.client import RawResponse, SymbolError, TwelveDataClient

HOP = "ingest"
# Bars held in memory before they are written.
FLUSH_BARS = 20_000
# The newest stored session is searched in this many sessions first: today, yesterday and one holiday.
RECENT_SESSIONS = 3
Window = tuple[datetime, datetime]
# A validated answer and the time of its request (UTC).
Checked = tuple[datetime, Validated]
# Reports the lineage of the run with this id, as barflow.pipeline.lineage.reported does.
Reported = Callable[[str], AbstractContextManager[Callable[[Any], None]]]


def run(
    stores: Stores,
    symbols: Sequence[str],
    log: Log,
    *,
    window: Window | None = None,
    on_symbol: Callable[[str], None] = lambda symbol: None,
) -> IngestReport:
    """Run one tick for the symbols, over ``window`` (opens of the first and last bar, UTC) or since the stored bars.

    It asks for present symbols in place of former ones, and not for delisted ones. Notes of the report name both.
    ``on_symbol`` receives each finished symbol. Raises the errors of Ingest.tick, and BadInputError if an alert rule
    names a symbol that is neither among these nor among those of the settings.
    """
    stores.alerts.book.check_others([*stores.settings.symbols, *symbols], stores.instruments)
    asked, notes = stores.instruments.to_ask(symbols, new_york(stores.clock()).date())
    return open_ingest(stores, log).tick(asked, window=window, notes=notes, on_symbol=on_symbol)


def open_ingest(stores: Stores, log: Log) -> Ingest:
    """Return the hop with a client for the settings of these stores. Long waits for credits are written to ``log``."""
    settings, client = stores.settings, open_client(stores.settings, log)
    return Ingest(
        client,
        stores.database,
        history_sessions=settings.history_sessions,
        revision_sessions=settings.revision_sessions,
        clock=stores.clock,
        alerts=stores.alerts,
        instruments=stores.instruments,
        actions=TickActions(stores, client, log),
        lineage=lambda run_id: reported(Run(INGEST, settings, run_id, stores.lineage_parent), log),
    )


class Ingest:
    """The hop with its client and stores. ``clock`` returns the current time, or the time of a replay."""

    def __init__(
        self,
        client: TwelveDataClient,
        database: Database[Document],
        *,
        history_sessions: int,
        revision_sessions: int,
        clock: Callable[[], datetime] = utc_now,
        alerts: Alerts | None = None,
        instruments: Instruments | None = None,
        actions: TickActions | None = None,
        lineage: Reported = lambda run_id: nullcontext(lambda report: None),
    ) -> None:
        self.client = client
        self.history_sessions = history_sessions
        self.revision_sessions = revision_sessions
        self.clock = clock
        self.staging = Staging(database)
        self.quarantine = Quarantine(database)
        self.raw_answers = RawAnswers(database)
        self.requests = Requests(database)
        self.ledger = Ledger(database)
        self.alerts = alerts
        self.instruments = instruments or Instruments()
        self.actions = actions
        self.lineage = lineage

    def ensure(self) -> None:
        """Create missing collections, validators and indexes."""
        self.staging.ensure()
        self.quarantine.ensure()
        self.raw_answers.ensure()
        self.ledger.ensure()
        if self.alerts:
            self.alerts.ensure()

    def tick(
        self,
        symbols: Sequence[str],
        *,
        window: Window | None = None,
        run_id: str | None = None,
        notes: Mapping[str, str] | None = None,
        on_symbol: Callable[[str], None] = lambda symbol: None,
    ) -> IngestReport:
        """Run one tick over ``window`` (opens of the first and last bar, both included, UTC), or since the stored bars.

        A symbol that the vendor refuses is reported and does not stop the others. The report holds ``notes``, by
        symbol. Raises VendorRefusedError or UnavailableError if the tick cannot continue. What it stored stays, and
        the next tick resumes from there.
        """
        report = IngestReport(run_id or new_run_id(HOP))
        report.notes |= {symbol: [note] for symbol, note in (notes or {}).items()}
        with self.lineage(report.run_id) as done:
            self._tick(symbols, window, report, on_symbol)
            done(report)
        return report

    def _tick(
        self, symbols: Sequence[str], window: Window | None, report: IngestReport, on_symbol: Callable[[str], None]
    ) -> None:
        """Do the tick of a report."""
        self.ensure()
        self.ledger.start(HOP, report.run_id, symbols=list(symbols))
        if self.actions:
            self.actions.begin_tick(may_ask=window is None)
        try:
            # A window is in the past, so missing bars in it raise no alert of silence.
            with self.alerts.during_tick(() if window else symbols) if self.alerts else nullcontext():
                for start, end, group in self._requests(symbols, window):
                    self._fetch(group, start, end, report, on_symbol)
                if self.actions:
                    self.actions.ask_new([*report.counts])
        except BaseException as error:
            self._close(report, FAILED, error)
            raise
        add_rejections(report)
        self._close(report, report.outcome)

    def first_bar(self, symbol: str) -> date | SymbolError | None:
        """Ask for the day of a symbol's first bar. Raises as TwelveDataClient.first_bar does."""
        run_id = new_run_id(HOP)
        return self.client.first_bar(symbol, on_raw=lambda raw: self.raw_answers.store(raw, run_id))

    def _close(self, report: IngestReport, outcome: str, error: BaseException | None = None) -> None:
        if self.alerts:
            report.alerts = self.alerts.found
            for symbol, notes in self.alerts.notes.items():
                report.notes.setdefault(symbol, []).extend(notes)
            if about_alerts := [*self.alerts.down.values(), *self.alerts.ended]:
                report.notes["alerts"] = about_alerts
        if self.actions and self.actions.notes:
            report.notes["actions"] = self.actions.notes
        counts = {symbol: asdict(values) for symbol, values in report.counts.items()}
        facts: dict[str, object] = {
            "notes": [f"{name}: {note}" for name, found in report.notes.items() for note in found]
        }
        facts["errors"] = [{"symbol": item.symbol, "message": item.message} for item in report.errors.values()]
        if error is not None:
            facts["error"] = str(error) if isinstance(error, BarflowError) else type(error).__name__
        try:
            self.ledger.finish(report.run_id, outcome, counts, **facts)
        except BarflowError:
            if error is None:
                raise

    def _requests(
        self, symbols: Sequence[str], window: Window | None
    ) -> Iterator[tuple[datetime, datetime, list[str]]]:
        """Yield (start, end, symbols) per request: symbols with the same start time share a request."""
        if window:
            yield (*window, [*symbols])
            return
        now = self.clock()
        # At least the revision window, so that a short history does not hide corrections.
        reach = last_sessions(now, max(self.history_sessions, self.revision_sessions + 1))
        if not reach:
            raise BarflowError(
                f"no session has opened by {now:%Y-%m-%d %H:%M} UTC. Nothing was fetched. Check the clock."
            )
        recent = [item.session_date for item in reach[: -RECENT_SESSIONS - 1 : -1]]
        newest = self.staging.newest_sessions(symbols, recent)
        unknown = [symbol for symbol in symbols if symbol not in newest]
        if self.actions:
            self.actions.add_new(unknown)
        newest |= self._newest_former(unknown, recent)
        groups: dict[datetime, list[str]] = defaultdict(list)
        for symbol in symbols:
            groups[self._start(newest.get(symbol), reach)].append(symbol)
        for start, group in groups.items():
            yield start, now, group

    def _newest_former(self, symbols: Sequence[str], recent: Sequence[date]) -> dict[str, date]:
        """Return the newest session that is stored under a former symbol of each share: it continues after that."""
        newest: dict[str, date] = {}
        former = [name for name in self.instruments.stored_names(symbols) if name not in symbols]
        for name, day in self.staging.newest_sessions(former, recent).items():
            symbol = self.instruments.present_on(name, day)
            newest[symbol] = max(day, newest.get(symbol, day))
        return newest

    def _start(self, newest: date | None, reach: list[Session]) -> datetime:
        if newest is None:
            return reach[-self.history_sessions :][0].opens
        window = previous_session(newest, self.revision_sessions) or session(newest)
        assert window is not None, "only sessions are stored"
        # An interrupted first run is completed, not extended into the past.
        return window.opens if newest < reach[0].session_date else max(window.opens, reach[0].opens)

    def _fetch(
        self, symbols: list[str], start: datetime, end: datetime, report: IngestReport, on_symbol: Callable[[str], None]
    ) -> None:
        waiting: dict[str, Checked] = {}

        def flush() -> None:
            # A request for an unknown split comes before the alerts of its symbol, and after the bars of all others.
            jumping = {symbol: item for symbol, item in waiting.items() if item[1].jumps}
            others = {symbol: item for symbol, item in waiting.items() if symbol not in jumping}
            for part in filter(None, (others, jumping)):
                self._store(list(part.values()), self._flags(part), report)
            self._record_answers(waiting, start, end)
            for symbol in waiting:
                on_symbol(symbol)
            waiting.clear()

        def keep(raw: RawResponse) -> None:
            self.raw_answers.store(raw, report.run_id)

        try:
            for result in self.client.time_series(symbols, start, end, on_raw=keep):
                if isinstance(result, SymbolError):
                    report.errors[result.symbol] = result
                    on_symbol(result.symbol)
                    continue
                if result.symbol in waiting:  # another page of this symbol; a save accepts each session once
                    flush()
                checked = validate(result.symbol, result.meta, result.values, self.clock(), result.requested_at)
                waiting[result.symbol] = (result.requested_at, checked)
                if sum(item.received for _, item in waiting.values()) >= FLUSH_BARS:
                    flush()
        except BarflowError:
            flush()  # store what was received: its credits are spent
            raise
        flush()

    def _flags(self, waiting: Mapping[str, Checked]) -> Flags:
        """Return the flags of price jumps by symbol. An unknown split is asked for first."""
        answers = {symbol: checked for symbol, (_, checked) in waiting.items()}
        if self.actions:
            return self.actions.flags(answers)
        return {symbol: jump_flags(checked.jumps) for symbol, checked in answers.items()}

    def _record_answers(self, answers: Mapping[str, Checked], start: datetime, end: datetime) -> None:
        """Record which closed sessions these answers are complete for. An answer with rejected bars only is not."""
        ranges: dict[str, Range] = {}
        for symbol, (requested_at, checked) in answers.items():
            closed = closed_sessions(start, end, min(self.clock(), requested_at))
            if closed and (checked.accepted or not checked.rejected):
                ranges[symbol] = Range(closed[0].session_date, closed[-1].session_date, requested_at)
        self.requests.add(ranges)

    def _store(self, waiting: list[Checked], flags: Flags, report: IngestReport) -> None:
        """Write the rejected bars first, then the valid ones: a crash in between loses neither."""
        for requested_at, checked in waiting:
            self.quarantine.add(checked.rejected, report.run_id, requested_at)
        sessions = [(part, requested_at) for requested_at, checked in waiting for part in checked.sessions.values()]
        saved = self._save(sessions, report.run_id)
        for _, checked in waiting:
            counts = Counts(
                received=checked.received,
                unchanged=checked.repeated,
                rejected=len(checked.rejected),
                forming=checked.forming,
            )
            if done := saved.get(checked.symbol):
                counts.new, counts.revised = done.new, done.revised
                counts.unchanged += done.unchanged
            if not counts.balanced:
                raise BarflowError(
                    f"{checked.symbol}: the tick's bars do not add up ({counts}). They are stored. Please report this."
                )
            report.counts.setdefault(checked.symbol, Counts()).add(counts)
            reasons = report.reasons.setdefault(checked.symbol, Counter())
            reasons.update(reason for item in checked.rejected for reason in item.reasons)
            refused = [f"{item.reason}: {item.message}" for item in checked.contradictions]
            notes = [*checked.notes, *flags.get(checked.symbol, ()), *refused]
            if notes:
                report.notes.setdefault(checked.symbol, []).extend(notes)

    def _save(self, sessions: list[tuple[SessionBars, datetime]], run_id: str) -> Mapping[str, Saved]:
        """Store sessions, each with the time of its request, and evaluate alerts on them."""
        if self.alerts is None:
            return self.staging.save(sessions, run_id)
        keys = [bars.key for bars, _ in sessions]
        earliest = min((requested_at for _, requested_at in sessions), default=self.clock())
        return self.alerts.save(keys, run_id, earliest, lambda: self.staging.save(sessions, run_id))
