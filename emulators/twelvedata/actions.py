"""Scripted splits and dividends of the emulator, and the bodies of /splits and /dividends.

An action can be learned late, withdrawn or changed (withdrawn, and another one learned at the same time), and a split
can contradict itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

ALWAYS = datetime.min.replace(tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class ScriptedSplit:
    """``new`` shares for ``old`` ones from ``ex_date`` on. The API shows it from ``learned`` to ``withdrawn`` (UTC)."""

    ex_date: date
    new: float
    old: float = 1
    learned: datetime = ALWAYS
    withdrawn: datetime = NEVER
    description: str | None = None  # another text than the right one
    ratio: float | None = None  # another ratio than the right one
    factors: tuple[float, float] | None = None  # other factors than the right ones


@dataclass(frozen=True)
class ScriptedDividend:
    """``amount`` dollars per share of ``ex_date``. The API shows it from ``learned`` to ``withdrawn`` (UTC)."""

    ex_date: date
    amount: float
    learned: datetime = ALWAYS
    withdrawn: datetime = NEVER


def splits_shown(scripted: Iterable[ScriptedSplit], now: datetime) -> list[ScriptedSplit]:
    """Return the splits that the API shows at ``now``, newest first."""
    return sorted((item for item in scripted if item.learned <= now < item.withdrawn), key=_ex_date, reverse=True)


def later_ratio(shown: Iterable[ScriptedSplit], day: date, today: date) -> float:
    """Return by what a raw price of ``day`` is divided: the product of the later splits that are in effect today."""
    return math.prod(item.new / item.old for item in shown if day < item.ex_date <= today)


def splits_body(shown: Iterable[ScriptedSplit], *, other_direction: bool) -> list[dict[str, object]]:
    """Return the splits as the API writes them. Ratio and factors have been seen in both directions."""
    rows: list[dict[str, object]] = []
    for item in shown:
        new, old = item.factors or ((item.old, item.new) if other_direction else (item.new, item.old))
        ratio = item.new / item.old if other_direction else item.old / item.new
        word = "split" if item.new > item.old else "reverse split"
        rows.append(
            {
                "date": item.ex_date.isoformat(),
                "description": item.description
                if item.description is not None
                else f"{item.new:g}-for-{item.old:g} {word}",
                "ratio": round(ratio, 5) if item.ratio is None else item.ratio,
                "from_factor": new,
                "to_factor": old,
            }
        )
    return rows


def dividends_body(
    scripted: Iterable[ScriptedDividend], splits: Iterable[ScriptedSplit], now: datetime, *, adjusted: bool
) -> list[dict[str, object]]:
    """Return the dividends that the API shows at ``now``. ``adjusted`` divides each amount by the later splits."""
    shown = sorted((item for item in scripted if item.learned <= now < item.withdrawn), key=_ex_date, reverse=True)
    known = list(splits)
    return [
        {
            "ex_date": item.ex_date.isoformat(),
            "amount": item.amount / later_ratio(known, item.ex_date, now.date()) if adjusted else item.amount,
        }
        for item in shown
    ]


def _ex_date(item: ScriptedSplit | ScriptedDividend) -> date:
    return item.ex_date
