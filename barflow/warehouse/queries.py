"""Queries on the warehouse: a user's read-only statement, a session's rows, bar counts, and the load ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from itertools import product
from typing import Any

import psycopg
from psycopg import sql

from barflow.errors import BadInputError
from barflow.market.bars import BAR_TABLES
from barflow.market.counts import SessionCounts
from barflow.market.vendor_days import PRICES, Comparison, Thresholds
from barflow.warehouse.connection import connect, reason_of, warehouse_errors

QUERY_SECONDS = 60
# How many of the newest sessions are compared with the vendor's day. Its older days are not asked for again, so a
# difference in them could not be resolved.
COMPARED_SESSIONS = 20
COMPARED = """
select d.symbol, d.session_date, b.open, b.high, b.low, b.close, b.volume, v.open, v.high, v.low, v.close, v.volume
from (
    select
        *,
        row_number() over (partition by symbol order by session_date desc) as place,
        dense_rank() over (order by session_date desc) as age
    from ops.vendor_day
    where complete and session_date >= %(since)s
) as d
inner join ops.vendor_bar as v using (symbol, session_date)
inner join market.bar_1d as b using (symbol, session_date)
where d.age <= %(newest)s
    and (
        d.place = 1
        or greatest(abs(d.open_bps), abs(d.high_bps), abs(d.low_bps), abs(d.close_bps)) > %(bps)s
        or abs(d.volume_pct) > %(pct)s
    )
order by d.symbol, d.session_date
"""

# A session is within one UTC day, so the primary key finds it.
COUNTS = "select symbol, session_date, sum(bar_count), max(bar_start), count(*) from {} "
EVERY = COUNTS + "where symbol = any(%(symbols)s) group by 1, 2"
SINCE = (
    COUNTS + "where symbol = any(%(symbols)s) and bar_start >= %(since)s::timestamp at time zone 'UTC' group by 1, 2"
)
SINGLE = """
select found.*
from unnest(%(names)s::text[], %(days)s::date[]) as wanted (symbol, day)
cross join lateral (
    select symbol, session_date, sum(bar_count), max(bar_start), count(*)
    from {}
    where
        symbol = wanted.symbol
        and bar_start >= wanted.day::timestamp at time zone 'UTC'
        and bar_start < (wanted.day + 1)::timestamp at time zone 'UTC'
    group by 1, 2
) as found
"""
SYMBOLS = """
with recursive listed as (
    select min(symbol) as symbol from {0}
    union all
    select (select min(symbol) from {0} where symbol > listed.symbol) from listed where listed.symbol is not null
)
select symbol from listed where symbol is not null
"""


def query_read_only(dsn: str, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one statement in a read-only transaction. Return its column names and rows.

    Raises BadInputError for a statement that is wrong, writes, or returns nothing.
    """
    with connect(dsn) as connection:
        connection.read_only = True
        try:
            # The extended protocol takes a single statement, so none can end the read-only transaction.
            connection.execute(sql.SQL("set local statement_timeout = {}").format(sql.Literal(QUERY_SECONDS * 1000)))
            # Without parameters, the driver leaves % as it is.
            cursor = connection.execute(query.encode(), prepare=True)
            if cursor.description is None:
                raise BadInputError("the query returned no rows to show: give a SELECT")
            return [column.name for column in cursor.description], cursor.fetchall()
        except psycopg.errors.ReadOnlySqlTransaction:
            raise BadInputError("the query would change the warehouse: only reading is allowed here") from None
        except psycopg.errors.QueryCanceled:
            raise BadInputError(f"the query took over {QUERY_SECONDS} s: narrow it by symbol or date") from None
        except psycopg.OperationalError:
            with warehouse_errors("answer the query"):
                raise
        except psycopg.Error as error:
            connection.close()  # a COPY that nobody reads cannot be rolled back
            raise BadInputError(f"the query is wrong: {reason_of(error)}") from None


def count_bars(
    connection: psycopg.Connection[Any],
    symbols: Sequence[str],
    since: date | None = None,
    sessions: Iterable[tuple[str, str]] = (),
) -> tuple[dict[str, SessionCounts], dict[str, dict[str, int]]]:
    """Return, per bar table, the sum of bar_count by (symbol, session), and the number of rows by symbol.

    It counts the sessions of the symbols from ``since`` on (None: all of them), and the single (symbol, day).
    """
    keys = list(sessions)
    values = {
        "symbols": list(symbols),
        "since": since,
        "names": [symbol for symbol, _ in keys],
        "days": [date.fromisoformat(day) for _, day in keys],
    }
    statements = ([SINCE] if since != date.max else []) + ([SINGLE] if keys else []) if since else [EVERY]
    counts: dict[str, SessionCounts] = {name: SessionCounts() for name in BAR_TABLES}
    rows: dict[str, dict[str, int]] = {name: {} for name in BAR_TABLES}
    with warehouse_errors("count its bars"):
        for name, statement in product(BAR_TABLES, statements):
            query = sql.SQL(statement).format(sql.Identifier("market", name))
            for symbol, day, bars, newest, count in connection.execute(query, values):
                counts[name].add(symbol, day.isoformat(), int(bars), newest)
                rows[name][symbol] = rows[name].get(symbol, 0) + count
    return counts, rows


