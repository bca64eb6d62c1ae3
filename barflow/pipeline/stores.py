"""What a command needs to run a hop: settings, clock, and the stores opened from them, each on first use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from pymongo.database import Database

from barflow.alerts.channels import channels
from barflow.alerts.rules import load_rules
from barflow.alerts.tick import Alerts
from barflow.errors import BadInputError, BarflowError, UnavailableError, VendorRefusedError
from barflow.market.sessions import utc_now
from barflow.pipeline.backfill import BackfillPlan, plan
from barflow.pipeline.ingest import HOP, Ingest, TickReport
from barflow.pipeline.program import run_child
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.staging.connection import Document, connect
from barflow.staging.ledger import Ledger, new_run_id
from barflow.staging.sessions import Staging
from barflow.twelvedata.client import TwelveDataClient

if TYPE_CHECKING:
    from barflow.pipeline.status import SymbolStatus

ROOT = Path(__file__).parents[2]
Say = Callable[[str], None]


@dataclass
class Run:
    """One command's run. ``clock`` is the market's; ``environment`` goes to child programs on top of ours, and
    ``on_child`` hears of each one that starts."""

    settings: Settings
    clock: Callable[[], datetime] = utc_now
    environment: Mapping[str, str] = field(default_factory=dict)
    on_child: Callable[[subprocess.Popen[str]], None] = lambda child: None

    @cached_property
    def database(self) -> Database[Document]:
        uri = resolve(self.settings.mongodb_uri, "BARFLOW_MONGODB_URI")
        return connect(uri, self.settings.mongodb_database)

    @cached_property
    def alerts(self) -> Alerts:
        """The rules of the settings and the channels that they open. Raises BadInputError where one is wrong."""
        return Alerts(self.database, load_rules(self.settings.alerts_file), channels(self.settings), self.clock)

    @property
    def staging(self) -> Staging:
        return Staging(self.database)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.database)

    @property
    def warehouse_dsn(self) -> str:
        return resolve(self.settings.warehouse_dsn, "BARFLOW_WAREHOUSE_DSN")

    def ingest(self, say: Say) -> Ingest:
        """The hop with a client for these settings; long waits for credits are told."""
        key = self.settings.twelvedata_api_key
        client = TwelveDataClient(
            self.settings.twelvedata_url,
            SecretStr(resolve(key, "TWELVEDATA_API_KEY")) if key else None,
            credits_per_minute=self.settings.credits_per_minute,
            credits_per_day=self.settings.credits_per_day,
            batch_size=self.settings.batch_size,
            on_wait=lambda seconds, why: say(f"waiting {seconds:.0f} s: {why}"),
        )
        return Ingest(
            client,
            self.database,
            history_sessions=self.settings.history_sessions,
            revision_sessions=self.settings.revision_sessions,
            clock=self.clock,
            alerts=self.alerts,
        )

    def migrate(self, say: Say, *, dry_run: bool = False) -> list[str]:
        """Brings the warehouse's schema up to date; returns the names of what was, or would be, applied."""
        from barflow.warehouse import migrations

        if dry_run:
            return migrations.pending(self.warehouse_dsn, ROOT / "sql")
        done = migrations.migrate(self.warehouse_dsn, ROOT / "sql")
        for name in done:
            say(f"migrated {name}")
        return done

    def program(self, name: str, say: Say, *arguments: str) -> dict[str, Any]:
        """Runs a Spark program of the checkout as a child process; ``say`` hears its progress. Returns its result."""
        child = [sys.executable, str(script(name)), *arguments]
        return run_child(child, {**os.environ, **self.environment}, say, self.on_child)

    def status(self) -> dict[str, SymbolStatus]:
        """The end-to-end reconciliation of all hops, by symbol, at the market's clock."""
        from barflow.lake.athena import open_archive
        from barflow.pipeline.status import collect
        from barflow.staging.quarantine import Quarantine
        from barflow.warehouse.connection import connect as connect_warehouse
        from barflow.warehouse.queries import consumed_manifests, count_bars

        lake, quarantine = open_archive(self.settings), Quarantine(self.database)
        with connect_warehouse(self.warehouse_dsn) as connection:
            tables, rows = count_bars(connection)
            consumed = consumed_manifests(connection)
        return collect(self.staging, self.ledger, quarantine, lake, tables, rows, consumed, self.clock())

    def reconcile(self) -> dict[str, SymbolStatus]:
        """The status, if every guarantee holds. Raises BarflowError naming what does not."""
        found = self.status()
        broken = [f"{symbol} {item}" for symbol, status in found.items() for item in status.broken]
        if broken:
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            raise BarflowError(
                f"the hops do not reconcile: {'; '.join(broken[:3])}{more}. Nothing was lost; `barflow status` tells "
                "all. `barflow process --full` and `barflow aggregate --full` write archive and warehouse again."
            )
        return found

    def pending(self) -> set[tuple[str, str]]:
        """The (symbol, session) that a process run would take: staged since the last one, or not loaded yet."""
        from barflow.lake.athena import open_archive
        from barflow.pipeline.status import pending_sessions
        from barflow.warehouse.connection import connect as connect_warehouse
        from barflow.warehouse.queries import consumed_manifests

        with connect_warehouse(self.warehouse_dsn) as connection:
            consumed = consumed_manifests(connection)
        return pending_sessions(self.staging, self.ledger, open_archive(self.settings), consumed)

    def last_runs(self) -> dict[str, dict[str, Any] | None]:
        """The newest run of each hop and how it ended."""
        from barflow.pipeline.status import last_runs
        from barflow.warehouse.connection import connect as connect_warehouse
        from barflow.warehouse.queries import last_load

        with connect_warehouse(self.warehouse_dsn) as connection:
            return {**last_runs(self.ledger), "aggregate": last_load(connection)}

    def backfill(
        self, symbols: Sequence[str], first: date, last: date, say: Say, on_call: Callable[[int], None]
    ) -> TickReport:
        """Fetches past sessions, oldest chunk first. ``on_call`` hears how many symbols of a chunk are done.

        A symbol whose sessions of a chunk are stored whole is not asked for again: so it resumes where it stopped.
        """
        planned = plan_backfill(self.settings, symbols, first, last, self.clock())
        ingest = self.ingest(say)
        ingest.ensure()
        total = TickReport(new_run_id("backfill"))
        for start, end in planned.chunks:
            wanted = self._incomplete(symbols, start, end)
            if stored := len(symbols) - len(wanted):
                on_call(stored)
            if not wanted:
                continue
            done = ingest.tick(wanted, window=(start, end), run_id=new_run_id(HOP), on_symbol=lambda _: on_call(1))
            for symbol, counts in done.counts.items():
                total.counts.setdefault(symbol, type(counts)()).add(counts)
            total.errors |= done.errors
            symbols = [symbol for symbol in symbols if symbol not in done.errors]
        return total

    def _incomplete(self, symbols: Sequence[str], start: datetime, end: datetime) -> list[str]:
        from barflow.market.sessions import sessions_between
        from barflow.pipeline.status import expected_by

        now = self.clock()
        due = {str(item.session_date): expected_by(item, now) for item in sessions_between(start.date(), end.date())}
        held: dict[str, set[str]] = {symbol: set() for symbol in symbols}
        for document in self.staging.counts(symbols, start.date()):
            if document["bars"] >= due.get(document["session_date"], 1 << 30):
                held[document["symbol"]].add(document["session_date"])
        return [symbol for symbol in symbols if len(held[symbol]) < len(due)]


