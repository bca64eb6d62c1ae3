"""The warehouse's rows of one bar and the loads that wrote them. Every query uses the index of a key or of a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

from barflow.warehouse.connection import warehouse_errors

METRICS = "daily_metrics"
LOADED = "select load_id, manifests, finished_at from ops.load_run where outcome = 'loaded'"
NEXT_TO = """
(select bar_start from market.bar_5min where symbol = %(symbol)s and bar_start < %(ts)s order by bar_start desc limit 1)
union all
(select bar_start from market.bar_5min where symbol = %(symbol)s and bar_start > %(ts)s order by bar_start limit 1)"""


@dataclass(frozen=True)
class LoadRun:
    """A load that committed: the manifests that it consumed, and its end (UTC)."""

    load_id: str
    manifests: list[str]
    finished_at: datetime


def rows_of_bar(
    connection: psycopg.Connection[Any], symbol: str, starts: Mapping[str, datetime], day: date
) -> dict[str, dict[str, Any]]:
    """Return by table the row of each bar table that opens at its start (UTC), and the session's daily metrics."""
    keys: list[tuple[str, str, object]] = [(table, "bar_start", start) for table, start in starts.items()]
    found: dict[str, dict[str, Any]] = {}
    with warehouse_errors("read the rows of the bar"), connection.cursor(row_factory=dict_row) as cursor:
        for table, column, value in [*keys, (METRICS, "session_date", day)]:
            query = sql.SQL("select * from {} where symbol = %s and {} = %s")
            statement = query.format(sql.Identifier("market", table), sql.Identifier(column))
            if row := cursor.execute(statement, [symbol, value]).fetchone():
                found[table] = row
    return found


def opens_next_to(connection: psycopg.Connection[Any], symbol: str, ts: datetime) -> list[datetime]:
    """Return the opens (UTC) of the last loaded bar before a moment and of the first one after it."""
    with warehouse_errors("find the bars next to a moment"):
        return [opens for (opens,) in connection.execute(NEXT_TO, {"symbol": symbol, "ts": ts})]


def load_run(connection: psycopg.Connection[Any], load_id: str) -> LoadRun | None:
    """Return a load by its id."""
    found = _loads(connection, "and load_id = %s", [load_id])
    return found[0] if found else None


def first_load_of(connection: psycopg.Connection[Any], manifest: str, since: datetime) -> LoadRun | None:
    """Return the load that consumed a manifest, among those that ended after a moment (UTC)."""
    found = _loads(connection, "and finished_at >= %s and %s = any(manifests) limit 1", [since, manifest])
    return found[0] if found else None


def loads_since(connection: psycopg.Connection[Any], since: datetime, limit: int) -> list[LoadRun]:
    """Return the first loads that ended after a moment (UTC), oldest first."""
    return _loads(connection, "and finished_at >= %s order by finished_at limit %s", [since, limit])


def _loads(connection: psycopg.Connection[Any], condition: str, values: Sequence[object]) -> list[LoadRun]:
    with warehouse_errors("read its load ledger"), connection.cursor(row_factory=class_row(LoadRun)) as cursor:
        return cursor.execute(f"{LOADED} {condition}".encode(), values).fetchall()
