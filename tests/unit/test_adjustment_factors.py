"""Adjusted prices: the formulas hold for every split and dividend, and agree with an independent SQL of DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

import duckdb
import pyarrow as pa
import pytest
from harness import lake_table
from hypothesis import given, settings
from hypothesis import strategies as st

from barflow.errors import BarflowError
from barflow.lake.adjusted import PRICES, adjusted
from barflow.market.actions import (
    ADJUSTS,
    COMMON_RATIOS,
    MAX_RATIO,
    RAW,
    Action,
    Adjust,
    Dividend,
    Factors,
    Split,
    factors,
    ratio_text,
    suspected_ratio,
)
from barflow.market.sessions import previous_session, sessions_between

DAYS = [item.session_date for item in sessions_between(date(2024, 5, 1), date(2024, 7, 31))]
BASIS = date(2024, 12, 31)
LEARNED = datetime(2024, 8, 1, tzinfo=UTC)
TOLERANCE = 1e-9


def split(day: date, ratio: float) -> Split:
    return Split("NVDA", day, ratio, "endpoint", LEARNED)


def dividend(day: date, amount: float) -> Dividend:
    return Dividend("NVDA", day, amount, "USD", "endpoint", LEARNED)


def no_close(day: date) -> float | None:
    raise AssertionError(f"the close before {day} was asked for")


def table(closes: Sequence[float], bars_a_day: int = 3) -> pa.Table:
    """Return ``bars_a_day`` bars for each of the first sessions; the last one closes at the session's close."""
    rows = []
    for place, (day, close) in enumerate(zip(DAYS, closes, strict=False)):
        for number in range(bars_a_day):
            price = close * (1 + 0.001 * (bars_a_day - 1 - number))
            ts = datetime(day.year, day.month, day.day, 13, 30, tzinfo=UTC) + timedelta(minutes=5 * number)
            prices = {"open": price * 1.001, "high": price * 1.003, "low": price * 0.998, "close": price}
            volume = 1000 + 7 * place + number
            rows.append({"ts": ts, "session_date": day, **prices, "volume": volume})
    return lake_table(rows)


def closes_of(bars: pa.Table) -> Callable[[date], float | None]:
    by_day = dict(zip(bars["session_date"].to_pylist(), bars["close"].to_pylist(), strict=True))

    def close_before(day: date) -> float | None:
        before = previous_session(day)
        return by_day.get(before.session_date) if before else None

    return close_before


def daily(bars: pa.Table) -> list[dict[str, float]]:
    """Aggregate bars into one bar a session."""
    days = groupby(bars.to_pylist(), key=lambda row: row["session_date"])
    return [
        {
            "open": rows[0]["open"],
            "high": max(row["high"] for row in rows),
            "low": min(row["low"] for row in rows),
            "close": rows[-1]["close"],
            "volume": sum(row["volume"] for row in rows),
        }
        for rows in (list(found) for _, found in days)
    ]


@st.composite
def markets(draw: st.DrawFn) -> tuple[pa.Table, list[Action]]:
    """Draw sessions, and actions on some of them and after them: whole, reverse and spin-off ratios, dividends."""
    closes = draw(st.lists(st.floats(5, 2000), min_size=2, max_size=12))
    ratio = st.one_of(st.sampled_from([10.0, 4.0, 1.5, 0.125, 1 / 3, 1.0]), st.floats(1.01, 1.9))
    days = st.integers(1, len(closes) + 3).map(lambda place: DAYS[place])
    splits = draw(st.lists(st.builds(split, days, ratio), max_size=5, unique_by=lambda item: item.ex_date))
    inside = st.integers(1, len(closes) - 1).map(lambda place: DAYS[place])
    paid = st.builds(dividend, inside, st.sampled_from([0.0, 0.001, 0.01, 0.04]))
    dividends = draw(st.lists(paid, max_size=4, unique_by=lambda item: item.ex_date))
    return table(closes), [*splits, *dividends]


