"""Which bars of an answer may be stored, and why the others may not.

Pure: values in, values out. A clean answer takes the fast path, column by column; when any check of it fails,
every row is looked at alone and each refused bar gets all of its reason codes. Nothing is repaired: an unordered
answer is sorted and noted, identical duplicates are counted, and a price jump is a flag, never a rejection.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson

from barflow.errors import BadInputError
from barflow.market.bars import Bar, SessionBars
from barflow.market.sessions import BAR, Session, session, slot_named, slots_named

MISSING_FIELD = "missing_field"
NOT_A_NUMBER = "not_a_number"
NON_POSITIVE_PRICE = "non_positive_price"
OHLC_INCONSISTENT = "ohlc_inconsistent"
NEGATIVE_VOLUME = "negative_volume"
BAD_TIMESTAMP = "bad_timestamp"
OFF_GRID = "off_grid"
OUTSIDE_SESSION = "outside_session"
FUTURE_BAR = "future_bar"
CONFLICTING_DUPLICATE = "conflicting_duplicate"
WRONG_SYMBOL = "wrong_symbol"

REASONS = {
    MISSING_FIELD: "a field that every bar has is not there",
    NOT_A_NUMBER: "a price is not a finite number, or the volume not a whole one",
    NON_POSITIVE_PRICE: "a price is zero or below",
    OHLC_INCONSISTENT: "low and high do not enclose open and close",
    NEGATIVE_VOLUME: "the volume is below zero",
    BAD_TIMESTAMP: "datetime is not YYYY-MM-DD HH:MM:SS",
    OFF_GRID: "the bar does not open on a five-minute mark",
    OUTSIDE_SESSION: "the exchange was closed when the bar opened",
    FUTURE_BAR: "the bar opens in the future",
    CONFLICTING_DUPLICATE: "one answer held several versions of this bar",
    WRONG_SYMBOL: "the answer is about another symbol than the one asked for",
}

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
FIELD_NAMES = ("datetime", "open", "high", "low", "close", "volume")
# The vendor's clock may be a little ahead of ours; such a bar is forming, not from the future.
CLOCK_SKEW = timedelta(seconds=60)
MAX_VOLUME = 2**63 - 1
JUMP = 0.05
MOST_FLAGS = 20
SPLIT_RATIOS = (2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50)
SPLIT_TOLERANCE = 0.03


@dataclass(frozen=True)
class Rejected:
    """A refused bar: what was received, word for word, and every reason code that applies."""

    symbol: str
    payload: Any
    reasons: tuple[str, ...]


@dataclass
class Validated:
    """One symbol's answer, sorted out. received = accepted + repeated + forming + len(rejected)."""

    symbol: str
    received: int
    sessions: dict[date, SessionBars] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    forming: int = 0
    repeated: int = 0  # identical duplicates within the answer
    notes: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        return sum(map(len, self.sessions.values()))


@dataclass
class _Columns:
    """Good bars in time order."""

    ts: list[datetime]
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[int]


def validate(
    symbol: str, meta: Mapping[str, Any], values: Sequence[Any], now: datetime, asked: datetime | None = None
) -> Validated:
    """Sorts one symbol's answer into bars to store, rejected, and still forming.

    ``values`` are Twelve Data's rows in any order, their datetimes in UTC, their numbers as text. ``now`` (UTC)
    tells a bar from the future; ``asked`` (UTC, ``now`` when not given) is when the answer was asked for: it knows
    nothing of what came later, so a bar that closed while it was on its way is still forming.
    """
    result = Validated(symbol, len(values))
    about = str(meta.get("symbol") or symbol).upper()
    if about.split(":")[0] != symbol.split(":")[0]:
        result.rejected = [Rejected(symbol, value, (WRONG_SYMBOL,)) for value in values]
        return result
    columns = _fast(values, now) or _slow(result, values, now)
    _drop_forming(result, columns, min(now, asked or now))
    _split_by_session(result, columns)
    result.notes += price_jumps(columns.ts, columns.open, columns.close)
    return result


