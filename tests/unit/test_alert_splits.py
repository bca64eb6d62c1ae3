"""Rules compare prices and volumes in the shares of the evaluated session (guarantee G10)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

import pytest
from alert_bars import NEWEST_DAY, bars_of, days, reference_alerts, traded
from alert_histories import KINDS, histories
from hypothesis import given, settings
from hypothesis import strategies as st

from barflow.alerts.evaluate import evaluate_history
from barflow.alerts.rules import ExtremeRule, GapRule, RuleBook, VolumeRule
from barflow.market.actions import Split
from barflow.market.bars import SessionBars

LEARNED = datetime(2025, 7, 1, tzinfo=UTC)
*_, EVE, EX_DATE, NEXT = (item.session_date for item in days(22))
GAP = GapRule(id="gap_5pct", kind="gap", percent=5)


def split(ratio: float, ex_date: date = EX_DATE) -> Split:
    return Split("AAPL", ex_date, ratio, "endpoint", LEARNED)


def shares(splits: Sequence[Split], day: date) -> float:
    """Return how many shares of the newest day one share of ``day`` became."""
    return math.prod(item.ratio for item in splits if item.ex_date > day)


def in_raw_shares(bars: SessionBars, ratio: float) -> SessionBars:
    """Return bars in the shares of their own day. Their volumes are so already."""
    prices = {name: [price * ratio for price in getattr(bars, name)] for name in ("open", "high", "low", "close")}
    return replace(bars, **prices)


def in_newest_shares(bars: SessionBars, ratio: float) -> SessionBars:
    """Return bars with volumes in the shares of the newest day. Their prices are so already."""
    volumes: Any = [volume * Fraction(ratio) for volume in bars.volume]
    return replace(bars, volume=volumes)


splits_of_days = st.lists(
    st.builds(
        split, st.sampled_from([10.0, 2.0, 0.125, 1.281, 7.0]), st.sampled_from([item.session_date for item in days(6)])
    ),
    max_size=3,
    unique_by=lambda item: item.ex_date,
)


@pytest.mark.parametrize("kind", set(KINDS) - {"level"})
@settings(max_examples=50, deadline=None)
@given(history=histories(), splits=splits_of_days, data=st.data())
def test_raw_bars_with_splits_fire_as_bars_in_one_basis_do(
    kind: str, history: list[SessionBars], splits: list[Split], data: st.DataObject
) -> None:
    """The reference implementation gets bars that no split divides. Prices of an alert are those of its session."""
    rule = data.draw(KINDS[kind])
    ratios = {bars.session_date: shares(splits, bars.session_date) for bars in history}
    raw = [in_raw_shares(bars, ratios[bars.session_date]) for bars in history]
    events = evaluate_history(RuleBook.of([rule]), raw, traded(NEWEST_DAY).closes, {"AAPL": splits})
    one_basis = [in_newest_shares(bars, ratios[bars.session_date]) for bars in history]
    expected = reference_alerts(rule, one_basis, NEWEST_DAY) if history else []
    found = [
        (event.bar_start, event.direction, event.value / (ratios[event.session_date] if rule.unit == "dollars" else 1))
        for event in events
    ]
    assert sorted(found) == sorted((*item[:2], pytest.approx(item[2], abs=1e-4)) for item in expected)
    closes = {ts: close for bars in raw for ts, close in zip(bars.ts, bars.close, strict=True)}
    assert kind == "silence" or all(event.price == closes[event.bar_start] for event in events)


@pytest.mark.parametrize(("ratio", "before"), [(10.0, 1208.9), (0.125, 12.4), (1.281, 128.37)])
def test_a_gap_across_a_split_is_the_true_gap(ratio: float, before: float) -> None:
    past = bars_of(EVE, [before])
    for gap, fires in ((-6.0, True), (-4.0, False), (6.0, True)):
        opened = before / ratio * (1 + gap / 100)
        today = bars_of(EX_DATE, [opened])
        events = evaluate_history(RuleBook.of([GAP]), [past, today], traded(EX_DATE).closes, {"AAPL": [split(ratio)]})
        assert [event.value for event in events] == ([pytest.approx(gap, abs=1e-4)] if fires else [])
        for event in events:
            assert event.id == "gap_5pct|AAPL|2025-07-29T13:30:00Z"
            assert event.price == opened, "raw dollars of the session"
            assert event.reference == pytest.approx(before / ratio)


def test_the_same_price_and_volume_across_a_split_fire_nothing() -> None:
    """12.09 * 0.1 is another double than 1.209, so a high before the split must not count as lower than itself."""
    rules = [
        ExtremeRule(id="extreme", kind="extreme", sessions=5),
        VolumeRule(id="volume", kind="volume", times=1.5, sessions=5),
    ]
    for close in (12.09, 1208.88, 33.3):
        past = [bars_of(item.session_date, [close] * 5, volume=dict.fromkeys(range(5), 100)) for item in days(22)[:-2]]
        after = [bars_of(day, [close / 7] * 5, volume=dict.fromkeys(range(5), 700)) for day in (EX_DATE, NEXT)]
        events = evaluate_history(RuleBook.of(rules), past + after, traded(NEXT).closes, {"AAPL": [split(7.0)]})
        assert events == []
