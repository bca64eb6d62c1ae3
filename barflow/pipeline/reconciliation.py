"""The reconciliation: compare the hops in every session, or in the sessions that changed, and record the result.

A check of everything takes a group of symbols at a time through all hops, so its memory does not grow with the archive.
The cost of a check of what changed follows the new runs. It does not see a store that changed outside of the runs, or
what a full load wrote again: the load itself compares its tables. The check of everything does, once a day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any

import psycopg

from barflow.errors import BarflowError
from barflow.lake.actions import count_actions as archived_actions
from barflow.lake.athena import open_archive
from barflow.lake.manifests import Manifest
from barflow.lake.partitions import Lake
from barflow.market.counts import SessionKey
from barflow.market.sessions import last_sessions, new_york, utc_now
from barflow.pipeline.hop_counts import (
    SESSIONS_OF_A_SYMBOL,
    LakeStream,
    Scope,
    groups,
    lake_counts,
    staged_counts,
)
from barflow.pipeline.process_plan import HOP as PROCESS
from barflow.pipeline.process_plan import OVERLAP, slices
from barflow.pipeline.status import SymbolStatus, add_vendor_days, compare, compare_actions
from barflow.pipeline.stores import Stores
from barflow.staging.actions import Actions
from barflow.staging.ledger import SUCCEEDED, Ledger
from barflow.staging.quarantine import Quarantine
from barflow.staging.sessions import Staging
from barflow.warehouse.connection import connect
from barflow.warehouse.queries import (
    consumed_manifests,
    count_actions,
    count_bars,
    last_load,
    loaded_since,
    stored_symbols,
    vendor_days,
)

HOP = "reconcile"
FULL_EVERY = timedelta(days=1)
# `barflow status` shows this many sessions of each symbol if everything was checked within FULL_EVERY.
RECENT_SESSIONS = 20


@dataclass(frozen=True)
class Waiting:
    """What changed and is not loaded: sessions, symbols with corporate actions, and the number of vendor daily bars."""

    sessions: frozenset[SessionKey]
    actions: frozenset[str]
    vendor_days: int

    def __bool__(self) -> bool:
        """Return whether the next runs have anything to do."""
        return bool(self.sessions or self.actions or self.vendor_days)


@dataclass(frozen=True)
class Checked:
    """The status of each symbol, and what was compared.

    ``since``: the first session whose bars were all counted; None: every session. ``full_at`` (UTC): the last check of
    everything that found no difference.
    """

    found: dict[str, SymbolStatus]
    since: date | None = None
    full_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what was compared as one JSON object."""
        return {
            "counted_since": self.since.isoformat() if self.since else None,
            "last_full_check": self.full_at.isoformat() if self.full_at else None,
        }

    def describe(self) -> str:
        """Return in one line what was compared."""
        if self.since is None:
            return "every session was counted"
        return (
            f"sessions since {self.since} and earlier ones that changed were counted; `barflow status --full` counts "
            f"every session (last done at {self.full_at:%Y-%m-%d %H:%M} UTC)"
        )

    @property
    def broken(self) -> list[str]:
        """Return a line per broken guarantee."""
        return [f"{symbol} {item}" for symbol, status in self.found.items() for item in status.broken]


