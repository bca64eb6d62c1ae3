"""The body of the answer to a call by the vendor's rules, without HTTP.

The rules apply in this order: key, plan, parameters, credits, then each symbol on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import orjson

from emulators.twelvedata import errors
from emulators.twelvedata.actions import dividends_body, splits_body, splits_shown
from emulators.twelvedata.bar_source import BarSource
from emulators.twelvedata.credits import Credits
from emulators.twelvedata.daily import NEW_YORK, DailyBars
from emulators.twelvedata.errors import Refusal
from emulators.twelvedata.faults import apply_fault
from emulators.twelvedata.query import DAILY, INTERVAL, Query, check_interval, parse, zone_of
from emulators.twelvedata.script import MarketScript
from emulators.twelvedata.switches import META_FAULTS, VALUE_KINDS, Fault, Switches
from emulators.twelvedata.values import Values

# The vendor's public key, valid for a few symbols only.
DEMO_KEY = "demo"
DEMO_SYMBOLS = frozenset({"AAPL"})
# The credits of /splits and of /dividends for a symbol.
LISTING_CREDITS = 20


@dataclass
class Call:
    """One request that the emulator received, without the key."""

    path: str
    params: dict[str, str]
    symbols: tuple[str, ...]
    key_in: str | None  # "header", "url" or None
    at: datetime  # the emulator's clock, UTC
    credits: int = 0  # the credits it used
    status: int | None = None  # the HTTP status of the answer; None: no answer (yet)
    faults: list[str] = field(default_factory=list)


class Answers:
    """The answers of the endpoints."""

    def __init__(
        self,
        source: BarSource,
        clock: Callable[[], datetime],
        credits: Credits,
        switches: Switches,
        api_key: str,
        script: MarketScript,
    ):
        self.source = source
        self.script = script
        self.clock = clock
        self.credits = credits
        self.switches = switches
        self._api_key = api_key
        self._values = Values(source)
        self._daily = DailyBars(source)

    def time_series(self, call: Call, params: Mapping[str, str], key: str | None, faults: list[Fault]) -> bytes:
        """Return the body of /time_series, which may contain errors of single symbols. Raise Refusal."""
        self._check_key(key, call.symbols)
        if not self.switches.endpoint_in_plan:
            raise errors.endpoint_not_in_plan("/time_series")
        query = parse(params)
        cost = len(query.symbols)
        granted = self._use_credits(call, cost)
        if cost == 1:
            return self._series(query.symbols[0], query, faults)
        bodies = {
            symbol: self._series_of_batch(symbol, query, faults, params["symbol"]) for symbol in query.symbols[:granted]
        }
        if granted < cost:
            refused = orjson.dumps(self.credits.refusal(cost - granted).body)
            bodies |= dict.fromkeys(query.symbols[granted:], refused)
        for fault in faults:
            if fault.kind == "missing_symbol":
                bodies.popitem()
            elif fault.kind == "extra_symbol":
                bodies[fault.text or "EXTRA"] = bodies[query.symbols[0]]
        return b"{%b}" % b",".join(b"%b:%b" % (orjson.dumps(symbol), body) for symbol, body in bodies.items())

    def earliest(self, call: Call, params: Mapping[str, str], key: str | None) -> bytes:
        """Return the body of /earliest_timestamp: the open of one symbol's first bar. Raise Refusal."""
        self._check_key(key, call.symbols)
        if not self.switches.first_bars_in_plan:
            raise errors.endpoint_not_in_plan("/earliest_timestamp")
        check_interval(params)
        zone = zone_of(params)
        self._use_credits(call, 1)
        requested = params.get("symbol", "")
        symbol = self._served(requested)
        first = self._values.first_bar(symbol, self.switches.listed.get(symbol), self.clock())
        if first is None:
            raise errors.data_not_found(requested, INTERVAL)
        local = first.astimezone(zone)
        return orjson.dumps({"datetime": f"{local:%Y-%m-%d %H:%M:%S}", "unix_time": int(first.timestamp())})

    def listing(self, call: Call, params: Mapping[str, str], key: str | None) -> bytes:
        """Return the body of /splits or /dividends: all actions of one symbol that are shown now. Raise Refusal."""
        self._check_key(key, call.symbols)
        if self.switches.actions_refused == 404:
            raise errors.symbol_not_in_plan()
        if self.switches.actions_refused:
            raise errors.endpoint_not_in_plan(call.path)
        if params.get("range", "last") != "full":
            raise errors.bad_parameter("range", params.get("range", ""), "This emulator serves full")
        self._use_credits(call, LISTING_CREDITS)
        symbol, now = self.script.present(self._served(params.get("symbol", ""))), self.clock()
        splits = splits_shown(self.switches.splits.get(symbol, ()), now)
        body: dict[str, object] = {"meta": {name: value for name, value in _meta(symbol).items() if name != "interval"}}
        if call.path == "/splits":
            return orjson.dumps({**body, "splits": splits_body(splits, other_direction=self.switches.other_direction)})
        adjusted = params.get("adjust", "true") != "false"
        scripted = self.switches.dividends.get(symbol, ())
        return orjson.dumps({**body, "dividends": dividends_body(scripted, splits, now, adjusted=adjusted)})

    def usage(self, call: Call, key: str | None) -> bytes:
        """Return the body of /api_usage, a call that itself uses a credit. Raise Refusal."""
        self._check_key(key, ())
        self._use_credits(call, 1)
        return orjson.dumps(self.credits.usage())

    def _check_key(self, key: str | None, symbols: tuple[str, ...]) -> None:
        demo = key == DEMO_KEY and DEMO_SYMBOLS.issuperset(symbols)
        if key != self._api_key and not demo:
            raise errors.bad_key()

    def _use_credits(self, call: Call, cost: int) -> int:
        self.credits.roll()
        before = self.credits.used_in_minute
        try:
            return self.credits.take(
                cost, in_part=self.switches.partial_batches, refused_count=self.switches.refused_calls_count
            )
        finally:
            call.credits = self.credits.used_in_minute - before

    def _series_of_batch(self, symbol: str, query: Query, faults: list[Fault], requested: str) -> bytes:
        """Return one symbol's part of a batch: its body, or its error as an object."""
        try:
            for fault in faults:
                if fault.kind == "vendor_error" and fault.symbol == symbol.upper():
                    raise injected_error(fault)
            return self._series(symbol, query, faults)
        except Refusal as refusal:
            if refusal.code == 404 and self.switches.unknown_in_batch == 400 and not self._name(symbol):
                refusal = errors.unknown_symbol_of_batch(symbol, requested)
            return orjson.dumps(refusal.body)

    def _name(self, requested: str) -> str | None:
        """Return the source's name of a requested symbol (`aapl`, `AAPL:NASDAQ`), or None if it is unknown today."""
        candidates = (requested.upper().partition(":")[0], requested.upper())
        today = self.clock().astimezone(NEW_YORK).date()
        return next(
            (name for name in candidates if self.source.knows(name) and self.script.has_bars(name, today)), None
        )

    def _served(self, requested: str) -> str:
        """Return the source's name of a requested symbol. Raise Refusal for one that the plan or the source lacks."""
        if requested.upper() in self.switches.plan_symbols:
            raise errors.symbol_not_in_plan()
        symbol = self._name(requested)
        if symbol is None:
            raise errors.unknown_symbol()
        return symbol

    def _series(self, requested: str, query: Query, faults: list[Fault]) -> bytes:
        """Return the body of one symbol. Raise Refusal."""
        symbol, now = self._served(requested), self.clock()
        if query.interval == DAILY:
            return self._daily_series(symbol, query, now)
        listed = self.switches.listed.get(symbol)
        bars = self._values.select(
            symbol,
            query,
            now,
            listed=listed,
            end_inclusive=self.switches.end_date_inclusive,
            forming_bar=self.switches.forming_bar,
            corrections=self.switches.corrections_of(symbol),
        )
        if not bars:
            first = self._values.first_bar(symbol, listed, now)
            early = first is None or (query.end is not None and query.end < first)
            if early and self.switches.before_listing == 404:
                raise errors.data_not_found(requested, INTERVAL)
            raise errors.no_data(requested, INTERVAL)
        own = [fault for fault in faults if fault.kind in VALUE_KINDS and fault.symbol in (None, requested.upper())]
        meta = _meta(symbol)
        for fault in own:
            if fault.kind in META_FAULTS:
                name, wrong = META_FAULTS[fault.kind]
                meta[name] = fault.text or wrong
        joined = b"[%b]" % b",".join(bars)
        if own:
            values = orjson.loads(joined)
            for fault in own:
                apply_fault(values, fault, query.zone, now)
            joined = orjson.dumps(values)
        return b'{"meta":%b,"values":%b,"status":"ok"}' % (orjson.dumps(meta), joined)

    def _daily_series(self, symbol: str, query: Query, now: datetime) -> bytes:
        """Return the body of one symbol's daily bars. Raise Refusal if there are none."""
        scripted = self.switches.splits.get(self.script.present(symbol), ())
        splits = splits_shown(scripted, now) if query.split_adjusted else None
        limit = min(query.limit, self.switches.daily_rows)
        bars = self._daily.select(symbol, limit, now, self.switches.listed.get(symbol), splits)
        if not bars:
            raise errors.no_data(symbol, DAILY)
        for bar in bars if splits is None else ():
            factor = self.switches.wrong_days.get((symbol, date.fromisoformat(bar["datetime"])), 1.0)
            bar.update({name: f"{float(bar[name]) * factor:.5f}" for name in ("open", "high", "low", "close")})
        ordered = bars if query.newest_first else bars[::-1]
        return orjson.dumps({"meta": {**_meta(symbol), "interval": DAILY}, "values": ordered, "status": "ok"})


def injected_error(fault: Fault) -> Refusal:
    """Return the vendor's error that a fault describes."""
    return Refusal(fault.status, fault.text or "Internal server error. Please contact our support team.")


def _meta(symbol: str) -> dict[str, str]:
    return {
        "symbol": symbol,
        "interval": INTERVAL,
        "currency": "USD",
        "exchange_timezone": "America/New_York",
        "exchange": "NASDAQ",
        "mic_code": "XNGS",
        "type": "Common Stock",
    }
