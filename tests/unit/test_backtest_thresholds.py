"""Each threshold of a rule is found and moved, and a moved rule fires as a rule that is written that way."""

from __future__ import annotations

import pytest

from barflow.alerts.expressions import MOST_CHARACTERS
from barflow.alerts.rules import Rule, RuleBook
from barflow.alerts.rules_file import parse_rules
from barflow.backtest.thresholds import MOVES, Variants, moved, thresholds


def expression(when: str) -> Rule:
    return parse_rules({"rule": [{"id": "it", "when": when}]}).all[0]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (
            "crosses_above(close, vwap) && rsi(14) < 30.0 && volume_times(20) > 3.0",
            [("rsi(14) < 30.0", 30.0), ("volume_times(20) > 3.0", 3.0)],
        ),
        ("change_pct < -2.0 || (gap_pct > 1.5)", [("change_pct < -2.0", -2.0), ("gap_pct > 1.5", 1.5)]),
        ("-2.0 > change_pct", [("-2.0 > change_pct", -2.0)]),
        ("crosses_below(close, 100.0)", [("crosses_below(close, 100.0)", 100.0)]),
        ("crosses_above(100.0, close)", [("crosses_above(100.0, close)", 100.0)]),
        ("minutes_since_open >= 30", [("minutes_since_open >= 30", 30.0)]),
        ("close - 3.0 > 1.02 * sma(20)", []),
        ("close > 2.0 + sma(20)", []),
        ("change_pct > 0.0 && close > 5.0", [("close > 5.0", 5.0)]),
        (
            "(rsi(14) < 30.0 ? close : open) > 5.0",
            [("rsi(14) < 30.0", 30.0), ("(rsi(14) < 30.0 ? close : open) > 5.0", 5.0)],
        ),
        ("close\n  > 5.0", [("close > 5.0", 5.0)]),
    ],
)
def test_a_number_that_is_compared_alone_is_a_threshold(when: str, expected: list[tuple[str, float]]) -> None:
    assert thresholds(expression(when)) == expected


def test_a_moved_number_replaces_the_one_in_the_text() -> None:
    rule = expression("rsi(14) < 30.0 && change_pct < -2.0 && minutes_since_open >= 30")
    texts = [found.model_dump()["when"] for place in range(3) if (found := moved(rule, place, -10))]
    assert texts == [
        "rsi(14) < 27.0 && change_pct < -2.0 && minutes_since_open >= 30",
        "rsi(14) < 30.0 && change_pct < -1.8 && minutes_since_open >= 30",
        "rsi(14) < 30.0 && change_pct < -2.0 && minutes_since_open >= 27.0",
    ]
    assert moved(rule, 3, 10) is None


def test_a_text_that_gets_too_long_has_no_variant() -> None:
    ending = "1.01 < close"
    rule = expression("close > 0.0 && " * 32 + " " * (MOST_CHARACTERS - 32 * 15 - len(ending)) + ending)
    assert moved(rule, 0, -10) is None
    assert moved(rule, 0, 20) is None


def book() -> RuleBook:
    return parse_rules(
        {
            "rule": [
                {"id": "jump", "kind": "move", "percent": 3.0, "minutes": 30, "per_symbol": {"TSLA": {"percent": 5.0}}},
                {"id": "busy", "kind": "volume", "times": 1.1},
                {"id": "price", "kind": "level", "level": 200.0},
                {"id": "quiet", "kind": "silence", "minutes": 30},
            ]
        }
    )


def test_every_threshold_has_a_variant_for_each_move_also_of_a_symbol_with_its_own_values() -> None:
    variants = Variants(book())
    found = {item.id: item.model_dump() for item in variants.book.all}
    assert len(found) == 3 * len(MOVES)
    own = {item.id: item.model_dump() for item in variants.book.rules("TSLA")}
    for percent, factor in zip(MOVES, (0.8, 0.9, 1.1, 1.2), strict=True):
        assert found[f"jump/0/{percent}"]["percent"] == pytest.approx(3.0 * factor)
        assert own[f"jump/0/{percent}"]["percent"] == pytest.approx(5.0 * factor)
        assert found[f"busy/0/{percent}"]["times"] == pytest.approx(1.1 * factor)
        assert found[f"price/0/{percent}"]["level"] == pytest.approx(200.0 * factor)


def test_the_counts_return_to_their_rule_and_move() -> None:
    variants = Variants(book())
    found = variants.sensitivity({"jump/0/-20": 9, "jump/0/20": 2})
    assert [(item.threshold, item.value, item.counts) for item in found["jump"]] == [
        ("percent", 3.0, {"-20": 9, "-10": 0, "+10": 0, "+20": 2})
    ]
    assert found["quiet"] == []
    assert not Variants(book().only("quiet"))