def rows_close(one: Sequence[dict[str, float]], other: Sequence[dict[str, float]]) -> bool:
    return len(one) == len(other) and all(
        mine[name] == pytest.approx(theirs[name], rel=TOLERANCE)
        for mine, theirs in zip(one, other, strict=True)
        for name in (*PRICES, "volume")
    )


@given(markets(), st.sampled_from(ADJUSTS))
def test_adjusting_then_aggregating_is_aggregating_then_adjusting(
    market: tuple[pa.Table, list[Action]], adjust: Adjust
) -> None:
    bars, actions = market
    found = factors(actions, adjust, BASIS, closes_of(bars))
    days = sorted(set(bars["session_date"].to_pylist()))
    expected = [
        {name: row[name] * (found.at(day).volume if name == "volume" else found.at(day).price) for name in row}
        for day, row in zip(days, daily(bars), strict=True)
    ]
    assert rows_close(daily(adjusted(bars, found)), expected)


@given(markets())
def test_none_is_the_identity_and_asks_for_no_close(market: tuple[pa.Table, list[Action]]) -> None:
    bars, actions = market
    found = factors(actions, "none", BASIS, no_close)
    assert found == Factors()
    assert adjusted(bars, found).cast(bars.schema).equals(bars)


@given(markets(), st.sampled_from(ADJUSTS))
def test_the_factors_do_not_depend_on_the_order_of_the_actions(
    market: tuple[pa.Table, list[Action]], adjust: Adjust
) -> None:
    bars, actions = market
    assert factors(actions, adjust, BASIS, closes_of(bars)) == factors(actions[::-1], adjust, BASIS, closes_of(bars))


@given(markets())
def test_splits_keep_the_dollar_volume(market: tuple[pa.Table, list[Action]]) -> None:
    bars, actions = market
    found = adjusted(bars, factors(actions, "splits", BASIS, no_close)).to_pylist()
    for mine, raw in zip(found, bars.to_pylist(), strict=True):
        assert mine["close"] * mine["volume"] == pytest.approx(raw["close"] * raw["volume"], rel=TOLERANCE)


ORACLE = """
with closes as (
    select session_date, arg_max(close, ts) as close from bars group by session_date
), effects as (
    select ex_date, product(ratio) as ratio,
           coalesce(1 - sum(amount) * product(ratio)
               / (select close from closes where session_date < ex_date order by session_date desc limit 1), 1) as paid
    from actions where ex_date <= $basis group by ex_date
), scale as (
    select b.session_date, coalesce(product(e.ratio), 1) as ratio, coalesce(product(e.paid), 1) as paid
    from (select distinct session_date from bars) b left join effects e on e.ex_date > b.session_date group by 1
)
select {prices}, volume * ratio as volume from bars join scale using (session_date) order by ts
"""


@pytest.fixture(scope="module")
def oracle() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@settings(max_examples=60)
@given(market=markets(), adjust=st.sampled_from(["splits", "all"]))
def test_every_adjusted_column_equals_an_independent_query(
    oracle: duckdb.DuckDBPyConnection, market: tuple[pa.Table, list[Action]], adjust: Adjust
) -> None:
    bars, actions = market
    mine = adjusted(bars, factors(actions, adjust, BASIS, closes_of(bars)))
    paid = adjust == "all"
    listed = [
        {
            "ex_date": item.ex_date,
            "ratio": item.ratio if isinstance(item, Split) else 1.0,
            "amount": item.amount if paid and isinstance(item, Dividend) else 0.0,
        }
        for item in actions
    ]
    schema = pa.schema([("ex_date", pa.date32()), ("ratio", pa.float64()), ("amount", pa.float64())])
    prices = ", ".join(f"{name} / ratio * paid as {name}" for name in PRICES)
    with oracle.cursor() as cursor:
        cursor.register("bars", bars)
        cursor.register("actions", pa.Table.from_pylist(listed, schema))
        found = cursor.execute(ORACLE.format(prices=prices), {"basis": BASIS}).fetchall()
    theirs = [dict(zip((*PRICES, "volume"), row, strict=True)) for row in found]
    assert rows_close(mine.to_pylist(), theirs)


