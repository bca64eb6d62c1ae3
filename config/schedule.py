"""When does a process run start? Cron expressions in New York time, read just far enough to be checked and counted."""

from __future__ import annotations

import re
from dataclasses import dataclass

from config.validation import each_once, refuse

EXAMPLE = "'45 16 * * MON-FRI'"
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
# Each field's least and greatest value, and the first value's name where values have names. 7 is Sunday as well.
FIELDS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, MONTHS),
    (0, 7, DAYS),
)
PART = re.compile(r"^(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?$")


@dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """When what was fetched goes into the archive and the warehouse: cron expressions in New York time."""

    schedule: tuple[str, ...] = ("45 16 * * MON-FRI",)  # once, after the close and its last corrections

    def __post_init__(self) -> None:
        if not self.schedule:
            raise refuse("process.schedule", self.schedule, f"allowed is at least one cron expression, as {EXAMPLE}")
        each_once("process.schedule", self.schedule)
        for expression in self.schedule:
            try:
                runs_of_a_weekday(expression)
            except ValueError as error:
                raise refuse(
                    "process.schedule",
                    expression,
                    f"{error}. Allowed are minute, hour, day, month and weekday in New York time, as {EXAMPLE}",
                ) from None

    @property
    def runs_per_session(self) -> int:
        """How many runs a trading day has."""
        return max(1, sum(runs_of_a_weekday(expression) for expression in self.schedule))


def runs_of_a_weekday(expression: str) -> int:
    """How often an expression fires on a weekday, should it name one. Raises ValueError saying what is wrong."""
    parts = expression.split()
    if len(parts) != len(FIELDS):
        raise ValueError(f"it has {len(parts)} fields")
    minutes, hours, _, _, days = (_values(part, *field) for part, field in zip(parts, FIELDS, strict=True))
    return len(minutes) * len(hours) if days & {1, 2, 3, 4, 5} else 0


def _values(text: str, least: int, greatest: int, names: tuple[str, ...]) -> set[int]:
    """The values of one field: a list of ``*``, ``5``, ``MON-FRI``, ``0-30/10``."""
    found: set[int] = set()
    for part in text.split(","):
        match = PART.match(part)
        if not match:
            raise ValueError(f"{part!r} is no value, range or step")
        first, last, step = match.groups()
        low = _number(first, least, names) if first else least
        high = _number(last, least, names) if last else greatest if step or not first else low
        if not least <= low <= high <= greatest or step == "0":
            raise ValueError(f"{part!r} is not within {least} to {greatest}")
        found.update(range(low, high + 1, int(step or 1)))
    return found


def _number(text: str, least: int, names: tuple[str, ...]) -> int:
    if text.upper() in names:
        return names.index(text.upper()) + least
    if not text.isdigit():
        raise ValueError(f"{text!r} is no number" + (f" and none of {', '.join(names)}" if names else ""))
    return int(text)
