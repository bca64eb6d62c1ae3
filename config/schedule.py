"""The schedules of process runs and of the data quality: cron expressions in New York time, which Airflow reads."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from typing import Annotated

from croniter import croniter, croniter_range
from pydantic import AfterValidator, Field

from config.validation import Config, OnceNotEmpty

ALLOWED = "must be minute, hour, day, month and weekday in New York time, such as '45 16 * * MON-FRI'"
# croniter also reads letters such as R (a random value). Here only months and weekdays have letters: their names.
NUMBERS, NUMBERS_AND_NAMES = re.compile(r"[\d*,/-]+"), re.compile(r"(?:[\d*,/-]|[A-Za-z]{3})+")
FIELDS = (
    ("minute", NUMBERS, "0 to 59"),
    ("hour", NUMBERS, "0 to 23"),
    ("day", NUMBERS, "1 to 31"),
    ("month", NUMBERS_AND_NAMES, "1 to 12 or JAN to DEC"),
    ("weekday", NUMBERS_AND_NAMES, "0 to 7 or SUN to SAT"),
)
# A month in which every day of a month occurs. Wall-clock times without a zone count the same as New York's.
FIRST, LAST = datetime(2025, 7, 1), datetime(2025, 7, 31, 23, 59)  # noqa: DTZ001


def _cron(expression: str) -> str:
    """Return the expression. Raise ValueError naming the field that is wrong."""
    parts = expression.split()
    if len(parts) != len(FIELDS):
        raise ValueError(f"it does not have {len(FIELDS)} fields; {ALLOWED}")
    for position, (part, (name, pattern, values)) in enumerate(zip(parts, FIELDS, strict=True)):
        alone = " ".join(part if position == other else "*" for other in range(len(FIELDS)))
        if not pattern.fullmatch(part) or _descends(part) or not croniter.is_valid(alone):
            raise ValueError(f"its {name} {part!r} is not within {values}; {ALLOWED}")
    if not croniter.is_valid(expression, strict=True):
        raise ValueError(f"its day {parts[2]!r} is never in its month {parts[3]!r}; {ALLOWED}")
    return expression


def _descends(part: str) -> bool:
    """Return whether a range goes down, such as 16-10. croniter would read it as 16-23 and 0-10."""
    return any(int(low) > int(high) for low, high in re.findall(r"(\d+)-(\d+)", part))


Cron = Annotated[str, AfterValidator(_cron)]


class ProcessConfig(Config, title="process"):
    """When a run moves staged bars into the archive and the warehouse."""

    # Once a day, after the session's closing bars and their last corrections.
    schedule: OnceNotEmpty[Cron] = ("45 16 * * MON-FRI",)

    @property
    def runs_per_session(self) -> int:
        """The number of runs on the busiest day of a month."""
        return max(Counter(moment.date() for moment in _moments(self.schedule)).values(), default=1)


class QualityConfig(Config, title="quality"):
    """When Glue evaluates the data quality rules on the new months of the archive, and with how many workers."""

    # Once a trading day, after the last process run.
    schedule: OnceNotEmpty[Cron] = ("15 18 * * MON-FRI",)
    # Glue's default is 5. Two read a month of a thousand symbols.
    workers: int = Field(2, ge=2, le=100, description="workers of the type G.1X")

    @property
    def runs_per_month(self) -> int:
        """The number of evaluations in a month with 23 weekdays."""
        return len(_moments(self.schedule))


def _moments(schedule: tuple[str, ...]) -> set[datetime]:
    """Return the moments of a month that a schedule names."""
    return {moment for expression in schedule for moment in croniter_range(FIRST, LAST, expression)}
