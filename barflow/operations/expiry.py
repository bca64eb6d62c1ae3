"""Expiry: sessions that archive and warehouse contain, old rejected bars and old runs are deleted from MongoDB.

Old manifests move to files by day and stay readable. The archive and the warehouse keep every session. Corporate
actions do not expire.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta

from barflow.lake.athena import open_archive
from barflow.lake.manifest_files import compact
from barflow.lake.partitions import Lake
from barflow.market.sessions import new_york, utc_now
from barflow.pipeline.hop_counts import SESSIONS_OF_A_SYMBOL, Scope, groups, lake_counts
from barflow.pipeline.reconciliation import pending
from barflow.pipeline.stores import Stores
from barflow.staging.connection import Document
from barflow.staging.ledger import LEDGER_KEPT, Lease, new_run_id
from barflow.staging.quarantine import Quarantine
from barflow.warehouse.connection import connect
from barflow.warehouse.queries import consumed_manifests, count_bars

# Longer than the longest backups of RDS (35 days): a restored warehouse loads again what it no longer knows.
MANIFEST_FILES_KEPT = timedelta(days=40)
LEASE_SECONDS = 60.0


def expire_staging(stores: Stores, now: datetime) -> int:
    """Delete the session documents older than the setting ``staging_days``. Return how many.

    A session is deleted only if the archive and every bar table contain the same number of bars, its document has not
    changed since it was read, and no alert rule looks back on it.
    """
    last = (new_york(now) - timedelta(days=_days_kept(stores) + 1)).date()
    return sum(stores.staging.expire(documents) for documents in _in_every_store(stores, last))


def _in_every_store(stores: Stores, last: date) -> Iterator[list[Document]]:
    """Yield, by group of symbols, the documents of sessions until ``last`` that archive and warehouse contain."""
    lake = open_archive(stores.settings)
    with connect(stores.reader_dsn) as connection:
        for group in groups(stores.staging.symbols(), stores.instruments, lambda symbol: SESSIONS_OF_A_SYMBOL):
            documents = {
                (item["symbol"], item["session_date"]): item for item in stores.staging.counts(group, until=last)
            }
            if not documents:
                continue
            tables, _ = count_bars(connection, group, date.max, documents)
            archived = lake_counts(lake, group, Scope(date.max, frozenset(documents)), last)
            stored = [archived.bars, *(table.bars for table in tables.values())]
            # After the documents were read: what is not published of those versions is among these.
            unprocessed = pending(stores).sessions
            yield [
                item
                for key, item in documents.items()
                if key not in unprocessed and all(bars.get(key) == item["bars"] for bars in stored)
            ]


def expire_rejected(stores: Stores, now: datetime) -> int:
    """Delete the rejected bars that no answer held for the setting ``rejected_days``. Return how many."""
    return Quarantine(stores.database).expire(now - timedelta(days=stores.settings.rejected_days))


def expire_runs(stores: Stores) -> int:
    """Delete the runs older than ``LEDGER_KEPT`` from MongoDB's ledger. Return how many."""
    return stores.ledger.expire(utc_now() - LEDGER_KEPT)


def compact_manifests(stores: Stores) -> int:
    """Move loaded manifests older than ``MANIFEST_FILES_KEPT`` to files by day. Return how many.

    Raises BusyError while another process does it.
    """
    lake = Lake(stores.settings.require("lake_uri"))
    lease = Lease(stores.database, f"compact {lake.uri}", new_run_id("compact"), LEASE_SECONDS)
    with lease.held(0, lambda _: None), connect(stores.reader_dsn) as connection:
        return compact(lake, lambda ids: consumed_manifests(connection, ids), utc_now() - MANIFEST_FILES_KEPT)


def _days_kept(stores: Stores) -> int:
    """Return the calendar days that a session stays.

    Rules and ticks look back on a number of sessions; twice as many calendar days contain them.
    """
    from barflow.alerts.evaluate import Evaluator

    looked_at = Evaluator(stores.alerts.book, stores.clock()).history
    return max(stores.settings.staging_days, 2 * looked_at, 2 * stores.settings.history_sessions)
