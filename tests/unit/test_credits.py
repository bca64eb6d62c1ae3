"""Credits count by clock minute and UTC day. No more are spent than the plan has."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barflow.twelvedata.credits import Credits

NOON = datetime(2025, 7, 2, 12, 0, 20, tzinfo=UTC)
NEXT_MINUTE = datetime(2025, 7, 2, 12, 1, tzinfo=UTC)
MIDNIGHT = datetime(2025, 7, 3, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


def test_a_minute_has_its_credits_until_the_clock_minute_ends() -> None:
    credits = Credits(8)
    assert credits.left(NOON) == 8
    credits.spend(5, NOON)
    assert credits.left(NEXT_MINUTE - INSTANT) == 3
    assert credits.left(NEXT_MINUTE) == 8


def test_a_day_has_its_credits_until_midnight_utc() -> None:
    credits = Credits(8, 10)
    credits.spend(8, NOON)
    assert credits.left(NEXT_MINUTE) == 2
    credits.spend(2, NEXT_MINUTE)
    assert credits.left(MIDNIGHT - INSTANT) == 0
    assert credits.day_is_spent(MIDNIGHT - INSTANT)
    assert credits.left(MIDNIGHT) == 8


def test_without_a_daily_cap_the_day_is_never_used_up() -> None:
    credits = Credits(10**6)
    credits.spend(10**6, NOON)
    assert not credits.day_is_spent(NOON)


@pytest.mark.parametrize(
    ("per_day", "resumes"),
    [(None, NEXT_MINUTE), (9, NEXT_MINUTE), (8, MIDNIGHT)],
    ids=["no cap", "day left", "day used up"],
)
def test_calls_resume_one_second_after_the_minute_or_the_day_ends(per_day: int | None, resumes: datetime) -> None:
    credits = Credits(8, per_day)
    credits.spend(8, NOON)
    assert credits.resume_at(NOON) == resumes + timedelta(seconds=1)


def test_the_vendors_count_lowers_ours_and_never_raises_it() -> None:
    credits = Credits(8)
    credits.spend(2, NOON)
    credits.limit_to(3, NOON)
    assert credits.left(NOON) == 3
    credits.limit_to(600, NOON)  # a plan larger than the setting
    assert credits.left(NOON) == 3
    assert credits.left(NEXT_MINUTE) == 8


def test_a_refusal_ends_the_minutes_credits_and_sets_the_plans_limit() -> None:
    credits = Credits(610)
    credits.refused_for_minute(NOON, 8)
    assert credits.left(NOON) == 0
    assert credits.left(NEXT_MINUTE) == 8
    credits.refused_for_minute(NEXT_MINUTE, 55)
    assert credits.left(NEXT_MINUTE + timedelta(minutes=1)) == 8
    credits.refused_for_minute(NEXT_MINUTE, None)
    assert credits.left(NEXT_MINUTE + timedelta(minutes=1)) == 8


def test_a_refusal_for_the_day_lasts_until_midnight_utc() -> None:
    credits = Credits(8)
    credits.refused_for_day(NOON)
    assert (credits.left(NEXT_MINUTE), credits.day_is_spent(NEXT_MINUTE)) == (0, True)
    assert credits.resume_at(NEXT_MINUTE) == MIDNIGHT + timedelta(seconds=1)
    assert (credits.left(MIDNIGHT), credits.day_is_spent(MIDNIGHT)) == (8, False)


steps = st.lists(
    st.tuples(st.integers(0, 90_000), st.integers(1, 30), st.one_of(st.none(), st.integers(0, 30))), max_size=60
)


@given(st.integers(1, 20), st.one_of(st.none(), st.integers(1, 100)), steps)
def test_spending_what_is_left_never_exceeds_a_minute_or_a_day(
    per_minute: int, per_day: int | None, steps: list[tuple[int, int, int | None]]
) -> None:
    credits, now = Credits(per_minute, per_day), NOON
    minutes, days = Counter[datetime](), Counter[object]()
    for seconds, wanted, reported in steps:
        now += timedelta(milliseconds=seconds * 10)
        count = min(wanted, credits.left(now))
        credits.spend(count, now)
        if reported is not None:
            credits.limit_to(reported, now)
            assert credits.left(now) <= reported
        minutes[now.replace(second=0, microsecond=0)] += count
        days[now.date()] += count
        if not credits.left(now):
            assert credits.resume_at(now) > now
            assert credits.left(credits.resume_at(now)) > 0
    assert max(minutes.values(), default=0) <= per_minute
    assert per_day is None or max(days.values(), default=0) <= per_day
