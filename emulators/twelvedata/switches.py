"""In what way shall the API emulator behave today? Where the vendor's manner is uncertain, both manners; and faults.

Every switch may be turned while the server runs. Faults are a queue: each waits for the next request that it
concerns, spoils that many answers, and is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from threading import Lock
from typing import Literal, get_args

# What can happen to a whole answer …
AnswerFault = Literal[
    "http_error",  # `status`, 500 by default, with a gateway's HTML page in place of JSON
    "vendor_error",  # the vendor's error body for `status`, with `text` as its message
    "truncated_json",  # a complete HTTP answer that holds half of the JSON
    "broken_off",  # the connection breaks in the middle of the body
    "dropped",  # the connection closes before a single byte
    "timeout",  # silence for `seconds`, then the right answer
    "extra_symbol",  # a batch holds a symbol that nobody asked for, `text`
    "missing_symbol",  # a batch lacks the last symbol asked for
]
# … and what to one bar of it, or to the list of bars.
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
    "wrong_symbol",  # the meta names another symbol, `text`
]
FaultKind = AnswerFault | ValueFault
KINDS: tuple[str, ...] = get_args(AnswerFault) + get_args(ValueFault)
VALUE_KINDS = frozenset(get_args(ValueFault))


@dataclass
class Fault:
    """One entry of the queue. ``times`` answers are spoiled (None: all until cleared) after ``after`` good ones."""

    kind: FaultKind
    symbol: str | None = None  # only requests for it, and only its part of the answer; None: any
    times: int | None = 1
    after: int = 0
    ts: datetime | None = None  # the open (UTC) of the bar to spoil; None: one in the middle of the answer
    status: int = 500
    seconds: float = 30.0
    field: str = "close"
    text: str | None = None

    def concerns(self, symbols: tuple[str, ...]) -> bool:
        """Whether a request for these symbols is one of those it waits for."""
        return self.symbol is None or self.symbol in symbols


@dataclass
class Switches:
    """How the emulator behaves. The defaults are what was seen most often of the real API."""

    error_status_is_200: bool = False  # an error's HTTP status is 200 instead of its code
    end_date_inclusive: bool = True  # the bar that opens exactly at end_date is in the answer
    refused_calls_count: bool = True  # calls refused for lack of credits use credits all the same
    partial_batches: bool = False  # a batch above the minute's credits is answered in part, not refused whole
    forming_bar: bool = True  # the bar that is still being formed is in the answer
    credit_headers: bool = True  # api-credits-used and api-credits-left are sent
    unknown_in_batch: Literal[404, 400] = 404  # the code of an unknown symbol inside a batch
    endpoint_in_plan: bool = True  # False: every time series is refused with 403
    plan_symbols: set[str] = field(default_factory=set)  # known, but in a larger plan only: 404
    latency: float = 0.0  # seconds before each answer
    # (symbol, the bar's open in UTC) -> new values by name, such as {"close": "211.50000"}
    corrections: dict[tuple[str, datetime], dict[str, str]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def correct(self, symbol: str, ts: datetime, **values: str | float) -> None:
        """From now on the bar of ``symbol`` that opens at ``ts`` (UTC) has these values: close=…, volume=…"""
        unknown = set(values) - {"open", "high", "low", "close", "volume"}
        if unknown or not values or ts.tzinfo is None:
            raise ValueError(f"cannot correct {symbol} at {ts} with {values}")
        with self._lock:
            corrected = dict(self.corrections)
            corrected[symbol, ts] = {**corrected.get((symbol, ts), {}), **{k: str(v) for k, v in values.items()}}
            self.corrections = corrected

    def corrections_of(self, symbol: str) -> dict[date, dict[datetime, dict[str, str]]]:
        """The corrected bars of one symbol, by UTC day and then by the bar's open (UTC)."""
        found: dict[date, dict[datetime, dict[str, str]]] = {}
        for (corrected, ts), values in self.corrections.items() if self.corrections else ():
            if corrected == symbol:
                found.setdefault(ts.date(), {})[ts] = values
        return found

    def fail(self, kind: FaultKind, **options: object) -> Fault:
        """Puts a fault into the queue; ``options`` are Fault's fields. Its ``times`` is what is left of it."""
        if kind not in KINDS:
            raise ValueError(f"no such fault: {kind}; there are {', '.join(KINDS)}")
        fault = Fault(kind, **options)  # type: ignore[arg-type]
        with self._lock:
            self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """No more faults."""
        with self._lock:
            self.faults.clear()

    def take_faults(self, symbols: tuple[str, ...]) -> list[Fault]:
        """The faults of the next request: for each target, a symbol or any, the first in the queue."""
        taken: dict[str | None, Fault] = {}
        with self._lock:
            for fault in self.faults:
                if not fault.concerns(symbols) or fault.symbol in taken:
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                taken[fault.symbol] = fault
                if fault.times is not None:
                    fault.times -= 1
            self.faults[:] = [fault for fault in self.faults if fault.times is None or fault.times > 0]
        return list(taken.values())
