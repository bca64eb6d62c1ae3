"""A process schedule is read as Airflow reads it: five fields, in New York time, summer and winter."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from config.environments import ENVIRONMENTS, environment
from config.schedule import ProcessConfig
from config.validation import ConfigError

NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("@daily", "it does not have 5 fields"),
        ("45 16 * *", "it does not have 5 fields"),
        ("0 45 16 * * MON-FRI", "it does not have 5 fields"),  # seconds
        ("45 16 ? * MON-FRI *", "it does not have 5 fields"),  # EventBridge's form
        ("60 16 * * MON-FRI", "its minute '60' is not within 0 to 59"),
        ("*/0 16 * * *", r"its minute '\*/0' is not within 0 to 59"),
        ("5; 16 * * *", "its minute '5;' is not within 0 to 59"),
        ("R 16 * * *", "its minute 'R' is not within 0 to 59"),  # another minute at each reading
        ("5 24 * * *", "its hour '24' is not within 0 to 23"),
        ("5 16-10 * * *", "its hour '16-10' is not within 0 to 23"),
        ("5 16 0 * *", "its day '0' is not within 1 to 31"),
        ("5 16 L * *", "its day 'L' is not within 1 to 31"),
        ("5 16 * 13 *", "its month '13' is not within 1 to 12 or JAN to DEC"),
        ("5 16 * * BUSY", "its weekday 'BUSY' is not within 0 to 7 or SUN to SAT"),
        ("5 16 * * MON#2", "its weekday 'MON#2' is not within 0 to 7 or SUN to SAT"),
        ("5 16 31 2 *", "its day '31' is never in its month '2'"),
    ],
)
def test_a_wrong_expression_is_rejected_with_the_field_that_is_wrong(expression: str, reason: str) -> None:
    line = f"^process\\.schedule is '.*': {reason}; must be minute, hour, .* New York time, such as '45 16 .*'$"
    with pytest.raises(ConfigError, match=line):
        ProcessConfig(schedule=(expression,))


def test_an_expression_is_allowed_once() -> None:
    with pytest.raises(ConfigError, match=r"^process\.schedule is .* 5 16 \* \* \* is repeated$"):
        ProcessConfig(schedule=("5 16 * * *",) * 2)


@pytest.mark.parametrize(
    ("schedule", "runs"),
    [
        (("45 16 * * MON-FRI",), 1),
        (("5 10-15 * * 1-5", "45 16 * * mon-fri"), 7),
        (("*/30 10,12-13 * * *",), 6),
        (("0 9 * * SAT",), 1),
        (("0 9 * * SAT", "45 16 * * MON-FRI"), 1),
        (("0 16 1 * *", "0 16 * * *"), 1),
        (("0 9 * JAN *",), 1),
    ],
)
def test_the_runs_of_a_session_are_those_of_the_busiest_day(schedule: tuple[str, ...], runs: int) -> None:
    assert ProcessConfig(schedule=schedule).runs_per_session == runs


@settings(max_examples=25)
@given(
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=5),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=5),
)
def test_a_daily_schedule_runs_at_each_of_its_minutes_of_each_of_its_hours(minutes: set[int], hours: set[int]) -> None:
    expression = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *"
    assert ProcessConfig(schedule=(expression,)).runs_per_session == len(minutes) * len(hours)


@pytest.mark.parametrize(
    ("day", "offset"), [("2025-03-07", -5), ("2025-03-10", -4), ("2025-10-31", -4), ("2025-11-03", -5)]
)
def test_a_run_keeps_its_new_york_hour_when_daylight_saving_time_changes(day: str, offset: int) -> None:
    (expression,) = ProcessConfig().schedule
    midnight = datetime.combine(date.fromisoformat(day), datetime.min.time(), tzinfo=NEW_YORK)
    run: datetime = croniter(expression, midnight).get_next(datetime)
    assert run.astimezone(UTC).isoformat() == f"{day}T{16 - offset}:45:00+00:00"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_last_run_of_a_session_starts_after_its_last_tick(name: str) -> None:
    wanted = environment(name)
    end_of_last_tick = timedelta(hours=16, minutes=10, seconds=wanted.ingest.timeout_seconds)
    monday = datetime(2025, 6, 30)
    for weekday in range(5):
        midnight = monday + timedelta(days=weekday)
        tomorrow = midnight + timedelta(days=1)
        last = max(croniter(expression, tomorrow).get_prev(datetime) for expression in wanted.process.schedule)
        assert last - midnight > end_of_last_tick
