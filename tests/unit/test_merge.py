"""Merging an answer into a stored session loses no version, counts every change and never restores an older value."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barflow.market.bars import Bar, SessionBars
from barflow.market.versions import BarVersion, history
from barflow.staging.merge import Merge, merge_session

DAY = date(2025, 7, 2)
OPEN = datetime(2025, 7, 2, 13, 30, tzinfo=UTC)
ASKED = OPEN + timedelta(hours=8)
MINUTE = timedelta(minutes=1)


def bar(slot: int, close: float = 10.0) -> Bar:
    return Bar(OPEN + timedelta(minutes=5 * slot), 10.0, 20.0, 5.0, close, 100)


def session_of(closes: dict[int, float]) -> SessionBars:
    return SessionBars.of("AAPL", DAY, [bar(slot, close) for slot, close in closes.items()])


def stored_of(closes: dict[int, float]) -> SessionBars:
    return merge_session(None, session_of(closes), ASKED).bars


closes = st.dictionaries(st.integers(0, 77), st.sampled_from([9.0, 10.0, 11.0]), min_size=1, max_size=20)
sessions, stored_sessions = closes.map(session_of), closes.map(stored_of)


def values(bars: SessionBars) -> dict[datetime, float]:
    return dict(zip(bars.ts, bars.close, strict=True))


class Stored:
    """A session document and its versions, as a save keeps them, without a database."""

    def __init__(self) -> None:
        self.bars: SessionBars | None = None
        self.newest: datetime | None = None
        self.versions: set[BarVersion] = set()

    def save(self, bars: SessionBars, requested_at: datetime) -> Merge:
        merge = merge_session(self.bars, bars, requested_at, newest=self.newest, earlier=lambda: self.versions)
        self.versions |= {replace(item, revision=0, known_until=None) for item in merge.superseded}
        if merge.changed:
            self.newest = max(requested_at, self.newest or requested_at)
        self.bars = merge.bars
        return merge

    def history(self) -> list[BarVersion]:
        assert self.bars
        columns = (getattr(self.bars, name) for name in ("ts", "open", "high", "low", "close", "volume"))
        current = map(BarVersion.of, zip(*columns, strict=True), self.bars.known_from)
        return history([*self.versions, *current])


@given(stored_sessions, sessions)
def test_every_incoming_bar_is_new_revised_or_unchanged(stored: SessionBars, incoming: SessionBars) -> None:
    merge = merge_session(stored, incoming, ASKED + MINUTE, newest=ASKED)
    assert merge.new + merge.revised + merge.unchanged == len(incoming)
    assert len(merge.bars) == len(stored) + merge.new
    assert values(merge.bars) == values(stored) | values(incoming)
    assert merge.bars.ts == sorted(merge.bars.ts)
    assert len(merge.superseded) == merge.revised
    assert {(item.ts, item.close) for item in merge.superseded} <= values(stored).items()


@given(stored_sessions, sessions)
def test_merging_the_same_answer_again_changes_nothing(stored: SessionBars, incoming: SessionBars) -> None:
    once = merge_session(stored, incoming, ASKED + MINUTE, newest=ASKED).bars
    for again in (ASKED + MINUTE, ASKED + 2 * MINUTE):
        twice = merge_session(once, incoming, again, newest=ASKED + MINUTE)
        assert not twice.changed
        assert twice.bars == once


@given(stored_sessions, sessions)
def test_an_outdated_answer_fills_gaps_and_revises_nothing(stored: SessionBars, incoming: SessionBars) -> None:
    merge = merge_session(stored, incoming, ASKED - MINUTE, newest=ASKED)
    assert merge.revised == 0
    assert values(merge.bars) == values(incoming) | values(stored)


@given(closes, closes, closes)
def test_the_order_of_disjoint_answers_does_not_matter(
    a: dict[int, float], b: dict[int, float], c: dict[int, float]
) -> None:
    b = {slot: close for slot, close in b.items() if slot not in a} or {78: 9.0}
    c = {slot: close for slot, close in c.items() if slot not in {*a, *b}} or {79: 9.0}
    parts = [session_of(part) for part in (a, b, c)]
    forward, backward = Stored(), Stored()
    for part in parts:
        forward.save(part, ASKED)
    for part in parts[::-1]:
        backward.save(part, ASKED)
    assert forward.bars == backward.bars


def test_each_revision_of_a_bar_is_counted_and_keeps_the_one_before() -> None:
    kept = Stored()
    for minute, answer in enumerate(({0: 10.0, 1: 10.0}, {1: 11.0}, {1: 9.0, 2: 9.0})):
        kept.save(session_of(answer), ASKED + minute * MINUTE)
    assert kept.bars
    assert kept.bars.revision == [0, 2, 0]
    assert kept.bars.known_from == [ASKED, ASKED + 2 * MINUTE, ASKED + 2 * MINUTE]
    assert [(item.close, item.known_from, item.known_until, item.revision) for item in kept.history()[1:4]] == [
        (10.0, ASKED, ASKED + MINUTE, 0),
        (11.0, ASKED + MINUTE, ASKED + 2 * MINUTE, 1),
        (9.0, ASKED + 2 * MINUTE, None, 2),
    ]


def test_two_answers_of_one_moment_lose_no_version() -> None:
    kept = Stored()
    for close in (10.0, 11.0, 9.0):
        kept.save(session_of({0: close}), ASKED)
    found = kept.history()
    assert sorted(item.close for item in found) == [9.0, 10.0, 11.0]
    assert len({item.known_from for item in found}) == 3


# For each answer, which of two bars the source had changed before it. An answer holds every bar of the session.
changes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6)


@given(st.data(), changes)
def test_answers_that_arrive_in_any_order_give_the_history_in_which_they_were_asked_for(
    data: st.DataObject, changed: list[tuple[bool, bool]]
) -> None:
    answers = [
        {slot: 6.0 + sum(item[slot] for item in changed[: n + 1]) for slot in (0, 1)} for n in range(len(changed))
    ]
    check_order(answers, data.draw(st.permutations(range(len(answers)))))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_a_value_that_the_source_takes_back_while_answers_cross(order: tuple[int, ...]) -> None:
    """Each answer changes another bar of the session, too: then the store knows that it held this bar."""
    check_order([{0: 9.0, 1: 9.0}, {0: 10.0, 1: 10.0}, {0: 9.0, 1: 11.0}], order)


def check_order(given_answers: list[dict[int, float]], order: Iterable[int]) -> None:
    kept = Stored()
    for number in order:
        kept.save(session_of(given_answers[number]), ASKED + number * MINUTE)
    expected = defaultdict(list)
    for number, answer in enumerate(given_answers):
        for slot, close in answer.items():
            if not expected[slot] or expected[slot][-1][0] != close:
                expected[slot].append((close, ASKED + number * MINUTE))
    found = defaultdict(list)
    for item in kept.history():
        found[(item.ts - OPEN) // timedelta(minutes=5)].append((item.close, item.known_from))
    assert found == expected
    assert kept.bars
    assert kept.bars.revision == [len(expected[slot]) - 1 for slot in sorted(expected)]
