"""How does a spoiled list of bars look? One function per fault of emulators.twelvedata.switches.ValueFault.

Each takes the values of an answer (one object per bar) and changes them in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from barflow.market.sessions import new_york, sessions_between
from emulators.twelvedata.switches import Fault

Value = dict[str, str | None]


@dataclass(frozen=True)
class Target:
    """What a fault works on: the answer's values, the place of the chosen bar, and what it may need to know."""

    values: list[Value]
    place: int
    fault: Fault
    zone: ZoneInfo
    now: datetime

    @property
    def bar(self) -> Value:
        return self.values[self.place]


def spoil(values: list[Value], fault: Fault, zone: ZoneInfo, now: datetime) -> None:
    """Applies a value fault, in place; nothing happens when its bar is not among the values."""
    place = _place(values, fault, zone)
    if place is not None and fault.kind in SPOILERS:
        SPOILERS[fault.kind](Target(values, place, fault, zone, now))


def _place(values: list[Value], fault: Fault, zone: ZoneInfo) -> int | None:
    if not values:
        return None
    if fault.ts is None:
        return len(values) // 2
    wanted = _wall(fault.ts, zone)
    return next((place for place, value in enumerate(values) if value.get("datetime") == wanted), None)


def _wall(ts: datetime, zone: ZoneInfo) -> str:
    return ts.astimezone(zone).replace(tzinfo=None).isoformat(" ", "seconds")


def _duplicate(target: Target) -> None:
    target.values.insert(target.place + 1, dict(target.bar))


def _conflicting_duplicate(target: Target) -> None:
    other = "low" if target.bar["close"] != target.bar["low"] else "high"
    volume = str(int(target.bar["volume"] or 0) + 1)
    target.values.insert(target.place + 1, {**target.bar, "close": target.bar[other], "volume": volume})


def _unordered(target: Target) -> None:
    values = target.values
    values[:] = values[1::2] + values[::2]


def _missing_field(target: Target) -> None:
    target.bar.pop(target.fault.field, None)


def _field_becomes(text: str | None) -> Callable[[Target], None]:
    def spoiler(target: Target) -> None:
        target.bar[target.fault.field] = text

    return spoiler


def _negative_price(target: Target) -> None:
    target.bar[target.fault.field] = f"-{target.bar[target.fault.field]}"


def _high_below_low(target: Target) -> None:
    target.bar["high"] = f"{float(target.bar['low'] or 1) * 0.99:.5f}"


def _negative_volume(target: Target) -> None:
    target.bar["volume"] = "-100"


def _bad_timestamp(target: Target) -> None:
    target.bar["datetime"] = f"{(target.bar['datetime'] or '')[:10]} 25:61:00"


def _off_grid(target: Target) -> None:
    moment = datetime.fromisoformat(target.bar["datetime"] or "") + timedelta(minutes=2)
    target.bar["datetime"] = moment.isoformat(" ", "seconds")


def _outside_session(target: Target) -> None:
    """Three in the morning, on the 5-minute grid, on the bar's own day: closed in New York's time and in UTC."""
    target.bar["datetime"] = f"{(target.bar['datetime'] or '')[:10]} 03:00:00"


def _future_bar(target: Target) -> None:
    """A slot of the next session that has not opened yet: nothing else is wrong with it."""
    today = new_york(target.now).date()
    coming = (found for found in sessions_between(today, today + timedelta(days=10)) if found.opens > target.now)
    target.bar["datetime"] = _wall(next(coming).slots[12].astimezone(UTC), target.zone)


SPOILERS: dict[str, Callable[[Target], None]] = {
    "duplicate": _duplicate,
    "conflicting_duplicate": _conflicting_duplicate,
    "unordered": _unordered,
    "missing_field": _missing_field,
    "null_price": _field_becomes(None),
    "nan_price": _field_becomes("NaN"),
    "text_price": _field_becomes("n/a"),
    "zero_price": _field_becomes("0.00000"),
    "negative_price": _negative_price,
    "high_below_low": _high_below_low,
    "negative_volume": _negative_volume,
    "bad_timestamp": _bad_timestamp,
    "off_grid": _off_grid,
    "outside_session": _outside_session,
    "future_bar": _future_bar,
}
