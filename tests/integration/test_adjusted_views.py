"""The adjusted views: queries of one symbol use the primary key, and a renamed symbol is one series."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

BARS = """
insert into market.bar_5min (symbol, bar_start, session_date, open, high, low, close, volume, vwap, bar_count,
    expected_bars, load_id)
select s.symbol, d.day + interval '14:30' + k * interval '5 minutes', d.day::date, 100, 101, 99, 100, 1000, 100, 1, 1,
    'x'
from (values ('AAPL'), ('FB'), ('META'), ('MSFT')) as s (symbol), generate_series(0, 77) as k,
    generate_series('2025-01-01Z'::timestamptz, '2025-05-31Z', interval '1 day') as d (day)
where case s.symbol when 'META' then d.day > '2025-03-31Z' else true end
"""


@pytest.fixture
def warehouse(warehouse_dsn: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(warehouse_dsn, autocommit=True, options="-c timezone=UTC")
    connection.execute(BARS)
    # FB became META after March. Another company then took the symbol FB.
    connection.execute("insert into market.former_symbol values ('FB', 'META', '2025-03-31')")
    ranges = [
        ("AAPL", "0001-01-01", "2025-02-09", 10, 0.98), ("AAPL", "2025-02-10", "2025-03-09", 10, None),
        ("META", "0001-01-01", "2025-01-31", 2, 1),
    ]  # fmt: skip
    for row in ranges:
        connection.execute("insert into market.adjustment values (%s, %s, %s, %s, %s, 'x')", row)
    connection.execute("vacuum analyze")
    return connection


def plan(connection: psycopg.Connection[Any], query: str) -> str:
    return "\n".join(line for (line,) in connection.execute(f"explain {query}".encode()))


def test_a_query_of_one_symbol_uses_the_primary_key(warehouse: psycopg.Connection[Any]) -> None:
    since = plan(
        warehouse,
        "select * from market.bar_5min_adjusted where symbol = 'AAPL' and bar_start >= '2025-05-20'",
    )
    assert "Index Cond: ((symbol = 'AAPL'::text) AND (bar_start >= " in since
    assert "Seq Scan on bar_5min" not in since
    newest = plan(
        warehouse, "select * from market.bar_5min_adjusted where symbol = 'AAPL' order by bar_start desc limit 500"
    )
    assert "Index Scan Backward using bar_5min_pkey on bar_5min" in newest


def test_each_session_has_the_factors_of_its_range(warehouse: psycopg.Connection[Any]) -> None:
    found = warehouse.execute(
        "select session_date::text, close, volume, vwap, high_all from market.bar_5min_adjusted where symbol = 'AAPL' "
        "and bar_start::time = '14:30' and session_date::text in ('2025-02-09', '2025-02-10', '2025-03-10') order by 1"
    ).fetchall()
    assert found == [
        ("2025-02-09", 10.0, 10000.0, 10.0, pytest.approx(10.1 * 0.98)),
        ("2025-02-10", 10.0, 10000.0, 10.0, None),
        ("2025-03-10", 100.0, 1000.0, 100.0, 101.0),
    ]


def test_a_renamed_symbol_is_one_series_and_no_bar_is_lost_or_doubled(warehouse: psycopg.Connection[Any]) -> None:
    raw = warehouse.execute("select count(*) from market.bar_5min").fetchone()
    assert warehouse.execute("select count(*) from market.bar_5min_adjusted").fetchone() == raw
    days = "select symbol, count(distinct session_date), min(session_date)::text, min(close) from "
    series = warehouse.execute(f"{days} market.bar_5min_adjusted group by 1 order by 1".encode()).fetchall()
    assert series == [
        ("AAPL", 151, "2025-01-01", 10.0), ("FB", 61, "2025-04-01", 100.0), ("META", 151, "2025-01-01", 50.0),
        ("MSFT", 151, "2025-01-01", 100.0),
    ]  # fmt: skip
