"""Expiry of staged sessions: delete old ones from MongoDB once the archive and the warehouse contain them.

The archive and the warehouse keep every session.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from barflow.lake.athena import open_archive
from barflow.market.sessions import new_york
from barflow.pipeline.status import lake_bars
from barflow.pipeline.stores import Run
from barflow.warehouse.connection import connect, held_bars


def expire_staging(run: Run, now: datetime) -> int:
    """Delete the session documents older than the setting ``staging_days``. Return how many.

    A session is deleted only if the archive and every bar table contain the same number of bars, its document has not
    changed since it was read, and no alert rule looks back on it.
    """
    cutoff = (new_york(now) - timedelta(days=_days_kept(run))).date().isoformat()
    documents = [item for item in run.staging.counts() if item["session_date"] < cutoff]
    if not documents:
        return 0
    pending, archive = run.pending(), lake_bars(open_archive(run.settings)).bars
    with connect(run.warehouse_dsn) as connection:
        tables, _ = held_bars(connection)
    stores = [archive, *(table.bars for table in tables.values())]

    def is_in_every_store(item: dict[str, object]) -> bool:
        key = str(item["symbol"]), str(item["session_date"])
        return key not in pending and all(bars.get(key) == item["bars"] for bars in stores)

    return run.staging.expire(item for item in documents if is_in_every_store(item))


def _days_kept(run: Run) -> int:
    """Return the calendar days that a session stays.

    Rules and ticks look back on a number of sessions; twice as many calendar days contain them.
    """
    from barflow.alerts.evaluate import Evaluator

    looked_at = Evaluator(run.alerts.book, run.clock()).history
    return max(run.settings.staging_days, 2 * looked_at, 2 * run.settings.history_sessions)
