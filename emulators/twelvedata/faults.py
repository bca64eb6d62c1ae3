"""The faults of bars: one function per kind in emulators.twelvedata.switches.ValueFault.

Each changes the values of an answer (one object per bar) in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from barflow.market.sessions import NEW_YORK, new_york, sessions_between
from emulators.twelvedata.switches import Fault

Value = dict[str, str | None]


@dataclass(frozen=True)
class Target:
    """The values that a fault changes, with the position of the chosen bar, the answer's zone and the time (UTC)."""

    values: list[Value]
    position: int
    fault: Fault
    zone: ZoneInfo
    now: datetime

    @property
    def bar(self) -> Value:
        """The chosen bar."""
        return self.values[self.position]


def apply_fault(values: list[Value], fault: Fault, zone: ZoneInfo, now: datetime) -> None:
    """Change the values in place; do nothing if they do not include the bar of the fault."""
    position = _position(values, fault, zone)
    if position is not None and fault.kind in CHANGES:
        CHANGES[fault.kind](Target(values, position, fault, zone, now))


def _position(values: list[Value], fault: Fault, zone: ZoneInfo) -> int | None:
    if not values:
        return None
    if fault.ts is None:
        return len(values) // 2
    wanted = _local_text(fault.ts, zone)
    return next((position for position, value in enumerate(values) if value.get("datetime") == wanted), None)


def _local_text(ts: datetime, zone: ZoneInfo) -> str:
    return ts.astimezone(zone).replace(tzinfo=None).isoformat(" ", "seconds")


def _duplicate(target: Target) -> None:
    target.values.insert(target.position + 1, dict(target.bar))


def _conflicting_duplicate(target: Target) -> None:
    other = "low" if target.bar["close"] != target.bar["low"] else "high"
    volume = str(int(target.bar["volume"] or 0) + 1)
    target.values.insert(target.position + 1, {**target.bar, "close": target.bar[other], "volume": volume})


def _unordered(target: Target) -> None:
    values = target.values
    values[:] = values[1::2] + values[::2]


def _missing_field(target: Target) -> None:
    target.bar.pop(target.fault.field, None)


def _set_field(text: str | None) -> Callable[[Target], None]:
    def change(target: Target) -> None:
        target.bar[target.fault.field] = text

    return change


def _negative_price(target: Target) -> None:
    target.bar[target.fault.field] = f"-{target.bar[target.fault.field]}"


def _high_below_low(target: Target) -> None:
    target.bar["high"] = f"{float(target.bar['low'] or 1) * 0.99:.5f}"


def _negative_volume(target: Target) -> None:
    target.bar["volume"] = "-100"


def _huge_price(target: Target) -> None:
    target.bar["high"] = "1.7e308"


def _huge_volume(target: Target) -> None:
    target.bar["volume"] = str(2**63 - 1)


def _bad_timestamp(target: Target) -> None:
    target.bar["datetime"] = f"{(target.bar['datetime'] or '')[:10]} 25:61:00"


def _off_grid(target: Target) -> None:
    moment = datetime.fromisoformat(target.bar["datetime"] or "") + timedelta(minutes=2)
    target.bar["datetime"] = moment.isoformat(" ", "seconds")


def _outside_session(target: Target) -> None:
    """Move a bar to 03:00 of its day: on the 5-minute grid, and outside the session in New York time and in UTC."""
    target.bar["datetime"] = f"{(target.bar['datetime'] or '')[:10]} 03:00:00"


def _giant_row(target: Target) -> None:
    target.bar[target.fault.field] = "9" * target.fault.size


def _nested_row(target: Target) -> None:
    value: Any = []
    for _ in range(target.fault.size):
        value = [value]
    target.bar[target.fault.field] = value


def _future_bar(target: Target) -> None:
    """Move a bar to a slot of the next session, which has not opened; everything else in the bar stays valid."""
    today = new_york(target.now).date()
    future = (found for found in sessions_between(today, today + timedelta(days=10)) if found.opens > target.now)
    target.bar["datetime"] = _local_text(next(future).slots[12].astimezone(UTC), target.zone)


def _new_york_times(target: Target) -> None:
    for value in target.values:
        moment = datetime.fromisoformat(value["datetime"] or "").replace(tzinfo=target.zone)
        value["datetime"] = _local_text(moment, NEW_YORK)


CHANGES: dict[str, Callable[[Target], None]] = {
    "duplicate": _duplicate,
    "conflicting_duplicate": _conflicting_duplicate,
    "unordered": _unordered,
    "missing_field": _missing_field,
    "null_price": _set_field(None),
    "nan_price": _set_field("NaN"),
    "text_price": _set_field("n/a"),
    "zero_price": _set_field("0.00000"),
    "negative_price": _negative_price,
    "high_below_low": _high_below_low,
    "negative_volume": _negative_volume,
    "huge_price": _huge_price,
    "huge_volume": _huge_volume,
    "new_york_times": _new_york_times,
    "bad_timestamp": _bad_timestamp,
    "off_grid": _off_grid,
    "outside_session": _outside_session,
    "future_bar": _future_bar,
    "giant_row": _giant_row,
    "nested_row": _nested_row,
}
