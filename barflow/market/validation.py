"""Validation of an answer: the bars to store, and the rejected ones with their reason codes.

Pure: values in, values out. An answer is first checked by columns, which is fast. When any check fails, every row is
checked alone, and each rejected bar gets all of its reason codes. Nothing is repaired: an unordered answer is sorted
and noted, identical duplicates are counted, and a price jump is a flag, never a rejection.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from barflow.errors import BadInputError
from barflow.market.actions import ratio_text, suspected_ratio
from barflow.market.answers import ANSWER_REASONS, Contradiction, contradictions, wrong_zone
from barflow.market.bars import MAX_PRICE, MAX_VOLUME, Bar, SessionBars, encloses
from barflow.market.sessions import BAR, Session, parse_slot, parse_slots, session

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
OUT_OF_BOUNDS = "out_of_bounds"

REASONS = {
    MISSING_FIELD: "a required field is missing",
    NOT_A_NUMBER: "a price is not a finite number, or the volume is not a whole number",
    NON_POSITIVE_PRICE: "a price is zero or below",
    OHLC_INCONSISTENT: "low and high do not enclose open and close",
    NEGATIVE_VOLUME: "the volume is below zero",
    BAD_TIMESTAMP: "datetime is not YYYY-MM-DD HH:MM:SS",
    OFF_GRID: "the bar does not open on a five-minute mark",
    OUTSIDE_SESSION: "the exchange was closed when the bar opened",
    FUTURE_BAR: "the bar opens in the future",
    CONFLICTING_DUPLICATE: "one answer held several versions of this bar",
    OUT_OF_BOUNDS: f"a price is above {MAX_PRICE:,.0f} dollars, or the volume is above {MAX_VOLUME:,} shares",
    **ANSWER_REASONS,
}

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
UTC_ZONE = ZoneInfo("UTC")
FIELD_NAMES = ("datetime", "open", "high", "low", "close", "volume")
# Twelve Data's clock may be a little ahead of ours. Such a bar is forming, not from the future.
CLOCK_SKEW = timedelta(seconds=60)
JUMP = 0.05
MAX_FLAGS = 20
NO_SPLITS: Mapping[date, float] = {}
NOTHING_DONE: Mapping[date, str] = {}


@dataclass(frozen=True)
class Rejected:
    """A rejected bar: the payload exactly as received, and every reason code that applies."""

    symbol: str
    payload: Any
    reasons: tuple[str, ...]


@dataclass
class Validated:
    """One symbol's answer after validation. received = accepted + repeated + forming + len(rejected)."""

    symbol: str
    received: int
    sessions: dict[date, SessionBars] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    forming: int = 0
    repeated: int = 0  # identical duplicates within the answer
    notes: list[str] = field(default_factory=list)
    jumps: list[Jump] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)  # why the whole answer is rejected

    @property
    def accepted(self) -> int:
        """Return how many bars are to be stored."""
        return sum(map(len, self.sessions.values()))


@dataclass
class _Columns:
    """Valid bars in time order, as parallel columns."""

    ts: list[datetime]
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[int]


def validate(
    symbol: str, meta: Mapping[str, Any], values: Sequence[Any], now: datetime, requested_at: datetime | None = None
) -> Validated:
    """Sort one symbol's answer into bars to store, rejected bars and bars that are still forming.

    ``values`` are Twelve Data's rows in any order, with datetimes in UTC and numbers as text. A bar that opens after
    ``now`` (UTC) is from the future. ``requested_at`` (UTC, default ``now``) is when the answer was requested. A bar
    that closed after that moment is still forming, because the answer may not hold its last trades. An answer that
    contradicts the contract of barflow.market.answers is rejected whole.
    """
    result = Validated(symbol, len(values))
    found = contradictions(symbol, meta)
    columns = None if found else _check_columns(values, now)
    if columns is None and not found and (wrong := wrong_zone([*map(_time, values)], UTC_ZONE)):
        found = [wrong]
    if found:
        result.contradictions = found
        reasons = tuple(item.reason for item in found)
        result.rejected = [Rejected(symbol, value, reasons) for value in values]
        return result
    columns = columns or _check_rows(result, values, now)
    _drop_forming(result, columns, min(now, requested_at or now))
    _split_by_session(result, columns)
    result.jumps = price_jumps(columns.ts, columns.open, columns.close)
    return result


