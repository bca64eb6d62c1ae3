"""Merging an answer into a stored session loses no bar, counts every change and never restores an older value."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from barflow.market.bars import Bar, SessionBars
from barflow.staging.sessions import merge_session

DAY = date(2025, 7, 2)
OPEN = datetime(2025, 7, 2, 13, 30, tzinfo=UTC)


def bar(slot: int, close: float = 10.0) -> Bar:
    return Bar(OPEN + timedelta(minutes=5 * slot), 10.0, 20.0, 5.0, close, 100)


def session_of(closes: dict[int, float]) -> SessionBars:
    return SessionBars.of("AAPL", DAY, [bar(slot, close) for slot, close in closes.items()])


sessions = st.dictionaries(st.integers(0, 77), st.sampled_from([9.0, 10.0, 11.0]), min_size=1, max_size=20).map(
    session_of
)


def values(bars: SessionBars) -> dict[datetime, float]:
    return dict(zip(bars.ts, bars.close, strict=True))


@given(sessions, sessions)
def test_every_incoming_bar_is_new_revised_or_unchanged(stored: SessionBars, incoming: SessionBars) -> None:
    merge = merge_session(stored, incoming)
    assert merge.new + merge.revised + merge.unchanged == len(incoming)
    assert len(merge.bars) == len(stored) + merge.new
    assert values(merge.bars) == values(stored) | values(incoming)
    assert merge.bars.ts == sorted(merge.bars.ts)


@given(sessions, sessions)
def test_merging_the_same_answer_again_changes_nothing(stored: SessionBars, incoming: SessionBars) -> None:
    once = merge_session(stored, incoming).bars
    twice = merge_session(once, incoming)
    assert not twice.changed
    assert twice.bars == once


@given(sessions, sessions)
def test_an_outdated_answer_fills_gaps_and_revises_nothing(stored: SessionBars, incoming: SessionBars) -> None:
    merge = merge_session(stored, incoming, outdated=True)
    assert merge.revised == 0
    assert values(merge.bars) == values(incoming) | values(stored)


@given(sessions, sessions, sessions)
def test_the_order_of_disjoint_answers_does_not_matter(a: SessionBars, b: SessionBars, c: SessionBars) -> None:
    seen: set[datetime] = set()
    parts = []
    for part in (a, b, c):
        bars = [item for item in part.bars() if item.ts not in seen]
        seen |= {item.ts for item in bars}
        if bars:
            parts.append(SessionBars.of("AAPL", DAY, bars))
    forward, backward = None, None
    for part in parts:
        forward = merge_session(forward, part).bars
    for part in reversed(parts):
        backward = merge_session(backward, part).bars
    assert forward == backward


def test_each_change_at_the_source_raises_the_bars_revision_by_one() -> None:
    first = session_of({0: 10.0, 1: 10.0})
    second = merge_session(first, session_of({1: 11.0})).bars
    third = merge_session(second, session_of({1: 9.0, 2: 9.0})).bars
    assert third.revision == [0, 2, 0]
    assert third.close == [10.0, 9.0, 9.0]