class _Check:
    """One comparison of the hops, at the market's clock."""

    def __init__(self, stores: Stores, connection: psycopg.Connection[Any]) -> None:
        self.stores, self.connection, now = stores, connection, utc_now()
        self.started_at = now.replace(microsecond=now.microsecond // 1000 * 1000)  # as MongoDB stores it
        self.lake, self.now = open_archive(stores.settings), stores.clock()
        self.waiting = waiting_for(stores.staging, stores.ledger, self.lake, connection)

    def everything(self) -> dict[str, SymbolStatus]:
        """Compare every session of every symbol."""
        return self._compare(self._loaded() | {*self.stores.staging.symbols()}, Scope())

    def recent(self, changed: set[SessionKey]) -> tuple[dict[str, SymbolStatus], date | None]:
        """Compare the newest sessions of every symbol, and those that changed. Return the first of the newest, too."""
        newest = last_sessions(self.now, RECENT_SESSIONS)
        since = newest[0].session_date if newest else None
        earlier = frozenset(key for key in changed if since is None or key[1] < since.isoformat())
        # To list the staged symbols can take long. One that no later hop holds waits for the next run, or has changed.
        staged = {symbol for symbol, _ in chain(self.waiting.sessions, changed)}
        return self._compare(self._loaded() | staged, Scope(since, earlier)), since

    def changed(self, changed: Iterable[SessionKey]) -> dict[str, SymbolStatus]:
        """Compare the sessions that changed."""
        keys = frozenset(changed)
        return self._compare({symbol for symbol, _ in keys}, Scope(date.max, keys))

    def _loaded(self) -> set[str]:
        return {*self.lake.symbols(), *stored_symbols(self.connection)}

    def _compare(self, names: set[str], scope: Scope) -> dict[str, SymbolStatus]:
        stores, found = self.stores, dict[str, SymbolStatus]()
        of_name = _sessions_of(scope)
        grouped = list(groups(names, stores.instruments, of_name))
        stream = LakeStream(self.lake, [name for group in grouped for name in group]) if scope.since is None else None
        rejected = Quarantine(stores.database).counts()
        keys, waiting = _by_symbol(scope.keys), _by_symbol(self.waiting.sessions)
        today = new_york(self.now).date()
        for group in grouped:
            of_group = Scope(scope.since, frozenset(key for symbol in group for key in keys.get(symbol, ())))
            chosen = self._with_earlier(group, of_group)
            tables, rows = count_bars(self.connection, group, chosen.since, chosen.keys)
            compared = partial(
                compare,
                staged_counts(stores.staging, group, chosen, today),
                stream.take(group) if stream else lake_counts(self.lake, group, chosen, today),
                tables,
                table_rows=rows,
                rejected={symbol: rejected.pop(symbol) for symbol in group if symbol in rejected},
                now=self.now,
                instruments=stores.instruments,
                since=chosen.since,
            )
            pending = {key for symbol in group for key in waiting.get(symbol, ())}
            result = compared(waiting=pending)
            if any(item.broken for item in result.values()):
                result = compared(waiting=pending | self._staged_meanwhile())
            found |= result
        if scope.since != date.max:
            for symbol, count in rejected.items():
                found[symbol] = SymbolStatus(symbol, rejected=count)
        self._add_daily(found)
        return dict(sorted(found.items()))

    def _staged_meanwhile(self) -> set[SessionKey]:
        """Return the sessions that were staged since the check began: other hops need not hold them yet."""
        staged = self.stores.staging.counts(stamped_after=self.started_at)
        return {(item["symbol"], item["session_date"]) for item in staged}

    def _with_earlier(self, group: list[str], scope: Scope) -> Scope:
        """Add the last session before the scope of each symbol that may not have bars since its start.

        It shows the symbol's newest bar, and that its gap begins with the scope.
        """
        if scope.since is None or scope.since == date.max:
            return scope
        first = scope.since.isoformat()
        begun = {item["symbol"] for item in self.stores.staging.counts_of((symbol, first) for symbol in group)}
        earlier = self.stores.staging.newest_before((symbol for symbol in group if symbol not in begun), scope.since)
        return Scope(scope.since, scope.keys | {*earlier.items()})

    def _add_daily(self, found: dict[str, SymbolStatus]) -> None:
        """Add what is small: the comparisons with the vendor's daily bars, and the corporate actions."""
        thresholds = self.stores.settings.vendor_day_thresholds
        add_vendor_days(found, vendor_days(self.connection, thresholds), thresholds)
        hops = {
            "staged": Actions(self.stores.database).counts(),
            "parquet": archived_actions(self.lake),
            "warehouse": count_actions(self.connection),
        }
        meanwhile = {item.symbol for item in Actions(self.stores.database).changed(None, self.started_at)}
        compare_actions(found, hops, self.waiting.actions | meanwhile)


def _sessions_of(scope: Scope) -> Callable[[str], int]:
    """Return the function that returns how many sessions of a symbol a scope may hold."""
    if scope.since is None:
        return lambda symbol: SESSIONS_OF_A_SYMBOL
    recent = RECENT_SESSIONS if scope.since != date.max else 0
    keys = _by_symbol(scope.keys)
    return lambda symbol: recent + len(keys.get(symbol, ())) + 1


def _by_symbol(keys: Iterable[SessionKey]) -> dict[str, list[SessionKey]]:
    found: dict[str, list[SessionKey]] = {}
    for key in keys:
        found.setdefault(key[0], []).append(key)
    return found


def waiting_for(staging: Staging, ledger: Ledger, lake: Lake, connection: psycopg.Connection[Any]) -> Waiting:
    """Return what changed since the last publication, and what was published since the last load."""
    published = lake.manifest_ids()
    consumed = consumed_manifests(connection, published)
    sessions: set[SessionKey] = set()
    actions: set[str] = set()
    vendor_days = 0
    for planned in slices(staging.database, ledger, lake, None, full=False):
        sessions |= {(symbol, day) for (symbol, _), days in planned.partitions.items() for day in days}
        actions |= {item.symbol for item in planned.actions}
        vendor_days += len(planned.vendor_days)
    for manifest in (lake.manifest(run_id) for run_id in published if run_id not in consumed):
        sessions |= sessions_of(manifest)
        actions |= {item.symbol for item in manifest.actions}
        vendor_days += len(manifest.vendor_days)
    return Waiting(frozenset(sessions), frozenset(actions), vendor_days)


def sessions_of(manifest: Manifest) -> set[SessionKey]:
    """Return the sessions that a manifest names."""
    return {(item.symbol, day) for item in manifest.partitions for day in item.versions}


def changed_since(check: _Check, moment: datetime) -> set[SessionKey]:
    """Return the sessions that were staged, published or loaded since a moment (UTC)."""
    stores, since = check.stores, moment - OVERLAP
    found = {(item["symbol"], item["session_date"]) for item in stores.staging.counts(stamped_after=since)}
    runs = stores.ledger.finished_since(PROCESS, since, outcome=SUCCEEDED, lake=check.lake.uri, manifest={"$ne": None})
    published = {run["manifest"] for run in runs} | loaded_since(check.connection, since)
    for run_id in sorted(published):
        found |= sessions_of(check.lake.manifest(run_id))
    return found


def collect(stores: Stores) -> dict[str, SymbolStatus]:
    """Compare every session at every hop. Return the status by symbol, at the market's clock."""
    with connect(stores.reader_dsn) as connection:
        return _Check(stores, connection).everything()


def examine(stores: Stores, *, full: bool = False) -> Checked:
    """Return the status of every symbol for `barflow status`. It covers the newest sessions and those that changed.

    With ``full``, or if the last check of everything is older than a day, it covers every session.
    """
    with connect(stores.reader_dsn) as connection:
        check = _Check(stores, connection)
        last = _last(check, full=True)
        if not full and last and last > check.started_at - FULL_EVERY:
            found, since = check.recent(changed_since(check, _last(check) or last))
            return Checked(found, since, last)
        checked = Checked(check.everything(), None, last)
        return checked if checked.broken else Checked(checked.found, None, _record(check, full=True))


def reconcile(stores: Stores) -> dict[str, SymbolStatus]:
    """Return the status of what changed since the last reconciliation. Raise BarflowError naming what is broken.

    It compares every session if that was last done more than a day ago. Only a comparison without a difference is
    recorded, so a session that does not reconcile is compared again each time.
    """
    with connect(stores.reader_dsn) as connection:
        check = _Check(stores, connection)
        last = _last(check, full=True)
        full = last is None or last <= check.started_at - FULL_EVERY
        since = _last(check)
        checked = Checked(check.everything() if full or not since else check.changed(changed_since(check, since)))
        if checked.broken:
            more = f" and {len(checked.broken) - 3} more" if len(checked.broken) > 3 else ""
            raise BarflowError(
                f"the hops do not reconcile: {'; '.join(checked.broken[:3])}{more}. Nothing was lost; "
                "`barflow status --full` shows all. On one machine, `barflow process --full` and `barflow aggregate "
                "--full` rewrite archive and warehouse; in a deployment, the runbook says what to do."
            )
        _record(check, full=full)
        return checked.found


def reconcile_daily(stores: Stores) -> dict[str, SymbolStatus] | None:
    """Compare every session as ``reconcile`` does if that was last done more than a day ago; return None if not."""
    last = stores.ledger.last(HOP, outcome=SUCCEEDED, lake=open_archive(stores.settings).uri, full=True)
    return reconcile(stores) if last is None or last["started_at"] <= utc_now() - FULL_EVERY else None


def _last(check: _Check, **fields: Any) -> datetime | None:
    """Return the start (UTC) of the last check of this lake that found no difference."""
    found = check.stores.ledger.last(HOP, outcome=SUCCEEDED, lake=check.lake.uri, **fields)
    return found["started_at"] if found else None


def _record(check: _Check, *, full: bool) -> datetime:
    check.stores.ledger.record(HOP, check.started_at, lake=check.lake.uri, full=full)
    return check.started_at


def pending(stores: Stores) -> Waiting:
    """Return what the next runs do: what was staged since the last one, or is not loaded yet."""
    with connect(stores.reader_dsn) as connection:
        return waiting_for(stores.staging, stores.ledger, open_archive(stores.settings), connection)


def last_runs(stores: Stores) -> dict[str, dict[str, Any] | None]:
    """Return the newest run of each hop, and its outcome."""
    with connect(stores.reader_dsn) as connection:
        return {**_ledger_runs(stores.ledger), "aggregate": last_load(connection)}


def _ledger_runs(ledger: Ledger) -> dict[str, dict[str, Any] | None]:
    runs: dict[str, dict[str, Any] | None] = {}
    for hop in ("ingest", PROCESS):
        run = ledger.last(hop)
        runs[hop] = run and {
            "run_id": run["run_id"],
            "started_at": run["started_at"].isoformat(),
            "outcome": run["outcome"],
            **({"error": run["error"]} if run.get("error") else {}),
        }
    return runs
