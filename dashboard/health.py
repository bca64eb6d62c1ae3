"""The pipeline's health from its ledgers: how far each hop is, missing bars and rejected bars."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date, datetime
from functools import partial

from barflow.lake.partitions import Lake
from barflow.market.instruments import Instruments
from barflow.market.sessions import BAR, last_sessions, session
from barflow.pipeline.status import expected_by
from barflow.staging.connection import Document
from barflow.staging.ledger import SUCCEEDED
from dashboard.models import Gap, Health, Hop, Rejected, Unread, WatchRow
from dashboard.queries import Loaded, Warehouse
from dashboard.staged import Staged
from dashboard.watch import market_at

GAP_SESSIONS = 20
MAX_GAPS = 50


def read_health(
    staged: Staged,
    warehouse: Warehouse,
    lake: Lake | None,
    rows: list[WatchRow],
    loaded: Collection[Loaded],
    now: datetime,
    instruments: Instruments,
) -> Health:
    """Return the pipeline's health at a moment of the market's clock (UTC). ``rows`` are those of the watch list."""
    reach = last_sessions(now, GAP_SESSIONS)
    found = merged_gaps(warehouse.gaps(reach[0].session_date), staged, now) if reach else []
    gaps = [gap for gap in found if instruments.trades_as(gap.symbol, gap.session_date)]
    return Health(
        market=market_at(now),
        hops=[
            Hop(
                name="ingest",
                holds="MongoDB",
                data_until=_newest_close(sessions[-1].newest_bar for sessions in staged.recent.values()),
                newest_session=max((sessions[-1].session_date for sessions in staged.recent.values()), default=None),
                run=staged.last_run("ingest"),
            ),
            Hop(
                name="process",
                holds="Parquet archive",
                data_until=None,
                newest_session=_newest_published(staged, lake),
                run=staged.last_run("process"),
            ),
            Hop(
                name="aggregate",
                holds="PostgreSQL",
                data_until=_newest_close(item.newest_bar for item in loaded if item.newest_bar),
                newest_session=max((item.session_date for item in loaded), default=None),
                run=warehouse.last_load(),
            ),
        ],
        symbols=len(rows),
        stale=[row.symbol for row in rows if row.freshness == "stale"],
        gaps=gaps[:MAX_GAPS],
        gaps_total=sum(gap.missing for gap in gaps),
        rejected=[Rejected(symbol=symbol, count=count) for symbol, count in sorted(staged.rejected().items())],
        differing=warehouse.differing(reach[0].session_date) if reach else [],
        mutes=staged.mutes(),
        unreadable=[Unread(collection=name, count=count) for name, count in staged.unreadable.counts().items()],
    )


def merged_gaps(loaded: list[Gap], staged: Staged, now: datetime) -> list[Gap]:
    """Return the sessions that miss bars, newest first.

    Of a staged session the staged bars count, against the bars that are due by ``now`` (UTC).
    """
    found = {(gap.symbol, gap.session_date): gap for gap in loaded}
    for symbol, sessions in staged.recent.items():
        for item in sessions:
            traded = session(item.session_date)
            due = expected_by(traded, now) if traded else 0
            missing = due - len(item.closes)
            found.pop((symbol, item.session_date), None)
            if missing > 0:
                found[symbol, item.session_date] = Gap(
                    symbol=symbol, session_date=item.session_date, missing=missing, expected=due
                )
    return sorted(found.values(), key=lambda gap: (-gap.session_date.toordinal(), gap.symbol))


def _newest_close(opens: Iterable[datetime]) -> datetime | None:
    """Return the close of the newest bar, given the opens of several."""
    newest = max(opens, default=None)
    return newest + BAR if newest else None


def _newest_published(staged: Staged, lake: Lake | None) -> date | None:
    """Return the newest session in the last published manifest."""
    run = staged.ledger.last("process", outcome=SUCCEEDED, manifest={"$ne": None})
    if lake is None or run is None:
        return None
    return staged.unreadable.read("manifests", {"_id": run["manifest"]}, partial(_newest_session, lake))


def _newest_session(lake: Lake, run: Document) -> date | None:
    days = [day for item in lake.manifest(run["_id"]).partitions for day in item.versions]
    return date.fromisoformat(max(days)) if days else None
