"""Corporate actions in the warehouse: their versions, the factor ranges that follow, and the vendor's daily bars.

Everything here runs in the transaction of a load, after its bars are written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import psycopg
from psycopg import sql

from barflow.market.actions import Action, Dividend, Split, Version
from barflow.market.adjustment import FactorRange, factor_ranges
from barflow.market.sessions import previous_session
from barflow.market.vendor_days import VendorDay
from barflow.warehouse.connection import warehouse_errors

# The first and the newest stored session of a symbol `s`, under its present and its former symbols.
SPAN = sql.SQL("""
least(
    (select min(b.session_date) from market.bar_1d as b where b.symbol = s.symbol),
    (select min(b.session_date) from market.former_symbol as n join market.bar_1d as b on b.symbol = n.former
     where n.symbol = s.symbol and b.session_date <= n.last_day)
) as first,
greatest(
    (select max(b.session_date) from market.bar_1d as b where b.symbol = s.symbol),
    (select max(b.session_date) from market.former_symbol as n join market.bar_1d as b on b.symbol = n.former
     where n.symbol = s.symbol and b.session_date <= n.last_day)
) as newest
""")
# The symbols whose factors the sessions of the temporary table `touched` may change: stored sessions are now on both
# sides of an ex-date that is in no range yet, or a session may hold the close before a dividend.
AFFECTED = sql.SQL("""
with moved as materialized (
    select distinct coalesce(n.symbol, t.symbol) as symbol, t.session_date
    from touched as t
    left join market.former_symbol as n on n.former = t.symbol and t.session_date <= n.last_day
),
spans as materialized (
    select s.symbol, {span}
    from (select distinct symbol from moved) as s
    where exists (select from market.corporate_action as a where a.symbol = s.symbol)
)
select distinct a.symbol
from spans as s
join market.corporate_action as a on a.symbol = s.symbol
where a.known_until is null and (a.ratio <> 1 or a.amount > 0) and a.ex_date > s.first and a.ex_date <= s.newest
and (
    not exists (select from market.adjustment as r where r.symbol = a.symbol and r.last_day = a.ex_date - 1)
    or (
        a.kind = 'dividend'
        and exists (
            select from moved as m where m.symbol = a.symbol and m.session_date between a.ex_date - 10 and a.ex_date - 1
        )
    )
)
""").format(span=SPAN)
SPANS = sql.SQL("select s.symbol, {span} from unnest(%s::text[]) as s (symbol)").format(span=SPAN)
STRADDLED = """
select k.symbol, k.ex_date from unnest(%s::text[], %s::date[]) as k (symbol, ex_date)
where exists (select from market.bar_1d as b where b.symbol = k.symbol and b.session_date < k.ex_date)
and exists (select from market.bar_1d as b where b.symbol = k.symbol and b.session_date >= k.ex_date)
order by 1, 2
"""
CLOSES = """
select k.symbol, k.day, coalesce(
    (select b.close from market.bar_1d as b where b.symbol = k.symbol and b.session_date = k.day),
    (select b.close from market.former_symbol as n join market.bar_1d as b on b.symbol = n.former
     where n.symbol = k.symbol and k.day <= n.last_day and b.session_date = k.day)
)
from unnest(%s::text[], %s::date[]) as k (symbol, day)
"""
Connection = psycopg.Connection[Any]


def current_splits(connection: Connection, symbols: Sequence[str]) -> dict[str, list[Split]]:
    """Return the stored splits of symbols that are in effect: the current versions, without ratios of 1."""
    found: dict[str, list[Split]] = defaultdict(list)
    with warehouse_errors("read its splits"):
        rows = connection.execute(
            "select symbol, ex_date, ratio, source, known_from from market.corporate_action "
            "where symbol = any(%s) and kind = 'split' and known_until is null and ratio <> 1",
            [list(symbols)],
        )
        for row in rows:
            found[row[0]].append(Split(*row))
    return dict(found)


def straddled(connection: Connection, ex_dates: Mapping[str, Sequence[date]]) -> dict[str, list[date]]:
    """Return the ex-dates, by symbol, that have stored sessions on both sides."""
    keys = [(symbol, day) for symbol, days in ex_dates.items() for day in days]
    found: dict[str, list[date]] = defaultdict(list)
    if keys:
        with warehouse_errors("find the sessions around a split"):
            for symbol, day in connection.execute(STRADDLED, [[key[0] for key in keys], [key[1] for key in keys]]):
                found[symbol].append(day)
    return dict(found)


def replace_actions(connection: Connection, load_id: str, actions: Mapping[str, Sequence[Version]]) -> int:
    """Replace every version of these symbols' actions. Return the rows."""
    rows = 0
    connection.execute("delete from market.corporate_action where symbol = any(%s)", [list(actions)])
    columns = "symbol, kind, ex_date, ratio, amount, currency, source, known_from, known_until, load_id"
    with connection.cursor().copy(f"copy market.corporate_action ({columns}) from stdin".encode()) as copy:
        for symbol, versions in actions.items():
            for version in versions:
                action = version.action
                values: tuple[object, ...] = (action.value, None, None)
                if isinstance(action, Dividend):
                    values = (None, action.amount, action.currency)
                known = action.source, action.known_from, version.known_until
                copy.write_row((symbol, action.kind, action.ex_date, *values, *known, load_id))
                rows += 1
    return rows