def stored_symbols(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the symbols that have rows in any bar table. The cost follows their number, not that of the rows."""
    with warehouse_errors("list its symbols"):
        found: set[str] = set()
        for name in BAR_TABLES:
            query = sql.SQL(SYMBOLS).format(sql.Identifier("market", name))
            found |= {symbol for (symbol,) in connection.execute(query)}
    return sorted(found)


def count_actions(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Return the number of versions of each symbol's corporate actions."""
    with warehouse_errors("count its corporate actions"):
        return dict(connection.execute("select symbol, count(*) from market.corporate_action group by 1").fetchall())


def consumed_manifests(connection: psycopg.Connection[Any], published: Sequence[str]) -> set[str]:
    """Return those of the published manifests, by run id, that a successful load has consumed."""
    with warehouse_errors("read its load ledger"):
        found = connection.execute(
            "select distinct run_id from ops.load_run, unnest(manifests) as consumed (run_id) "
            "inner join unnest(%s::text[]) as published (run_id) using (run_id) where outcome = 'loaded'",
            (list(published),),
        )
        return {run_id for (run_id,) in found}


def loaded_since(connection: psycopg.Connection[Any], moment: datetime) -> set[str]:
    """Return the run ids of the manifests that successful loads consumed since a moment (UTC)."""
    with warehouse_errors("read its load ledger"):
        found = connection.execute(
            "select unnest(manifests) from ops.load_run where outcome = 'loaded' and finished_at >= %s", (moment,)
        )
        return {run_id for (run_id,) in found}


def loaded_rows(connection: psycopg.Connection[Any], load_id: str) -> dict[str, int]:
    """Return the rows by table of all attempts of a load, whose ids are ``LOAD_ID-1``, ``LOAD_ID-2`` and so on."""
    with warehouse_errors("read its load ledger"):
        found = connection.execute(
            "select key, sum(value::bigint) from ops.load_run, jsonb_each_text(rows) "
            "where outcome = 'loaded' and starts_with(load_id, %s) group by 1",
            (f"{load_id}-",),
        )
        return {table: int(rows) for table, rows in found}


def vendor_days(
    connection: psycopg.Connection[Any], thresholds: Thresholds, since: date = date.min
) -> list[Comparison]:
    """Return the newest comparison of each symbol with the vendor's daily bar, and each one over a threshold.

    Of complete sessions, the newest ``COMPARED_SESSIONS`` from ``since`` on are compared. Oldest sessions come first.
    """
    values = {"bps": thresholds[0], "pct": thresholds[1], "since": since, "newest": COMPARED_SESSIONS}
    with warehouse_errors("compare its daily bars with the vendor's"):
        found = connection.execute(COMPARED, values).fetchall()
    names = (*PRICES, "volume")
    return [
        Comparison(symbol, day, dict(zip(names, values[:5], strict=True)), dict(zip(names, values[5:], strict=True)))
        for symbol, day, *values in found
    ]


def session_dates(connection: psycopg.Connection[Any], limit: int) -> list[date]:
    """Return the newest session dates that have daily bars, newest first."""
    with warehouse_errors("list its sessions"):
        found = connection.execute(
            "select distinct session_date from market.bar_1d order by session_date desc limit %s", (limit,)
        )
        return [day for (day,) in found]


def rows_of_session(
    connection: psycopg.Connection[Any], table: str, day: date
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return every row of a session in a table of the schema market, by its key: the first two columns."""
    query = sql.SQL("select * from {} where session_date = %s").format(sql.Identifier("market", table))
    with warehouse_errors("read a session"):
        cursor = connection.execute(query, (day,))
        names = [column.name for column in cursor.description or ()]
        return {row[:2]: dict(zip(names, row, strict=True)) for row in cursor}


def last_load(connection: psycopg.Connection[Any]) -> dict[str, Any] | None:
    """Return the newest load and its outcome; None before the first."""
    with warehouse_errors("read its load ledger"):
        found = connection.execute(
            "select load_id, started_at, outcome, error from ops.load_run order by started_at desc limit 1"
        ).fetchone()
    if found is None:
        return None
    load_id, started_at, outcome, error = found
    run = {"run_id": load_id, "started_at": started_at.isoformat(), "outcome": outcome}
    return run | ({"error": error} if error else {})
