"""Factor ranges: they equal the factors of every session, and the share basis of a load finds changed splits."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barflow.lake.manifests import ActionsFile, Manifest, Partition
from barflow.market.actions import Dividend, Split, Version, factors
from barflow.market.adjustment import factor_ranges
from barflow.market.vendor_days import VendorDay
from barflow.pipeline.share_basis import share_basis

NOW = datetime(2026, 1, 1, tzinfo=UTC)
START = date(2025, 1, 1)
DAYS = [START + timedelta(days=number) for number in range(40)]
BASIS = DAYS[-1]


def split(day: date, ratio: float) -> Split:
    return Split("AAPL", day, ratio, "endpoint", NOW)


def dividend(day: date, amount: float) -> Dividend:
    return Dividend("AAPL", day, amount, "USD", "endpoint", NOW)


actions = st.lists(
    st.one_of(
        st.builds(split, st.sampled_from(DAYS), st.sampled_from([10.0, 0.125, 1.281, 1.0])),
        st.builds(dividend, st.sampled_from(DAYS), st.sampled_from([0.0, 0.25, 1.5])),
    ),
    max_size=8,
    unique_by=lambda item: (item.kind, item.ex_date),
)


@given(actions, st.sets(st.sampled_from(DAYS), max_size=3))
def test_ranges_hold_the_factors_of_every_session(known: list[Split | Dividend], without_close: set[date]) -> None:
    def close_before(day: date) -> float | None:
        return None if day in without_close else 200.0 + day.day

    ranges, unusable = factor_ranges(known, BASIS, close_before)
    paid = {item.ex_date for item in known if isinstance(item, Dividend) and item.amount}
    assert unusable == sorted(paid & without_close)
    ends = [item.last_day + timedelta(days=1) for item in ranges]
    assert [item.first_day for item in ranges] == [date.min, *ends][: len(ranges)]
    splits = factors(known, "splits", BASIS, close_before)
    usable = [item for item in known if not unusable or item.ex_date > unusable[-1]]
    both = factors(usable, "all", BASIS, close_before)
    for day in DAYS:
        found = next((item for item in ranges if item.first_day <= day <= item.last_day), None)
        assert (found.split if found else 1.0) == splits.at(day).volume
        if unusable and day < unusable[-1]:
            assert found is not None
            assert found.dividend is None
        else:
            dividend_factor = found.dividend if found else 1.0
            assert dividend_factor is not None
            assert dividend_factor * splits.at(day).price == pytest.approx(both.at(day).price, rel=1e-12)


def test_a_dividend_that_is_not_below_the_close_is_unusable() -> None:
    ranges, unusable = factor_ranges([dividend(DAYS[3], 5.0), split(DAYS[3], 10)], BASIS, lambda day: 40.0)
    assert unusable == [DAYS[3]]
    assert [(item.last_day, item.split, item.dividend) for item in ranges] == [(DAYS[2], 10.0, None)]


def test_the_basis_of_a_load_names_new_changed_and_withdrawn_splits() -> None:
    stored = {"AAPL": [split(DAYS[1], 2), split(DAYS[2], 3)], "MSFT": [split(DAYS[1], 2)]}
    announced = {
        "AAPL": [Version(split(DAYS[1], 2)), Version(split(DAYS[2], 4)), Version(split(DAYS[5], 9), NOW)],
        "NVDA": [Version(split(DAYS[3], 10)), Version(split(DAYS[4], 1)), Version(dividend(DAYS[6], 1))],
        "TSLA": [Version(split(DAYS[3], 3))],
    }
    basis = share_basis(stored, announced, frozenset({"TSLA"}))
    assert basis.changed == {"AAPL": [DAYS[2]], "NVDA": [DAYS[3]]}
    ratios = {symbol: [item.ratio for item in found] for symbol, found in basis.splits.items()}
    assert ratios == {"AAPL": [2, 4], "MSFT": [2], "NVDA": [10], "TSLA": [3]}


def test_a_manifest_keeps_actions_and_vendor_days_and_an_older_one_has_none() -> None:
    day = VendorDay("AAPL", START, 1.1, 2.0, 1.0, 1.7, 9_000_000_000, NOW)
    partitions = (Partition("AAPL", "2025-01", 1, {"2025-01-02": 3}),)
    manifest = Manifest("run", NOW, partitions, (ActionsFile("AAPL", 4, 12),), (day,))
    assert Manifest.from_json(manifest.to_json()) == manifest
    older = {name: value for name, value in json.loads(manifest.to_json()).items() if name in OLDER}
    assert Manifest.from_json(json.dumps(older).encode()) == Manifest("run", NOW, partitions)


OLDER = {"run_id", "created_at", "partitions", "rows"}