def plan_backfill(
    settings: Settings, symbols: Sequence[str], first: date, last: date, now: datetime | None = None
) -> BackfillPlan:
    """The plan of a backfill under the settings' credits. Raises BadInputError for a range without sessions."""
    return plan(
        symbols,
        first,
        last,
        credits_per_minute=settings.credits_per_minute,
        credits_per_day=settings.credits_per_day,
        now=now or datetime.now(UTC),
        batch_size=settings.batch_size,
    )


def script(name: str) -> Path:
    """A program of the checkout, such as ``spark/bars_to_parquet.py``."""
    path = ROOT / name
    if not path.exists():
        raise BadInputError(f"{name} is not in this installation: run the command from a checkout of the project")
    return path


def raise_refusals(report: TickReport) -> None:
    """Ends a command by what the vendor refused: unknown symbols are bad input, the plan's limits a refusal, an
    answer that could not be used a failure."""
    if not report.errors:
        return
    errors = report.errors.values()
    refused = "; ".join(f"{item.symbol} ({item.message.rstrip('.')})" for item in errors)
    kept = f"{len(report.counts)} other symbols were stored." if report.counts else "Nothing was stored."
    if all(item.code >= 500 for item in errors):
        raise UnavailableError(f"Twelve Data gave no usable answer for {refused}. {kept} Run the same command again.")
    if any("plan" in item.message.lower() for item in errors):
        raise VendorRefusedError(f"Twelve Data refused {refused}. {kept} Choose symbols of your plan, then run again.")
    raise BadInputError(f"Twelve Data does not know {refused}. {kept} Check the spelling, then run again.")