def _fast(values: Sequence[Any], now: datetime) -> _Columns | None:
    """The whole answer at once, or None when any of it needs a closer look."""
    if not values:
        return _Columns([], [], [], [], [], [])
    try:
        times, *texts = ([value[name] for value in values] for name in FIELD_NAMES)
        ts = slots_named(times)
        opens, highs, lows, closes, volume = _numbers(texts)
    except (KeyError, TypeError, ValueError, BadInputError):
        return None
    if ts[0] > ts[-1]:
        for column in (ts, opens, highs, lows, closes, volume):
            column.reverse()
    clean = (
        all(map(operator.lt, ts, ts[1:]))
        and ts[-1] <= now + CLOCK_SKEW
        and math.isfinite(sum(highs))
        and min(lows) > 0
        and all(map(operator.le, lows, opens))
        and all(map(operator.le, lows, closes))
        and all(map(operator.ge, highs, opens))
        and all(map(operator.ge, highs, closes))
        and min(volume) >= 0
        and max(volume) <= MAX_VOLUME
    )
    return _Columns(ts, opens, highs, lows, closes, volume) if clean else None


def _numbers(columns: list[list[str]]) -> list[list[Any]]:
    """Columns of plain decimals as numbers: prices as floats, the last one, volume, as ints.

    JSON's parser reads them twice as fast as float() does, to the same bits. Raises ValueError for anything but
    digits, minus and point, which row-by-row validation then reads or refuses.
    """
    joined = [",".join(column) for column in columns]
    if not all(text.isascii() and not text.encode().translate(None, b"0123456789.,-") for text in joined):
        raise ValueError("not plain decimals")
    parsed: list[list[Any]] = orjson.loads(f"[[{'],['.join(joined)}]]")
    if any(len(mine) != len(texts) for mine, texts in zip(parsed, columns, strict=True)):
        raise ValueError("a comma within a number")
    *prices, volume = parsed
    if "." in joined[-1]:
        raise ValueError("half a share")
    # A price without a point was read as an int.
    return [
        column if text.count(".") == len(column) else [*map(float, column)]
        for column, text in zip(prices, joined, strict=False)
    ] + [volume]


def _slow(result: Validated, values: Sequence[Any], now: datetime) -> _Columns:
    """Row by row: fills ``result.rejected`` and ``result.repeated`` and gives the good bars in time order."""
    good: dict[datetime, list[tuple[Bar, Any]]] = {}
    previous: datetime | None = None
    steps: Counter[bool] = Counter()
    for value in values:
        reasons, bar = check_row(value, now)
        if bar is None:
            result.rejected.append(Rejected(result.symbol, value, reasons))
            continue
        if previous is not None and bar.ts != previous:
            steps[bar.ts > previous] += 1
        previous = bar.ts
        good.setdefault(bar.ts, []).append((bar, value))
    if len(steps) > 1:
        result.notes.append("unordered: the answer was sorted")
    kept: list[Bar] = []
    for _, versions in sorted(good.items()):
        first = versions[0][0]
        if all(bar.same_values(first) for bar, _ in versions):
            kept.append(first)
            result.repeated += len(versions) - 1
        else:
            # None can be told to be the right one, and what is stored already is left as it is.
            result.rejected += [Rejected(result.symbol, value, (CONFLICTING_DUPLICATE,)) for _, value in versions]
    return _Columns(
        *([getattr(bar, name) for bar in kept] for name in ("ts", "open", "high", "low", "close", "volume"))
    )


def check_row(value: Any, now: datetime) -> tuple[tuple[str, ...], Bar | None]:
    """One received row: its reason codes, or the bar when there are none."""
    if not isinstance(value, Mapping):
        return (MISSING_FIELD,), None
    reasons: list[str] = []
    if any(value.get(name) in (None, "") for name in FIELD_NAMES):
        reasons.append(MISSING_FIELD)
    ts = _check_time(value.get("datetime"), now, reasons)
    prices = [_number(value[name], reasons) for name in FIELD_NAMES[1:5] if value.get(name) not in (None, "")]
    known = [price for price in prices if price is not None]
    if any(price <= 0 for price in known):
        reasons.append(NON_POSITIVE_PRICE)
    if len(known) == 4 and (known[2] > min(known) or known[1] < max(known)):
        reasons.append(OHLC_INCONSISTENT)
    volume = _volume(value.get("volume"), reasons)
    if reasons or ts is None or volume is None or len(known) != 4:
        return tuple(dict.fromkeys(reasons)), None
    return (), Bar(ts, known[0], known[1], known[2], known[3], volume)


