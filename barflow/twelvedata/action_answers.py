"""Splits and dividends read from Twelve Data's answers, and splits derived from daily bars.

A row that contradicts itself is never used: it becomes a problem, with its ex-date. Pure.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

from barflow.market.actions import Action, Dividend, Split
from barflow.market.answers import CURRENCY
from barflow.market.sessions import sessions_between
from barflow.market.vendor_days import VendorDay
from barflow.symbol import same_symbol
from barflow.twelvedata.calls import Answer

# The two numbers of a description, such as "4-for-1 split", "1-for-8 reverse split" or "1.281:1".
NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
NUMBERS = re.compile(rf"(?<![\d.]){NUMBER}\s*(?:-?\s*for\s*-?|:)\s*{NUMBER}(?![\d.])", re.IGNORECASE)
# Twelve Data rounds the ratio, such as 0.33333.
TOLERANCE = 2e-3
# The smallest change between the quotients of two days that is a split, and how near to a usual ratio it is that one.
# The rounding of prices is below both.
LEAST_STEP, NEAR_RATIO = 5e-3, 5e-4
MOST_OLD_SHARES = 5
PRICES = ("open", "high", "low", "close")
LONGEST_VALUE = 40


@dataclass
class Found:
    """The actions of an answer, and its problems with their ex-dates. A problem without one is of the whole answer."""

    actions: list[Action] = field(default_factory=list)
    problems: list[tuple[date | None, str]] = field(default_factory=list)
    covers: tuple[date, date] | None = None  # the first and last day that it is complete for; None: every day


def splits(answer: Answer, known_from: datetime) -> Found:
    """Return the splits in an answer of /splits.

    The description says the direction, such as 4-for-1. The factors and the ratio have been seen in both directions, so
    each must be that number or its inverse.
    """
    found = _checked(answer)
    ratios: dict[date, float] = {}
    for row in answer.values if not found.problems else ():
        day = _day(row.get("date")) if isinstance(row, dict) else None
        if day is None:
            found.problems.append((None, f"a split has no date: {_shown(row)}"))
            continue
        ratio, problem = _ratio(row)
        if ratio is not None and not math.isclose(ratios.setdefault(day, ratio), ratio, rel_tol=TOLERANCE):
            problem = f"the split of {day} has two ratios, {ratios[day]:g} and {ratio:g}"
        if problem:
            found.problems.append((day, problem))
    bad = {day for day, _ in found.problems}
    for day, ratio in sorted(ratios.items()):
        if day in bad:
            continue
        try:
            found.actions.append(Split(answer.symbol, day, ratio, "endpoint", known_from))
        except ValueError as error:
            found.problems.append((day, f"the split of {day}: {error}"))
    return found


def dividends(answer: Answer, known_from: datetime) -> Found:
    """Return the dividends in an answer of /dividends. Different amounts of one ex-date are added, equal ones not."""
    found = _checked(answer)
    amounts: dict[date, set[float]] = defaultdict(set)
    for row in answer.values if not found.problems else ():
        day = _day(row.get("ex_date")) if isinstance(row, dict) else None
        amount = _number(row.get("amount")) if isinstance(row, dict) else None
        if day is None:
            found.problems.append((None, f"a dividend has no ex-date: {_shown(row)}"))
        elif amount is None:
            found.problems.append((day, f"the dividend of {day} has no amount above 0: {_shown(row.get('amount'))}"))
        else:
            amounts[day].add(amount)
    bad = {day for day, _ in found.problems}
    for day, parts in sorted(amounts.items()):
        if day in bad:
            continue
        try:
            total = math.fsum(parts)
            found.actions.append(Dividend(answer.symbol, day, total, CURRENCY, "endpoint", known_from))
        except ValueError as error:
            found.problems.append((day, f"the dividend of {day}: {error}"))
    return found


def derived_splits(raw: Answer, adjusted: Answer, known_from: datetime, complete: date = date.max) -> Found:
    """Return the splits that the quotient of raw and split-adjusted daily bars shows.

    The quotient of a day is the product of all later ratios, so it changes at each ex-date by the ratio. Changes below
    0.5 % are the rounding of prices. Bars after ``complete`` are left out: their session is open, so the price moves
    between the two requests.
    """
    found = _checked(raw)
    found.problems += _checked(adjusted).problems
    before, after = _prices(raw.values), _prices(adjusted.values)
    days = sorted(before.keys() & after.keys())
    days = [day for day in days if day <= complete] or days  # a share may have its first session today
    if not days and not found.problems:
        found.problems.append((None, "the raw and the split-adjusted daily bars have no day in common"))
    if found.problems:
        return found
    found.covers = days[0], days[-1]
    segments = _segments([(day, before[day] / after[day]) for day in days])
    _, newest, level = segments[-1]
    if abs(level - 1) > LEAST_STEP and newest == 1:
        found.problems.append((None, f"the newest raw price is {level:g} times the adjusted one, not equal"))
    elif abs(level - 1) > LEAST_STEP:
        # Before the open of an ex-date, the bars up to the session before it are adjusted already.
        found.actions.append(Split(raw.symbol, _next_session(days[-1]), _usual(level), "derived", known_from))
    for place, (first, count, level) in enumerate(segments[1:], 1):
        ratio = segments[place - 1][2] / level
        following = segments[place + 1][2] if place + 1 < len(segments) else None
        if count == 1 and following and abs(following / segments[place - 1][2] - 1) <= LEAST_STEP:
            found.problems.append((first, f"the raw and the adjusted daily bars of {first} alone differ by {ratio:g}"))
        else:
            found.actions.append(Split(raw.symbol, first, _usual(ratio), "derived", known_from))
    bad = {day for day, _ in found.problems}
    # The session after a wrong one shows the same change back.
    back = {segments[place + 1][0] for place, segment in enumerate(segments[:-1]) if segment[0] in bad}
    found.actions = sorted((item for item in found.actions if item.ex_date not in back), key=lambda item: item.ex_date)
    return found


def _next_session(day: date) -> date:
    """Return the session after a day. No closure of the exchange was longer than the week of September 2001."""
    return sessions_between(day + timedelta(days=1), day + timedelta(days=10))[0].session_date


def daily_bars(raw: Answer) -> dict[date, VendorDay]:
    """Return the raw daily bars by day. Rows without usable prices or volume are left out."""
    found: dict[date, VendorDay] = {}
    for row in raw.values if not _checked(raw).problems else ():
        day = _day(row.get("datetime")) if isinstance(row, dict) else None
        if day is None:
            continue
        opened, high, low, close = (_number(row.get(name)) for name in PRICES)
        volume = str(row.get("volume"))
        if opened and high and low and close and re.fullmatch(r"[0-9]{1,15}", volume):
            found[day] = VendorDay(raw.symbol, day, opened, high, low, close, int(volume), raw.requested_at)
    return found


def _segments(quotients: Sequence[tuple[date, float]]) -> list[tuple[date, int, float]]:
    """Group days of one quotient: the first day, how many days, and their mean."""
    groups: list[tuple[date, int, float]] = []
    for day, quotient in quotients:
        if groups and abs(quotient / groups[-1][2] - 1) <= LEAST_STEP:
            first, count, level = groups[-1]
            groups[-1] = first, count + 1, level + (quotient - level) / (count + 1)
        else:
            groups.append((day, 1, quotient))
    return groups


def _usual(ratio: float) -> float:
    """Return a ratio of small whole numbers that is near, such as 10, 3/2 or 1/8, else five significant digits."""
    whole = Fraction(ratio) if ratio >= 1 else 1 / Fraction(ratio)
    near = whole.limit_denominator(MOST_OLD_SHARES)
    if abs(near / whole - 1) > NEAR_RATIO:
        return float(f"{ratio:.5g}")
    return float(near if ratio >= 1 else 1 / near)


def _ratio(row: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return new shares for one old share, and an empty text; or None and how the row contradicts itself."""
    day, description = row.get("date"), str(row.get("description") or "")
    numbers = NUMBERS.search(description)
    if not numbers or not float(numbers[1]) or not float(numbers[2]):
        return None, f"the split of {day} does not say its direction: description {_shown(description)}"
    ratio = float(numbers[1]) / float(numbers[2])
    new, old = _number(row.get("from_factor")), _number(row.get("to_factor"))
    stated = {"ratio": _number(row.get("ratio")), "factors": new / old if new and old else None}
    known = {name: value for name, value in stated.items() if value is not None}
    wrong = [
        f"{name} {value:g}"
        for name, value in known.items()
        if not any(math.isclose(value, side, rel_tol=TOLERANCE) for side in (ratio, 1 / ratio))
    ]
    if wrong or not known:
        other = " and ".join(wrong) or "neither a ratio nor factors"
        return None, f"the split of {day} contradicts itself: description {_shown(description)}, {other}"
    if "reverse" in description.lower() and ratio > 1:
        return None, f"the split of {day} contradicts itself: description {_shown(description)}"
    return ratio, ""


