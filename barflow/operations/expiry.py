"""Which sessions may leave MongoDB? Old ones that the archive and the warehouse hold whole; those stay for good."""

from __future__ import annotations

from datetime import datetime, timedelta

from barflow.lake.athena import open_archive
from barflow.market.sessions import new_york
from barflow.pipeline.status import lake_counts
from barflow.pipeline.stores import Run
from barflow.warehouse.connection import connect
from barflow.warehouse.queries import count_bars


def expire_staging(run: Run, now: datetime) -> int:
    """Deletes the session documents older than the settings' ``staging_days``. Returns how many.

    Only those that the archive and every bar table hold with as many bars, in the version that was read; and none that
    a rule of alerts looks back on.
    """
    cutoff = (new_york(now) - timedelta(days=_days_kept(run))).date().isoformat()
    documents = [item for item in run.staging.counts() if item["session_date"] < cutoff]
    if not documents:
        return 0
    pending, archive = run.pending(), lake_counts(open_archive(run.settings)).bars
    with connect(run.warehouse_dsn) as connection:
        tables, _ = count_bars(connection)
    held = [archive, *(table.bars for table in tables.values())]

    def is_kept_elsewhere(item: dict[str, object]) -> bool:
        key = str(item["symbol"]), str(item["session_date"])
        return key not in pending and all(bars.get(key) == item["bars"] for bars in held)

    return run.staging.expire(item for item in documents if is_kept_elsewhere(item))


def _days_kept(run: Run) -> int:
    """Calendar days; as many sessions as the rules look back on fit into twice their number."""
    from barflow.alerts.evaluate import Evaluator

    looked_at = Evaluator(run.alerts.book, run.clock()).history
    return max(run.settings.staging_days, 2 * looked_at, 2 * run.settings.history_sessions)
