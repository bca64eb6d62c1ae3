"""Queries on the warehouse: a user's read-only statement, a session's rows, bar counts, and the load ledger."""

from __future__ import annotations

from datetime import date
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


def count_bars(connection: psycopg.Connection[Any]) -> tuple[dict[str, SessionCounts], dict[str, dict[str, int]]]:
    """Return, per bar table, the sum of bar_count by (symbol, session), and the number of rows by symbol."""
    counts: dict[str, SessionCounts] = {}
    rows: dict[str, dict[str, int]] = {}
    with warehouse_errors("count its bars"):
        for name in BAR_TABLES:
            statement = sql.SQL(
                "select symbol, session_date, sum(bar_count), max(bar_start), count(*) from {} group by 1, 2"
            ).format(sql.Identifier("market", name))
            counts[name], rows[name] = SessionCounts(), {}
            for symbol, day, bars, newest, count in connection.execute(statement):
                counts[name].add(symbol, day.isoformat(), int(bars), newest)
                rows[name][symbol] = rows[name].get(symbol, 0) + count
    return counts, rows


def count_actions(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Return the number of versions of each symbol's corporate actions."""
    with warehouse_errors("count its corporate actions"):
        return dict(connection.execute("select symbol, count(*) from market.corporate_action group by 1").fetchall())


def consumed_manifests(connection: psycopg.Connection[Any]) -> set[str]:
    """Return the run ids of all manifests that a successful load has consumed."""
    with warehouse_errors("read its load ledger"):
        found = connection.execute("select unnest(manifests) from ops.load_run where outcome = 'loaded'")
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
    """Return by symbol the newest session that is compared with the vendor's day, and each one over a threshold.

    Of complete sessions, the newest ``COMPARED_SESSIONS`` from ``since`` on are compared. Oldest sessions first.
    """
    values = {"bps": thresholds[0], "pct": thresholds[1], "since": since, "newest": COMPARED_SESSIONS}
    with warehouse_errors("compare its days with the vendor's"):
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