def test_several_splits_multiply_and_a_split_holds_from_its_ex_date_on() -> None:
    found = factors([split(DAYS[2], 10.0), split(DAYS[4], 0.125)], "splits", BASIS, no_close)
    assert [found.at(day).volume for day in DAYS[:6]] == [1.25, 1.25, 0.125, 0.125, 1, 1]
    assert [found.at(day).price for day in DAYS[:6]] == [0.8, 0.8, 8, 8, 1, 1]


def test_an_action_after_the_basis_and_a_neutral_one_change_nothing() -> None:
    later = [split(DAYS[5], 10.0), dividend(DAYS[5], 1.0), split(DAYS[1], 1.0), dividend(DAYS[1], 0.0)]
    assert factors(later, "all", DAYS[4], no_close) == Factors()
    assert factors(later[:1], "splits", DAYS[5], no_close).at(DAYS[4]).volume == 10
    assert factors([], "all", BASIS, no_close).at(DAYS[0]) == RAW


def test_a_dividend_on_the_day_of_a_split_is_per_new_share() -> None:
    found = factors([split(DAYS[1], 10.0), dividend(DAYS[1], 1.0)], "all", BASIS, lambda day: 1000.0)
    assert found.at(DAYS[0]).price == pytest.approx(0.1 * (1 - 1.0 / 100.0))
    assert found.at(DAYS[0]).volume == 10


@pytest.mark.parametrize(
    ("close", "message"),
    [
        (None, r"dividend of 2 dollars on 2024-05-02 .* no bars of the session before it"),
        (2.0, "is not below the price"),
    ],
)
def test_a_dividend_without_a_usable_close_is_named(close: float | None, message: str) -> None:
    with pytest.raises(BarflowError, match=message):
        factors([dividend(DAYS[1], 2.0)], "all", BASIS, lambda day: close)


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf"), 2 * MAX_RATIO])
def test_a_value_that_no_action_has_is_rejected(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio must be from"):
        split(DAYS[0], ratio)
    with pytest.raises(ValueError, match="amount must be from"):
        dividend(DAYS[0], ratio or -0.01)


@pytest.mark.parametrize(
    ("ratio", "label"),
    [
        (10.0, "10-for-1 split"),
        (1.5, "3-for-2 split"),
        (0.125, "1-for-8 reverse split"),
        (0.33333, "1-for-3 reverse split"),
        (1.281, "1.281-for-1 split"),
        (1.0, "1-for-1 split"),
        (1 / MAX_RATIO, "1-for-1000000 reverse split"),
        (1 / 1.281, "1-for-1.281 reverse split"),
    ],
)
def test_a_split_is_written_as_whole_shares_where_it_can_be(ratio: float, label: str) -> None:
    assert split(DAYS[0], ratio).label == label


@pytest.mark.parametrize("ratio", [*COMMON_RATIOS, *(1 / ratio for ratio in COMMON_RATIOS)])
@pytest.mark.parametrize("gap", [-0.06, 0.0, 0.06])
def test_an_open_suggests_a_common_split_with_a_true_gap(ratio: float, gap: float) -> None:
    suspected = suspected_ratio(1208.0, 1208.0 / ratio * (1 + gap))
    assert suspected is not None
    if abs(gap) < 0.01 or ratio in (10.0, 0.5, 1.5):
        assert suspected == pytest.approx(ratio)


@pytest.mark.parametrize("opened", [100.0, 93.0, 75.0, 71.5, 126.0, 138.0, 0.9, 0.0, -1.0])
def test_a_true_gap_suggests_no_split(opened: float) -> None:
    assert suspected_ratio(100.0, opened) is None
    assert suspected_ratio(0.0, opened) is None


def test_a_ratio_is_shown_as_new_and_old_shares() -> None:
    shown = {10.0: "10:1", 1.5: "3:2", 0.125: "1:8", 1 / 3: "1:3", 1.281: "1.281:1", 1.0: "1:1"}
    assert {ratio: ratio_text(ratio) for ratio in shown} == shown
