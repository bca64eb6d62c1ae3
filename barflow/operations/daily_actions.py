"""The daily requests about corporate actions: splits and dividends before the open, daily bars after the close.

What is due follows from the market's clock and from what was asked before, so a run may be killed, repeated, or run
twice at once: it asks only for what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property, partial
from typing import Any

from barflow.alerts.channels import post_to_slack
from barflow.market.sessions import Session, new_york, previous_session, session, utc_now
from barflow.market.vendor_days import FINAL_AFTER, newest_final
from barflow.pipeline.actions import HOP, ActionsReport, refresh, stage_days, text_of
from barflow.pipeline.stores import Stores
from barflow.pipeline.vendor import Allowance, open_client, spare_credits
from barflow.progress import Log
from barflow.staging.action_attempts import Attempt, Attempts
from barflow.staging.ledger import PARTIAL, SUCCEEDED, new_run_id
from barflow.staging.vendor_days import VendorDays
from barflow.text import slack_escaped
from barflow.twelvedata.client import SymbolError, TwelveDataClient

# A refresh ends this long before the open, so that the first tick of the session has the credits of its minute.
BEFORE_OPEN = timedelta(minutes=2)
# A daily bar that Twelve Data lacked in the evening is asked for again after this time, which is before the open.
ASK_AGAIN = timedelta(hours=6)
# A request for the newest daily bar asks for this many, because earlier ones may have been corrected.
ROWS = 10
LONGEST_TEXT = 400


@dataclass
class DailyReport:
    """What a run did. ``outcome`` is idle if nothing was due, partial if something is left to do, else succeeded."""

    outcome: str = "idle"
    actions: ActionsReport | None = None
    vendor_days: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        changes = self.actions.to_json()["symbols"] if self.actions else {}
        return {"symbols": changes, **{name: value for name, value in vars(self).items() if name != "actions"}}


def run_due(stores: Stores, log: Log, longest: timedelta | None = None) -> DailyReport:
    """Ask for what is due now, for at most ``longest``, within the credits that the ticks of the day leave.

    Before the open of a session: the actions of the symbols that were not asked for since the last close. While the
    market is closed: the daily bars of the newest session that are not staged. A contradiction is posted to Slack once
    a day. Raises VendorRefusedError and UnavailableError. What was stored is kept, and the next run resumes.
    """
    run = _Daily(stores, log)
    if stores.settings.actions_source == "none":
        return run.report
    now = stores.clock()
    traded, newest = session(new_york(now).date()), newest_final(now)
    limits = [] if longest is None else [utc_now() + longest]
    if traded and now < traded.opens:
        limits.append(utc_now() + (traded.opens - BEFORE_OPEN - now))
    run.until = min(limits, default=None)
    try:
        if traded and now < traded.opens - BEFORE_OPEN:
            run.refresh_actions(traded.session_date)
        if newest and (traded is None or now < traded.opens - BEFORE_OPEN or traded == newest):
            run.fetch_days(newest)
    finally:
        run.post_contradictions(now)
    report = run.report
    if run.has_asked or report.left:
        report.outcome = PARTIAL if report.errors or report.left else SUCCEEDED
    return report


@dataclass
class _Daily:
    """One run: its stores, its client, and what it has done so far."""

    stores: Stores
    log: Log
    report: DailyReport = field(default_factory=DailyReport)
    until: datetime | None = None
    has_asked: bool = False

    @cached_property
    def client(self) -> TwelveDataClient:
        return open_client(self.stores.settings, self.log)

    @cached_property
    def allowance(self) -> Allowance:
        return Allowance(spare_credits(self.stores), self.until)

    @cached_property
    def attempts(self) -> Attempts:
        return Attempts(self.stores.database)

    def refresh_actions(self, day: date) -> None:
        """Refresh the actions of the symbols that were not asked for since the last close before a session."""
        before, symbols = previous_session(day), self.stores.symbols
        since = before.closes if before else self.stores.clock()
        asked = self.attempts.of(symbols)
        due = [symbol for symbol in symbols if (at := asked[symbol].asked_at) is None or at < since]
        if not due:
            return
        self.has_asked = True
        done = refresh(self.stores, due, self.log, client=self.client, allowance=self.allowance)
        report = self.report
        report.actions, report.left = done, done.left
        report.vendor_days += done.vendor_days
        report.errors |= {symbol: text_of(error) for symbol, error in done.errors.items()}

    def fetch_days(self, newest: Session) -> None:
        """Stage the daily bars of a session that are missing. A bar that Twelve Data lacks is asked for twice."""
        symbols, now = self.stores.symbols, self.stores.clock()
        days, asked = VendorDays(self.stores.database), self.attempts.of(symbols)
        days.ensure()
        stored = days.stored(symbols, newest.session_date)
        due = [symbol for symbol in symbols if symbol not in stored and _is_due(asked[symbol], newest, now)]
        keep = partial(self.stores.raw_answers.store, run_id=new_run_id(HOP))
        size = self.stores.settings.batch_size
        for start in range(0, len(due), size):
            batch = due[start : start + size]
            if not self.allowance.takes(self.client, len(batch)):
                self.report.left = [*dict.fromkeys([*self.report.left, *due[start:]])]
                return
            self.has_asked = True
            for result in self.client.daily(batch, "none", rows=ROWS, on_raw=keep):
                if isinstance(result, SymbolError):
                    self.report.errors[result.symbol] = result.message
                else:
                    self.report.vendor_days += stage_days(self.stores, result)
                self.attempts.day_asked([result.symbol], now)

    def post_contradictions(self, now: datetime) -> None:
        """Post the symbols whose answers contradict themselves to Slack, each once a day."""
        day = new_york(now).date()
        errors = self.report.actions.errors if self.report.actions else {}
        found = {
            symbol: error
            for symbol, error in errors.items()
            if isinstance(error, str) and self.attempts.claim_post(symbol, day)
        }
        if found and (
            problem := post_to_slack(self.stores.settings, contradictions_text(self.stores.settings.env, found))
        ):
            self.log(f"warning: Slack message was not sent: {problem}")


def _is_due(asked: Attempt, newest: Session, now: datetime) -> bool:
    at = asked.day_asked_at
    return at is None or at < newest.closes + FINAL_AFTER or at <= now - ASK_AGAIN


def contradictions_text(env: str, found: Mapping[str, str]) -> str:
    """Return the Slack message about answers that contradict themselves, by symbol."""
    return "\n".join(
        (
            f":warning: *splits and dividends* in {slack_escaped(env)}: Twelve Data contradicts itself",
            *(
                f"{slack_escaped(symbol)}: {slack_escaped(text, LONGEST_TEXT)}"
                for symbol, text in sorted(found.items())
            ),
            "Their actions stay as they were. Import the right ones with `barflow actions import`",
        )
    )
