"""The switches of the Twelve Data emulator, and its queue of faults.

There is a switch wherever the vendor's behaviour is uncertain. Switches can be changed while the server runs. A fault
waits in the queue for the next request that it matches, changes as many answers as it says, and is removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from threading import Lock
from typing import Literal, get_args

from emulators.twelvedata.actions import ScriptedDividend, ScriptedSplit

# Faults of a whole answer …
AnswerFault = Literal[
    "http_error",  # `status`, 500 by default, with a gateway's HTML page instead of JSON
    "vendor_error",  # the vendor's error body for `status`, with `text` as its message
    "truncated_json",  # a complete HTTP answer with half of the JSON
    "broken_off",  # the connection breaks in the middle of the body
    "dropped",  # the connection closes before a single byte
    "timeout",  # no answer for `seconds`, then the correct one
    "slow_drip",  # one byte every `seconds`, without end
    "slow_headers",  # as slow_drip, before the first header is complete
    "gzip_bomb",  # at least `size` blanks after the answer, compressed a thousandfold
    "extra_symbol",  # a batch contains a symbol that was not requested, `text`
    "missing_symbol",  # a batch lacks the last requested symbol
]
# … and of one bar in it, or of the list of bars.
ValueFault = Literal[
    "duplicate",
    "conflicting_duplicate",
    "unordered",
    "missing_field",  # `field`, close by default
    "null_price",
    "nan_price",
    "text_price",
    "zero_price",
    "negative_price",
    "high_below_low",
    "negative_volume",
    "bad_timestamp",
    "off_grid",
    "outside_session",
    "future_bar",
    "giant_row",  # `field` has `size` characters
    "nested_row",  # `field` is a list within lists, `size` deep
    "huge_price",
    "huge_volume",
    "new_york_times",  # times in New York, also where another zone was requested
    # `meta` contains `text`, or another value than a US share's 5-minute bars have
    "wrong_symbol",
    "wrong_interval",
    "wrong_currency",
    "wrong_exchange",
    "wrong_type",
]
FaultKind = AnswerFault | ValueFault
KINDS: tuple[str, ...] = get_args(AnswerFault) + get_args(ValueFault)
# By fault of `meta`: the field that it changes, and the value that it puts there by default.
META_FAULTS = {
    "wrong_symbol": ("symbol", "WRONG"),
    "wrong_interval": ("interval", "1h"),
    "wrong_currency": ("currency", "CAD"),
    "wrong_exchange": ("exchange_timezone", "Europe/London"),
    "wrong_type": ("type", "Digital Currency"),
}
VALUE_KINDS = frozenset(get_args(ValueFault))


@dataclass
class Fault:
    """One fault: after ``after`` correct answers it changes the next ``times`` (None: all, until it is cleared)."""

    kind: FaultKind
    symbol: str | None = None  # only its requests and its part of an answer; None: any
    times: int | None = 1
    after: int = 0
    ts: datetime | None = None  # the open (UTC) of the bar to change; None: one in the middle of the answer
    status: int = 500
    seconds: float = 30.0
    field: str = "close"
    size: int = 100
    text: str | None = None

    def matches(self, symbols: tuple[str, ...]) -> bool:
        """Return whether the fault applies to a request for these symbols."""
        return self.symbol is None or self.symbol in symbols


@dataclass
class Switches:
    """How the emulator behaves. The defaults are what the real API does most often."""

    error_status_is_200: bool = False  # an error's HTTP status is 200 instead of its code
    end_date_inclusive: bool = True  # the bar that opens exactly at end_date is in the answer
    refused_calls_count: bool = True  # a call refused for lack of credits uses credits too
    partial_batches: bool = False  # a batch above the minute's credits is answered in part, not refused entirely
    forming_bar: bool = True  # the bar that has not ended is in the answer
    credit_headers: bool = True  # api-credits-used and api-credits-left are sent
    unknown_in_batch: Literal[404, 400] = 404  # the code of an unknown symbol inside a batch
    before_listing: Literal[404, 400] = 404  # the code for a range before a symbol's first bar
    listed: dict[str, datetime] = field(default_factory=dict)  # symbol -> a time (UTC) before which it has no bar
    endpoint_in_plan: bool = True  # False: every time series is refused with 403
    first_bars_in_plan: bool = True  # False: every question for the earliest timestamp is refused with 403
    splits: Mapping[str, Sequence[ScriptedSplit]] = field(default_factory=dict)  # by symbol
    dividends: Mapping[str, Sequence[ScriptedDividend]] = field(default_factory=dict)  # by symbol
    actions_refused: Literal[403, 404] | None = None  # how a plan without /splits and /dividends refuses them
    daily_rows: int = 500  # the most daily bars; the vendor's 5,000 take the synthetic market seconds a symbol
    other_direction: bool = False  # a split's ratio and factors are those of the other direction
    wrong_days: dict[tuple[str, date], float] = field(default_factory=dict)  # (symbol, day) -> factor of its raw prices
    plan_symbols: set[str] = field(default_factory=set)  # symbols of a larger plan: 404
    latency: float = 0.0  # seconds before each answer
    # (symbol, the bar's open in UTC) -> new values by name, such as {"close": "211.50000"}
    corrections: dict[tuple[str, datetime], dict[str, str]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def correct(self, symbol: str, ts: datetime, **values: str | float) -> None:
        """Change values (``close=…, volume=…``) of the bar of ``symbol`` that opens at ``ts`` (UTC), from now on."""
        unknown = set(values) - {"open", "high", "low", "close", "volume"}
        if unknown or not values or ts.tzinfo is None:
            raise ValueError(f"cannot correct {symbol} at {ts} with {values}")
        with self._lock:
            corrected = dict(self.corrections)
            corrected[symbol, ts] = {**corrected.get((symbol, ts), {}), **{k: str(v) for k, v in values.items()}}
            self.corrections = corrected

    def corrections_of(self, symbol: str) -> dict[date, dict[datetime, dict[str, str]]]:
        """Return the corrected values of one symbol by UTC day, then by the bar's open (UTC)."""
        found: dict[date, dict[datetime, dict[str, str]]] = {}
        for (corrected, ts), values in self.corrections.items() if self.corrections else ():
            if corrected == symbol:
                found.setdefault(ts.date(), {})[ts] = values
        return found

    def fail(self, kind: FaultKind, **options: object) -> Fault:
        """Add a fault to the queue and return it; ``options`` are Fault's fields. Its ``times`` counts down."""
        if kind not in KINDS:
            raise ValueError(f"unknown fault: {kind}. Known faults: {', '.join(KINDS)}")
        fault = Fault(kind, **options)  # type: ignore[arg-type]
        with self._lock:
            self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """Remove every fault from the queue."""
        with self._lock:
            self.faults.clear()

    def take_faults(self, symbols: tuple[str, ...]) -> list[Fault]:
        """Return the faults of the next request: per target (a symbol, or any) the first in the queue."""
        taken: dict[str | None, Fault] = {}
        with self._lock:
            for fault in self.faults:
                if not fault.matches(symbols) or fault.symbol in taken:
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                taken[fault.symbol] = fault
                if fault.times is not None:
                    fault.times -= 1
            self.faults[:] = [fault for fault in self.faults if fault.times is None or fault.times > 0]
        return list(taken.values())
