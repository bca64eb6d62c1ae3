"""How far is each hop, and what is missing or refused? Read from the ledgers, not by counting bars."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date, datetime
from typing import Any

from barflow.lake.partitions import Lake
from barflow.market.sessions import BAR, last_sessions, session
from barflow.pipeline.status import expected_by
from barflow.staging.connection import Document
from barflow.staging.ledger import SUCCEEDED
from dashboard.models import Gap, Health, Hop, HopRun, Rejected, WatchRow
from dashboard.queries import Loaded, Warehouse
from dashboard.staged import Staged
from dashboard.watch import market_at

GAP_SESSIONS = 20
MOST_GAPS = 50


def read_health(
    staged: Staged,
    warehouse: Warehouse,
    lake: Lake | None,
    rows: list[WatchRow],
    loaded: Collection[Loaded],
    now: datetime,
) -> Health:
    """The pipeline at a moment of the market's clock (UTC). ``rows`` are the watch-list's."""
    reach = last_sessions(now, GAP_SESSIONS)
    gaps = merged_gaps(warehouse.gaps(reach[0].session_date), staged, now) if reach else []
    ingest, process = staged.ledger.last("ingest"), staged.ledger.last("process")
    return Health(
        market=market_at(now),
        hops=[
            Hop(
                name="ingest",
                holds="MongoDB",
                data_until=_until(days[-1].newest_bar for days in staged.recent.values()),
                newest_session=max((days[-1].session_date for days in staged.recent.values()), default=None),
                run=_run(ingest),
            ),
            Hop(
                name="process",
                holds="Parquet archive",
                data_until=None,
                newest_session=_published(staged, lake),
                run=_run(process),
            ),
            Hop(
                name="aggregate",
                holds="PostgreSQL",
                data_until=_until(item.newest_bar for item in loaded if item.newest_bar),
                newest_session=max((item.session_date for item in loaded), default=None),
                run=warehouse.last_load(),
            ),
        ],
        symbols=len(rows),
        stale=[row.symbol for row in rows if row.freshness == "stale"],
        gaps=gaps[:MOST_GAPS],
        gaps_total=sum(gap.missing for gap in gaps),
        rejected=[Rejected(symbol=symbol, count=count) for symbol, count in sorted(staged.rejected().items())],
    )


def merged_gaps(loaded: list[Gap], staged: Staged, now: datetime) -> list[Gap]:
    """The incomplete sessions; of one that is staged, as it is there, up to what is due by ``now``."""
    found = {(gap.symbol, gap.session_date): gap for gap in loaded}
    for symbol, days in staged.recent.items():
        for day in days:
            traded = session(day.session_date)
            due = expected_by(traded, now) if traded else 0
            missing = due - len(day.closes)
            found.pop((symbol, day.session_date), None)
            if missing > 0:
                found[symbol, day.session_date] = Gap(
                    symbol=symbol, session_date=day.session_date, missing=missing, expected=due
                )
    return sorted(found.values(), key=lambda gap: (-gap.session_date.toordinal(), gap.symbol))


def _until(opens: Iterable[datetime]) -> datetime | None:
    """The close of the newest of these bars."""
    newest = max(opens, default=None)
    return newest + BAR if newest else None


def _published(staged: Staged, lake: Lake | None) -> date | None:
    """The newest session that the last manifest names."""
    run = staged.ledger.last("process", outcome=SUCCEEDED, manifest={"$ne": None})
    if lake is None or run is None:
        return None
    days = [day for item in lake.manifest(run["manifest"]).partitions for day in item.versions]
    return date.fromisoformat(max(days)) if days else None


def _run(document: Document | None) -> HopRun | None:
    if document is None:
        return None
    known: dict[str, Any] = {name: document.get(name) for name in HopRun.model_fields}
    return HopRun(**known)
