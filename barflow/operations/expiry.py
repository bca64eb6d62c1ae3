"""Expiry in MongoDB: sessions that the archive and the warehouse contain, and rejected bars of long ago.

The archive and the warehouse keep every session. Corporate actions do not expire.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from barflow.lake.athena import open_archive
from barflow.market.sessions import new_york
from barflow.pipeline.status import lake_counts, pending
from barflow.pipeline.stores import Stores
from barflow.staging.quarantine import Quarantine
from barflow.warehouse.connection import connect
from barflow.warehouse.queries import count_bars


def expire_staging(stores: Stores, now: datetime) -> int:
    """Delete the session documents older than the setting ``staging_days``. Return how many.

    A session is deleted only if the archive and every bar table contain the same number of bars, its document has not
    changed since it was read, and no alert rule looks back on it.
    """
    cutoff = (new_york(now) - timedelta(days=_days_kept(stores))).date().isoformat()
    documents = [item for item in stores.staging.counts() if item["session_date"] < cutoff]
    if not documents:
        return 0
    unprocessed, archive = pending(stores).sessions, lake_counts(open_archive(stores.settings)).bars
    with connect(stores.reader_dsn) as connection:
        tables, _ = count_bars(connection)
    stored = [archive, *(table.bars for table in tables.values())]

    def is_in_every_store(item: dict[str, object]) -> bool:
        key = str(item["symbol"]), str(item["session_date"])
        return key not in unprocessed and all(bars.get(key) == item["bars"] for bars in stored)

    return stores.staging.expire(item for item in documents if is_in_every_store(item))


def expire_rejected(stores: Stores, now: datetime) -> int:
    """Delete the rejected bars that no answer held for the setting ``rejected_days``. Return how many."""
    return Quarantine(stores.database).expire(now - timedelta(days=stores.settings.rejected_days))


def _days_kept(stores: Stores) -> int:
    """Return the calendar days that a session stays.

    Rules and ticks look back on a number of sessions; twice as many calendar days contain them.
    """
    from barflow.alerts.evaluate import Evaluator

    looked_at = Evaluator(stores.alerts.book, stores.clock()).history
    return max(stores.settings.staging_days, 2 * looked_at, 2 * stores.settings.history_sessions)