def store_vendor_days(connection: Connection, load_id: str, days: Iterable[VendorDay]) -> int:
    """Insert the vendor's daily bars, or replace those that were requested earlier. Return the rows."""
    cursor = connection.cursor()
    cursor.executemany(
        "insert into ops.vendor_bar as v values (%s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "on conflict (symbol, session_date) do update set open = excluded.open, high = excluded.high, "
        "low = excluded.low, close = excluded.close, volume = excluded.volume, "
        "requested_at = excluded.requested_at, load_id = excluded.load_id "
        "where v.requested_at <= excluded.requested_at",
        [
            (
                *(item.symbol, item.session_date, item.open, item.high, item.low, item.close, item.volume),
                *(item.requested_at, load_id),
            )
            for item in days
        ],
    )
    return max(0, cursor.rowcount)


def affected_symbols(connection: Connection) -> set[str]:
    """Return the symbols whose factors the sessions of the temporary table ``touched`` may change."""
    return {symbol for (symbol,) in connection.execute(AFFECTED)}


def replace_adjustments(
    connection: Connection, load_id: str, symbols: Iterable[str]
) -> tuple[int, list[tuple[str, date]]]:
    """Compute the factor ranges of these symbols again. Return the rows, and (symbol, ex-date) of unusable dividends.

    An unusable dividend has no stored close before it, or one that is not above it.
    """
    names = sorted(symbols)
    actions = _current_actions(connection, names)
    spans = {symbol: (first, newest) for symbol, first, newest in connection.execute(SPANS, [names]) if first}
    within = {
        symbol: [item for item in actions.get(symbol, ()) if first < item.ex_date <= newest]
        for symbol, (first, newest) in spans.items()
    }
    closes = _closes_before(connection, within)
    ranges: list[tuple[str, FactorRange]] = []
    unusable: list[tuple[str, date]] = []
    for symbol, known in within.items():
        found, without_close = factor_ranges(known, spans[symbol][1], closes.get(symbol, {}).get)
        ranges += [(symbol, item) for item in found]
        unusable += [(symbol, day) for day in without_close]
    connection.execute("delete from market.adjustment where symbol = any(%s)", [names])
    columns = "symbol, first_day, last_day, split, dividend, load_id"
    with connection.cursor().copy(f"copy market.adjustment ({columns}) from stdin".encode()) as copy:
        for symbol, item in ranges:
            copy.write_row((symbol, item.first_day, item.last_day, item.split, item.dividend, load_id))
    return len(ranges), unusable


def _current_actions(connection: Connection, symbols: Sequence[str]) -> dict[str, list[Action]]:
    found: dict[str, list[Action]] = defaultdict(list)
    rows = connection.execute(
        "select symbol, ex_date, ratio, amount, currency, source, known_from from market.corporate_action "
        "where symbol = any(%s) and known_until is null and (ratio <> 1 or amount > 0)",
        [list(symbols)],
    )
    for symbol, ex_date, ratio, amount, currency, source, known_from in rows:
        action: Action
        if ratio is not None:
            action = Split(symbol, ex_date, ratio, source, known_from)
        else:
            action = Dividend(symbol, ex_date, amount, currency, source, known_from)
        found[symbol].append(action)
    return found


def _closes_before(
    connection: Connection, actions: Mapping[str, Sequence[Action]]
) -> dict[str, dict[date, float | None]]:
    """Return by symbol and ex-date the stored raw close (dollars) of the session before each dividend."""
    ex_dates = {
        (symbol, item.ex_date) for symbol, known in actions.items() for item in known if isinstance(item, Dividend)
    }
    before = {(symbol, day): previous_session(day) for symbol, day in ex_dates}
    days = {key: found.session_date for key, found in before.items() if found}
    keys = sorted({(key[0], day) for key, day in days.items()})
    rows = connection.execute(CLOSES, [[symbol for symbol, _ in keys], [day for _, day in keys]])
    stored = {(symbol, day): close for symbol, day, close in rows}
    closes: dict[str, dict[date, float | None]] = defaultdict(dict)
    for (symbol, ex_date), day in days.items():
        closes[symbol][ex_date] = stored[symbol, day]
    return closes