def _check_time(text: Any, now: datetime, reasons: list[str]) -> datetime | None:
    if text in (None, ""):
        return None
    ts = slot_named(text)
    if ts is None:
        try:
            ts = datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)
            if ts.strftime(TIME_FORMAT) != text:  # strptime also takes 2025-7-2 9:5:0
                raise ValueError(text)
        except (TypeError, ValueError):
            reasons.append(BAD_TIMESTAMP)
            return None
        reasons.append(OFF_GRID if ts.timestamp() % BAR.total_seconds() else OUTSIDE_SESSION)
    if ts > now + CLOCK_SKEW:
        reasons.append(FUTURE_BAR)
    return ts


def _number(value: Any, reasons: list[str]) -> float | None:
    """A finite number from text or JSON number, else None with a reason noted."""
    try:
        if isinstance(value, bool) or (isinstance(value, str) and ("_" in value or not value.isascii())):
            raise ValueError(value)
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        reasons.append(NOT_A_NUMBER)
        return None
    return number


def _volume(value: Any, reasons: list[str]) -> int | None:
    """Whole shares. ``"1234.0"`` is whole; half a share is not."""
    if value in (None, ""):
        return None
    number = _number(value, reasons)
    if number is None:
        return None
    if number < 0:
        reasons.append(NEGATIVE_VOLUME)
        return None
    if number != int(number) or number > MAX_VOLUME:
        reasons.append(NOT_A_NUMBER)
        return None
    try:
        return int(value)
    except ValueError:  # "1234.0"
        return int(number)


def _drop_forming(result: Validated, columns: _Columns, asked: datetime) -> None:
    """Takes off the bars that had not closed when they were asked for: they may still change."""
    closed = bisect_left(columns.ts, asked - BAR + timedelta(microseconds=1))
    result.forming = len(columns.ts) - closed
    for column in vars(columns).values():
        del column[closed:]


def _split_by_session(result: Validated, columns: _Columns) -> None:
    start = 0
    while start < len(columns.ts):
        traded: Session | None = session(columns.ts[start].date())
        assert traded is not None, "only bars of a session get here"
        end = bisect_left(columns.ts, traded.closes, start)
        parts = {name: column[start:end] for name, column in vars(columns).items()}
        revisions = [0] * (end - start)
        result.sessions[traded.session_date] = SessionBars(
            result.symbol, traded.session_date, **parts, revision=revisions
        )
        start = end


def price_jumps(ts: Sequence[datetime], opens: Sequence[float], closes: Sequence[float]) -> list[str]:
    """Flags each bar that opens over 5 % away from the close before it; says so when it looks like a split.

    Intraday bars of the vendor are not adjusted for splits, so a 10:1 split is a cliff of -90 % overnight.
    """
    ratios = [*map(operator.truediv, opens[1:], closes)]
    if not ratios or (max(ratios) <= 1 + JUMP and min(ratios) >= 1 - JUMP):
        return []
    flags = []
    for index, ratio in enumerate(ratios, start=1):
        if abs(ratio - 1) <= JUMP:
            continue
        overnight = ts[index].date() != ts[index - 1].date()
        split = likely_split(ratio) if overnight else None
        kind = f"possible_split {split}" if split else "price_jump"
        flags.append(f"{kind}: {ratio - 1:+.2%} at {ts[index]:%Y-%m-%d %H:%M} UTC")
    more = len(flags) - MOST_FLAGS
    return flags if more <= 0 else [*flags[:MOST_FLAGS], f"price_jump: and {more} more"]


def likely_split(ratio: float) -> str | None:
    """``10:1`` where a price is about a tenth of the one before, ``1:10`` where it is tenfold, else None."""
    factor = max(ratio, 1 / ratio)
    split = next((whole for whole in SPLIT_RATIOS if abs(factor / whole - 1) < SPLIT_TOLERANCE), None)
    if split is None:
        return None
    return f"{split}:1" if ratio < 1 else f"1:{split}"