def _time(value: Any) -> Any:
    return value.get("datetime") if isinstance(value, Mapping) else None


def _check_columns(values: Sequence[Any], now: datetime) -> _Columns | None:
    """Return the bars when every row passes every check, else None."""
    if not values:
        return _Columns([], [], [], [], [], [])
    try:
        times, *texts = ([value[name] for value in values] for name in FIELD_NAMES)
        ts = parse_slots(times)
        opens, highs, lows, closes, volume = _numbers(texts)
    except (KeyError, TypeError, ValueError, BadInputError):
        return None
    if ts[0] > ts[-1]:
        for column in (ts, opens, highs, lows, closes, volume):
            column.reverse()
    clean = (
        all(map(operator.lt, ts, ts[1:]))
        and ts[-1] <= now + CLOCK_SKEW
        and _prices_are_clean(opens, highs, lows, closes)
        and min(volume) >= 0
        and max(volume) <= MAX_VOLUME
    )
    return _Columns(ts, opens, highs, lows, closes, volume) if clean else None


def _prices_are_clean(opens: list[float], highs: list[float], lows: list[float], closes: list[float]) -> bool:
    """Return whether every row's prices are within their bounds, and low and high enclose open and close."""
    for first, high, low, last in zip(opens, highs, lows, closes, strict=True):
        if not (0.0 < low <= first <= high <= MAX_PRICE and low <= last <= high):
            return False
    return True


def _numbers(columns: list[list[str]]) -> list[list[Any]]:
    """Return columns of plain decimals as numbers: prices as floats, and the last column, volume, as ints.

    The JSON parser reads them twice as fast as float() does, to the same bits. Raises ValueError for any character but
    digits, minus and point. Those values are then read or rejected row by row.
    """
    joined = [",".join(column) for column in columns]
    text = f"[[{'],['.join(joined)}]]".encode()
    if text.translate(None, b"0123456789.,-") != b"[[" + b"][" * (len(columns) - 1) + b"]]":
        raise ValueError("not plain decimals")
    parsed: list[list[Any]] = orjson.loads(text)
    if any(len(numbers) != len(texts) for numbers, texts in zip(parsed, columns, strict=True)):
        raise ValueError("a comma within a number")
    *prices, volume = parsed
    if "." in joined[-1]:
        raise ValueError("a fraction of a share")
    # The parser reads a price without a point as an int.
    return [
        column if text.count(".") == len(column) else [*map(float, column)]
        for column, text in zip(prices, joined, strict=False)
    ] + [volume]


def _check_rows(result: Validated, values: Sequence[Any], now: datetime) -> _Columns:
    """Check row by row. Fill ``result.rejected`` and ``result.repeated``, and return the valid bars in time order."""
    valid: dict[datetime, list[tuple[Bar, Any]]] = {}
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
        valid.setdefault(bar.ts, []).append((bar, value))
    if len(steps) > 1:
        result.notes.append("unordered: the answer was sorted")
    accepted: list[Bar] = []
    for _, versions in sorted(valid.items()):
        first = versions[0][0]
        if all(bar.same_values(first) for bar, _ in versions):
            accepted.append(first)
            result.repeated += len(versions) - 1
        else:
            # Nothing shows which version is right. A bar that is stored already stays as it is.
            result.rejected += [Rejected(result.symbol, value, (CONFLICTING_DUPLICATE,)) for _, value in versions]
    return _Columns(
        *([getattr(bar, name) for bar in accepted] for name in ("ts", "open", "high", "low", "close", "volume"))
    )


def check_row(value: Any, now: datetime) -> tuple[tuple[str, ...], Bar | None]:
    """Return the reason codes of a received row and None, or no code and its bar."""
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
    if any(price > MAX_PRICE for price in known):
        reasons.append(OUT_OF_BOUNDS)
    if len(known) == 4 and not encloses(*known):
        reasons.append(OHLC_INCONSISTENT)
    volume = _volume(value.get("volume"), reasons)
    if reasons or ts is None or volume is None or len(known) != 4:
        return tuple(dict.fromkeys(reasons)), None
    return (), Bar(ts, known[0], known[1], known[2], known[3], volume)


