"""Hypothesis strategies for the tests of alerts: rules of every kind, and a history of sessions."""

from __future__ import annotations

from alert_bars import bars_of, days
from hypothesis import strategies as st

from barflow.alerts.rules import (
    AverageRule,
    ExtremeRule,
    GapRule,
    LevelRule,
    MoveRule,
    Rule,
    SilenceRule,
    VolumeRule,
)
from barflow.market.bars import SessionBars


def rule_of(model: type[Rule], **values: st.SearchStrategy[object]) -> st.SearchStrategy[Rule]:
    kind = st.just(model.__name__.removesuffix("Rule").lower())
    cool_down = st.sampled_from([0, 5, 10, 60, 2000])
    return st.builds(model, **{"id": st.just("rule"), "kind": kind, "cool_down_minutes": cool_down, **values})


SLOTS = 7
# Half dollars, so that sums and thresholds are often met exactly.
prices = st.integers(190, 210).map(lambda halves: halves / 2)
DIRECTED = {"direction": st.sampled_from(["up", "down", "both"])}
KINDS: dict[str, st.SearchStrategy[Rule]] = {
    "level": rule_of(LevelRule, level=prices, **DIRECTED),
    "move": rule_of(
        MoveRule, percent=st.sampled_from([1.0, 2.5, 5.0]), minutes=st.sampled_from([5, 10, 20, 390]), **DIRECTED
    ),
    "gap": rule_of(GapRule, percent=st.sampled_from([1.0, 2.5]), **DIRECTED),
    "volume": rule_of(VolumeRule, times=st.sampled_from([1.5, 2.0]), sessions=st.integers(1, 4)),
    "average of days": rule_of(AverageRule, sessions=st.integers(2, 4), **DIRECTED),
    "average of bars": rule_of(AverageRule, bars=st.integers(2, 12), **DIRECTED),
    "extreme": rule_of(ExtremeRule, sessions=st.integers(1, 4), **DIRECTED),
    "silence": rule_of(SilenceRule, minutes=st.sampled_from([5, 10, 30, 390])),
}


@st.composite
def histories(draw: st.DrawFn) -> list[SessionBars]:
    """Draw sessions up to the newest day, with missing sessions and missing bars."""
    found = []
    for item in days(6):
        slots = draw(st.sets(st.integers(0, SLOTS - 1), max_size=SLOTS))
        if not slots:
            continue
        closes = {slot: draw(prices) for slot in slots}
        columns = {
            name: {slot: draw(prices) for slot in slots if draw(st.booleans())} for name in ("open", "high", "low")
        }
        volume = {slot: draw(st.integers(0, 50)) for slot in slots}
        found.append(bars_of(item.session_date, closes, **columns, volume=volume))
    return found