def _checked(answer: Answer) -> Found:
    """Return an empty result, with a problem if the answer is of another symbol, or not in dollars."""
    found = Found()
    symbol, currency = answer.meta.get("symbol"), answer.meta.get("currency")
    if symbol and not same_symbol(str(symbol), answer.symbol):
        found.problems.append((None, f"the answer is for {_shown(symbol)}"))
    if currency and currency != CURRENCY:
        found.problems.append((None, f"the answer is in {_shown(currency)}, not in {CURRENCY}"))
    return found


def _prices(rows: Sequence[Any]) -> dict[date, float]:
    """Return the sum of the four prices by day. Days without usable prices are left out."""
    found: dict[date, float] = {}
    for row in rows:
        day = _day(row.get("datetime")) if isinstance(row, dict) else None
        prices = [_number(row.get(name)) for name in PRICES] if day else []
        if day and all(prices):
            found[day] = math.fsum(price for price in prices if price)
    return found


def _day(text: Any) -> date | None:
    try:
        return date.fromisoformat(str(text)[:10])
    except ValueError:
        return None


def _number(value: Any) -> float | None:
    """Return a finite number above 0, sent as a number or as text, or None."""
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _shown(value: Any) -> str:
    return f"{value!a:.{LONGEST_VALUE}}"