def _check_time(text: Any, now: datetime, reasons: list[str]) -> datetime | None:
    if text in (None, ""):
        return None
    ts = parse_slot(text)
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
    """Return the finite number of a text or a JSON number. Otherwise add a reason and return None."""
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
    """Return a number of whole shares, such as ``"1234.0"``. Otherwise add a reason and return None."""
    if value in (None, ""):
        return None
    number = _number(value, reasons)
    if number is None:
        return None
    if number < 0:
        reasons.append(NEGATIVE_VOLUME)
        return None
    if number > MAX_VOLUME:
        reasons.append(OUT_OF_BOUNDS)
        return None
    if number != int(number):
        reasons.append(NOT_A_NUMBER)
        return None
    try:
        return int(value)
    except ValueError:  # "1234.0"
        return int(number)


def _drop_forming(result: Validated, columns: _Columns, requested_at: datetime) -> None:
    """Remove the bars that had not closed when they were requested, since they may still change."""
    closed = bisect_left(columns.ts, requested_at - BAR + timedelta(microseconds=1))
    result.forming = len(columns.ts) - closed
    for column in vars(columns).values():
        del column[closed:]


def _split_by_session(result: Validated, columns: _Columns) -> None:
    ts, lists = columns.ts, [*vars(columns).values()]
    start = 0
    while start < len(ts):
        traded: Session | None = session(ts[start].date())
        assert traded is not None, "every valid bar belongs to a session"
        end = bisect_left(ts, traded.closes, start)
        parts: list[Any] = [*(column[start:end] for column in lists), [0] * (end - start)]
        day = traded.session_date
        result.sessions[day] = SessionBars(result.symbol, day, *parts)
        start = end


@dataclass(frozen=True)
class Jump:
    """A bar that opens more than 5 % from the close before it. Opens of bars in UTC, prices in dollars."""

    ts: datetime
    open: float
    before: datetime
    close_before: float

    @property
    def suspected(self) -> float | None:
        """Return the ratio of the split that the open of a session suggests, or None."""
        return suspected_ratio(self.close_before, self.open) if self.ts.date() != self.before.date() else None

    def after(self, splits: Mapping[date, float]) -> Jump:
        """Return the jump with its open in the shares before the known splits (ratio by ex-date) between its bars."""
        between = [ratio for day, ratio in splits.items() if self.before.date() < day <= self.ts.date()]
        return replace(self, open=self.open * math.prod(between)) if between else self


def price_jumps(ts: Sequence[datetime], opens: Sequence[float], closes: Sequence[float]) -> list[Jump]:
    """Return the bars that open more than 5 % from the close before them.

    Twelve Data does not adjust intraday bars for splits, so a 10-for-1 split is a drop of 90 % overnight.
    """
    least, most = 1 - JUMP, 1 + JUMP
    ratios = [*map(operator.truediv, opens[1:], closes)]
    if not [ratio for ratio in ratios if not least <= ratio <= most]:
        return []
    return [
        Jump(ts[index], opens[index], ts[index - 1], closes[index - 1])
        for index, ratio in enumerate(ratios, start=1)
        if abs(ratio - 1) > JUMP
    ]


def jump_flags(
    jumps: Sequence[Jump], splits: Mapping[date, float] = NO_SPLITS, done: Mapping[date, str] = NOTHING_DONE
) -> list[str]:
    """Return a flag for each jump that no known split (ratio by ex-date) explains.

    ``done`` is what was done about the unknown split of a session.
    """
    flags = []
    for jump in (item.after(splits) for item in jumps):
        change = jump.open / jump.close_before - 1
        if abs(change) <= JUMP:
            continue
        # A known split, also one whose ratio of 1 says that there was none, ends the suspicion.
        known = any(jump.before.date() < day <= jump.ts.date() for day in splits)
        ratio, said = None if known else jump.suspected, done.get(jump.ts.date())
        kind = f"possible_split {ratio_text(ratio)}" if ratio else "price_jump"
        flags.append(f"{kind}: {change:+.2%} at {jump.ts:%Y-%m-%d %H:%M} UTC{f'; {said}' if ratio and said else ''}")
    more = len(flags) - MAX_FLAGS
    return flags if more <= 0 else [*flags[:MAX_FLAGS], f"price_jump: and {more} more"]
