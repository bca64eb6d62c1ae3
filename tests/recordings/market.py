"""The synthetic market: random walks over the exchange's sessions, in whole numbers, the same on every computer."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

# Prices are whole ten-thousandths of a dollar: no rounding of floats can differ between computers.
DOLLAR = 10_000
CENT = 100
SLOT = timedelta(minutes=5)
OPENS, CLOSES, CLOSES_EARLY = time(9, 30), time(16), time(13)
# What the exchange (XNYS) published for the dates of the recordings.
HOLIDAYS = {
    date(2025, 7, 4),
    date(2025, 9, 1),
    date(2025, 11, 27),
    date(2025, 12, 25),
    date(2026, 1, 1),
    date(2026, 1, 19),
    date(2026, 2, 16),
}
HALF_DAYS = {date(2025, 7, 3), date(2025, 11, 28), date(2025, 12, 24)}


@dataclass(frozen=True)
class Bar:
    """One 5-minute bar: its open on New York's wall clock, prices in ten-thousandths of a dollar, volume in shares."""

    clock: datetime
    open: int
    high: int
    low: int
    close: int
    volume: int


def sessions(first: date, last: date) -> list[date]:
    """Return the trading days from ``first`` to ``last``, both included."""
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return [day for day in days if day.weekday() < 5 and day not in HOLIDAYS]


def closes(day: date) -> time:
    """Return when the session of this day ends on New York's wall clock."""
    return CLOSES_EARLY if day in HALF_DAYS else CLOSES


def slots(day: date, start: time, end: time) -> Iterator[datetime]:
    """Yield the open of each slot of ``day`` in [start, end)."""
    clock = datetime.combine(day, start)
    while clock.time() < end:
        yield clock
        clock += SLOT


def walk(symbol: str, days: Sequence[date], dollars: int, nights: Mapping[date, int] | None = None) -> list[Bar]:
    """Return every bar of the sessions of ``days``, oldest first.

    Args:
        symbol: Seeds the walk: the same arguments always give the same bars.
        days: Trading days in order.
        dollars: The price before the first session.
        nights: By day, how far its open is from the close before, in basis points. Other nights move less than 1 %.
    """
    dice = random.Random(f"bars of {symbol}")
    price = dollars * DOLLAR
    bars: list[Bar] = []
    for day in days:
        night = (nights or {}).get(day, dice.randrange(-80, 81))
        price = _to_cents(price * (10_000 + night) / 10_000)
        for clock in slots(day, OPENS, closes(day)):
            bars.append(_bar(dice, clock, price, dice.randrange(20_000, 2_000_000)))
            price = _to_cents(bars[-1].close) + dice.choice((0, 0, 0, CENT, -CENT))
    return bars


def outside(symbol: str, bars: Sequence[Bar], per_day: Mapping[date, int]) -> list[Bar]:
    """Return bars from 08:00 to 17:00 outside the session, at most so many a day, at prices near the session's."""
    dice = random.Random(f"bars outside the session of {symbol}")
    found = []
    for day, count in per_day.items():
        session = [bar for bar in bars if bar.clock.date() == day]
        closed = [*slots(day, time(8), OPENS), *slots(day, closes(day), time(17))]
        for clock in sorted(dice.sample(closed, min(count, len(closed)))):
            price = session[0].open if clock.time() < OPENS else session[-1].close
            found.append(_bar(dice, clock, price, dice.randrange(1, 5_000)))
    return found


def _bar(dice: random.Random, clock: datetime, opened: int, volume: int) -> Bar:
    """Return a bar whose body spans at most 0.15 % of its price; every eighth price has parts of a cent."""
    reach = opened // (700 * CENT)
    closed = opened + CENT * dice.randint(-reach, reach)
    if dice.randrange(8) == 0:
        closed += dice.choice((50, 25, 1, -1, -25, -50))
    wicks = [dice.choice((0, CENT, 2 * CENT, 5 * CENT, 11 * CENT)) for _ in range(2)]
    return Bar(clock, opened, max(opened, closed) + wicks[0], min(opened, closed) - wicks[1], closed, volume)


def _to_cents(price: float) -> int:
    return round(price / CENT) * CENT
