"""Which sessions may leave MongoDB? Old ones that the archive and the warehouse hold whole; those stay for good."""

from __future__ import annotations

from datetime import datetime, timedelta

from barflow.lake.athena import open_archive
from barflow.market.sessions import new_york
from barflow.pipeline.status import lake_counts, pending
from barflow.pipeline.stores import Stores
from barflow.warehouse.connection import connect
from barflow.warehouse.queries import count_bars


def expire_staging(stores: Stores, now: datetime) -> int:
    """Deletes the session documents older than the settings' ``staging_days``. Returns how many.

    Only those that the archive and every bar table hold with as many bars, in the version that was read; and none that
    a rule of alerts looks back on.
    """
    cutoff = (new_york(now) - timedelta(days=_days_kept(stores))).date().isoformat()
    documents = [item for item in stores.staging.counts() if item["session_date"] < cutoff]
    if not documents:
        return 0
    waiting, archive = pending(stores), lake_counts(open_archive(stores.settings)).bars
    with connect(stores.warehouse_dsn) as connection:
        tables, _ = count_bars(connection)
    held = [archive, *(table.bars for table in tables.values())]

    def is_kept_elsewhere(item: dict[str, object]) -> bool:
        key = str(item["symbol"]), str(item["session_date"])
        return key not in waiting and all(bars.get(key) == item["bars"] for bars in held)

    return stores.staging.expire(item for item in documents if is_kept_elsewhere(item))


def _days_kept(stores: Stores) -> int:
    """Calendar days; as many sessions as the rules look back on fit into twice their number."""
    from barflow.alerts.evaluate import Evaluator

    looked_at = Evaluator(stores.alerts.book, stores.clock()).history
    return max(stores.settings.staging_days, 2 * looked_at, 2 * stores.settings.history_sessions)
