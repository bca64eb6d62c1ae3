"""Corporate actions: fetch the splits and dividends of symbols and stage them, plan the credits, and read a file.

A plan from Grow up has endpoints for them. Below it, splits are derived from daily bars, and dividends stay unknown.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from barflow.errors import BadInputError, BarflowError, NotInPlanError, UnavailableError, VendorRefusedError
from barflow.market.actions import KINDS, Action, Dividend, Kind, Source, Split
from barflow.market.answers import CURRENCY
from barflow.market.instruments import Instruments
from barflow.market.sessions import utc_now
from barflow.market.vendor_days import newest_final
from barflow.pipeline.stores import Stores
from barflow.pipeline.vendor import Allowance, open_client
from barflow.progress import Log
from barflow.settings import Settings
from barflow.staging.action_attempts import Attempts
from barflow.staging.actions import Actions, Answer, Changes
from barflow.staging.ledger import FAILED, PARTIAL, SUCCEEDED, new_run_id
from barflow.staging.vendor_days import VendorDays
from barflow.symbol import check_symbol
from barflow.twelvedata.action_answers import Found, daily_bars, derived_splits, dividends, splits
from barflow.twelvedata.action_requests import LISTING_CREDITS
from barflow.twelvedata.calls import UNUSABLE
from barflow.twelvedata.client import Answer as Received
from barflow.twelvedata.client import SymbolError, TwelveDataClient
from barflow.twelvedata.credits import MINUTE, Credits

HOP = "actions"
DERIVED_CREDITS = 2
ENDPOINT_CREDITS = len(KINDS) * LISTING_CREDITS
COLUMNS = ("symbol", "kind", "ex_date", "ratio", "amount")
MAX_ROWS = 100_000
# After so many symbols in a row without an answer, Twelve Data is down.
MOST_FAILURES = 3
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class ActionsReport:
    """What a refresh did: changes and the source of each kind per symbol, the errors of symbols, and what is left.

    ``left`` are the symbols that the allowance did not suffice for. ``vendor_days`` counts daily bars that were staged.
    """

    run_id: str
    counts: dict[str, Changes] = field(default_factory=dict)
    sources: dict[str, dict[Kind, Source]] = field(default_factory=dict)
    errors: dict[str, SymbolError | str] = field(default_factory=dict)  # a text: the answer contradicts itself
    left: list[str] = field(default_factory=list)
    vendor_days: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        return {
            "run_id": self.run_id,
            "symbols": {name: {**asdict(counts), **self.sources[name]} for name, counts in self.counts.items()},
            "errors": {symbol: text_of(error) for symbol, error in self.errors.items()},
            "left": self.left,
            "vendor_days": self.vendor_days,
        }


def uses_endpoints(settings: Settings) -> bool:
    """Return whether a refresh asks the endpoints first.

    Raises BadInputError if the settings turn fetching off.
    """
    if settings.actions_source == "none":
        raise BadInputError(
            "BARFLOW_ACTIONS_SOURCE is none, so corporate actions are not fetched. Set it to auto, or give them in a "
            "file to `barflow actions import`."
        )
    allowed = Credits(settings.credits_per_minute, settings.credits_per_day).allow(LISTING_CREDITS)
    return settings.actions_source == "endpoint" or (settings.actions_source == "auto" and allowed)


def plan(settings: Settings, symbols: Sequence[str], now: datetime) -> dict[str, Any]:
    """Return the calls, credits, minutes and finish time (UTC) that a refresh takes at most, from ``now`` on."""
    credits = Credits(settings.credits_per_minute, settings.credits_per_day)
    endpoints = uses_endpoints(settings)
    if endpoints and not credits.allow(LISTING_CREDITS):
        raise BadInputError(
            f"a request to an endpoint of corporate actions costs {LISTING_CREDITS} API credits, more than "
            "BARFLOW_CREDITS_PER_MINUTE or BARFLOW_CREDITS_PER_DAY. Set BARFLOW_ACTIONS_SOURCE to derived."
        )
    cost = LISTING_CREDITS if endpoints else 1
    calls = 2 * len(symbols)
    at, minutes = now, {now.replace(second=0, microsecond=0)}
    for _ in range(calls):
        while credits.left(at) < cost:
            at = credits.resume_at(at, cost)
        credits.spend(cost, at)
        minutes.add(at.replace(second=0, microsecond=0))
    return {
        "symbols": list(symbols),
        "source": "endpoint" if endpoints else "derived",
        "calls": calls,
        "credits": calls * cost,
        "minutes": len(minutes),
        "finishes_at": (max(minutes) + MINUTE).isoformat(timespec="seconds"),
    }


def refresh(
    stores: Stores,
    symbols: Sequence[str],
    log: Log,
    on_symbol: Callable[[str], None] = lambda symbol: None,
    *,
    client: TwelveDataClient | None = None,
    allowance: Allowance | None = None,
) -> ActionsReport:
    """Fetch the splits and dividends of the symbols and stage them. Each symbol is stored as soon as it is complete.

    The symbols that were fetched longest ago come first, so that a run under a daily cap resumes where the last one
    stopped. It stops where the ``allowance`` ends. Daily bars from which it derives splits are also staged for the
    comparison with ours. Raises BadInputError, VendorRefusedError and UnavailableError as a tick does.
    """
    endpoints = uses_endpoints(stores.settings)
    client = client or open_client(stores.settings, log)
    run = _Refresh(stores, client, log, ActionsReport(new_run_id(HOP)), allowance or Allowance())
    known = run.actions.of(symbols)
    ordered = sorted(symbols, key=lambda symbol: min((at for _, at in known[symbol].fetched.values()), default=NEVER))
    stores.ledger.start(HOP, run.report.run_id, symbols=list(symbols))
    outcome = FAILED
    try:
        rest = run.by_endpoint(ordered, on_symbol) if endpoints else ordered
        run.by_quotient(rest, on_symbol)
        outcome = SUCCEEDED if not run.report.errors else PARTIAL if run.report.counts else FAILED
    finally:
        counts = {symbol: asdict(item) for symbol, item in run.report.counts.items()}
        errors = [{"symbol": symbol, "message": text_of(error)} for symbol, error in run.report.errors.items()]
        stores.ledger.finish(run.report.run_id, outcome, counts, errors=errors, left=run.report.left)
    return run.report


@dataclass
class _Refresh:
    """One refresh: its client, what it may spend, and what it has done so far."""

    stores: Stores
    client: TwelveDataClient
    log: Log
    report: ActionsReport
    allowance: Allowance

    @property
    def actions(self) -> Actions:
        return Actions(self.stores.database)

    def by_endpoint(self, symbols: Sequence[str], on_symbol: Callable[[str], None]) -> list[str]:
        """Fetch symbols from the endpoints. Return those that the plan does not include, unless that is an error."""
        may_derive = self.stores.settings.actions_source == "auto"
        left = list(symbols)
        beyond_plan: list[str] = []
        failures = 0
        while left:
            symbol = left[0]
            if not self.allowance.takes(self.client, ENDPOINT_CREDITS):
                self.report.left += left
                break
            received: dict[Kind, Received] = {}
            error: SymbolError | None = None
            try:
                for kind in KINDS:
                    result = self.client.listing(symbol, kind, on_raw=self._keep_listing)
                    if isinstance(result, SymbolError):
                        error = result
                        break
                    received[kind] = result
            except NotInPlanError as refused:
                if not may_derive:
                    raise
                self.log(f"splits are derived from daily bars, and dividends stay unknown: {refused}")
                return [*beyond_plan, *left]
            except UnavailableError as failure:
                failures += 1
                if failures == MOST_FAILURES or (len(left) == 1 and not self.report.counts):
                    raise
                # The next runs ask for this symbol first again: it must not keep them from the others.
                error = SymbolError(symbol, UNUSABLE, str(failure))
            else:
                failures = 0
            left.pop(0)
            if error and may_derive and "plan" in error.message.lower():
                beyond_plan.append(symbol)
                continue
            if error:
                self._fail(symbol, error)
            else:
                now = utc_now()
                read = {"split": splits, "dividend": dividends}
                self._store(symbol, {kind: (read[kind](answer, now), answer) for kind, answer in received.items()}, now)
            on_symbol(symbol)
        return beyond_plan

    def by_quotient(self, symbols: Sequence[str], on_symbol: Callable[[str], None]) -> None:
        """Derive the splits of symbols from their daily bars, some symbols at a time."""
        left = list(symbols)
        while left:
            batch = left[: self.client.symbols_of_daily]
            while batch and not self.allowance.takes(self.client, DERIVED_CREDITS * len(batch)):
                batch.pop()
            if not batch:
                self.report.left += left
                return
            left = left[len(batch) :]
            raw = {item.symbol: item for item in self.client.daily(batch, "none", on_raw=self._keep)}
            usable = [symbol for symbol in batch if isinstance(raw[symbol], Received)]
            adjusted = self.client.daily(usable, "splits", on_raw=self._keep) if usable else iter(())
            both = {item.symbol: item for item in adjusted}
            for symbol in batch:
                one, other = raw[symbol], both.get(symbol)
                now = utc_now()
                if isinstance(one, SymbolError):
                    self._fail(symbol, one)
                    continue
                self.report.vendor_days += stage_days(self.stores, one)
                if isinstance(other, SymbolError):
                    self._fail(symbol, other)
                elif other is not None:
                    newest = newest_final(self.stores.clock())
                    complete = newest.session_date if newest else date.max
                    self._store(symbol, {"split": (derived_splits(one, other, now, complete), one)}, now)
                on_symbol(symbol)

    def _fail(self, symbol: str, error: SymbolError) -> None:
        """Record the error of a symbol. One that Twelve Data does not serve is not asked for again on the same day."""
        self.report.errors[symbol] = error
        if error.is_final:
            Attempts(self.stores.database).asked([symbol], self.stores.clock())

    def _store(self, symbol: str, found: dict[Kind, tuple[Found, Received]], now: datetime) -> None:
        """Stage a symbol's actions, or record why its answer is not used. A file's action answers for its ex-date."""
        imported = {
            (item.kind, item.ex_date) for item in self.actions.of([symbol])[symbol].actions if item.source == "file"
        }
        problems = [
            text for kind, (item, _) in found.items() for day, text in item.problems if (kind, day) not in imported
        ]
        attempts = Attempts(self.stores.database)
        if problems:
            self.report.errors[symbol] = "; ".join(problems)
            attempts.asked([symbol], self.stores.clock())
            return
        source: Source = "derived" if any(item.covers for item, _ in found.values()) else "endpoint"
        answers = [
            Answer(symbol, kind, item.actions, source, received.requested_at, now, item.covers)
            for kind, (item, received) in found.items()
        ]
        self.report.counts[symbol] = self.actions.store(answers)
        self.report.sources[symbol] = dict.fromkeys(found, source)
        attempts.asked([symbol], self.stores.clock())

    def _keep(self, raw: Any) -> None:
        self.stores.raw_answers.store(raw, self.report.run_id)

    def _keep_listing(self, raw: Any) -> None:
        self.stores.raw_answers.store(raw, self.report.run_id, LISTING_CREDITS)


def stage_days(stores: Stores, raw: Received) -> int:
    """Stage the newest complete daily bar of an answer, and older ones that changed. Return how many."""
    newest = newest_final(stores.clock())
    days = daily_bars(raw)
    return VendorDays(stores.database).store(days, newest.session_date) if newest else 0


def raise_errors(report: ActionsReport) -> None:
    """Raise an error if a symbol has no usable answer, or one that contradicts itself."""
    if not report.errors:
        return
    errors = list(report.errors.values())
    said = "; ".join(f"{symbol}: {text_of(error).rstrip('.')}" for symbol, error in report.errors.items())
    kept = f"{said}. Their actions stay as they were; {len(report.counts)} other symbols were stored."
    if any(isinstance(error, str) for error in errors):
        raise BarflowError(f"{kept} Import the right ones with `barflow actions import`, then run again.")
    refused = [error for error in errors if isinstance(error, SymbolError) and error.is_final]
    if not refused:
        raise UnavailableError(f"{kept} Wait a minute, then run again.")
    if any("plan" in error.message.lower() for error in refused):
        raise VendorRefusedError(f"{kept} Choose symbols of your plan, then run again.")
    raise BadInputError(f"{kept} Check the spelling, then run again.")


def import_file(stores: Stores, path: Path) -> dict[str, Changes]:
    """Stage the actions of a CSV file, and return what changed per symbol. A wrong row rejects the whole file.

    An action of a file wins over Twelve Data's of the same ex-date. A ratio of 1 or an amount of 0 says that there was
    none. A row of a former symbol is stored under the present one. Raises BadInputError that names the row.
    """
    with stores.ledger.storing("import"):
        now = utc_now()
        by_symbol: dict[str, list[Answer]] = {}
        for (symbol, kind), days in actions_of(path, now, stores.instruments).items():
            by_symbol.setdefault(symbol, []).append(Answer(symbol, kind, [*days.values()], "file", now, now))
        actions = Actions(stores.database)
        return {symbol: actions.store(answers) for symbol, answers in by_symbol.items()}


UNCHANGED = "Nothing was imported. Correct the file, then run the same command again."


def actions_of(
    path: Path, now: datetime, instruments: Instruments | None = None
) -> dict[tuple[str, Kind], dict[date, Action]]:
    """Return the actions of a CSV file by present symbol and kind, and by ex-date.

    Raises BadInputError that names the row.
    """
    by_key: dict[tuple[str, Kind], dict[date, Action]] = {}
    names = instruments or Instruments()
    for line, given in read_file(path, now):
        action = replace(given, symbol=names.present_on(given.symbol, given.ex_date))
        days = by_key.setdefault((action.symbol, action.kind), {})
        if days.setdefault(action.ex_date, action) != action:
            raise BadInputError(f"{path} line {line}: another row has the same symbol, kind and ex_date. {UNCHANGED}")
    return by_key


def read_file(path: Path, now: datetime) -> Iterator[tuple[int, Action]]:
    """Yield each row of a CSV file with its line. Raise BadInputError for a file or row that is not valid."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise BadInputError(f"{path}: the first line lacks {', '.join(missing)}. {UNCHANGED}")
            for number, row in enumerate(reader, 1):
                if number > MAX_ROWS:
                    raise BadInputError(f"{path}: more than {MAX_ROWS:,} rows. {UNCHANGED}")
                yield reader.line_num, _action(row, now, f"{path} line {reader.line_num}")
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}. Nothing was imported. Give a CSV file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path} is not a CSV file in UTF-8: {error}. {UNCHANGED}") from None


def _action(row: dict[str, str | None], now: datetime, where: str) -> Action:
    """Return the action of one row. Raise BadInputError that starts with ``where``."""
    given = {name: (row.get(name) or "").strip() for name in COLUMNS}
    kind, day = given["kind"], given["ex_date"]
    try:
        symbol = check_symbol(given["symbol"])
        ex_date = date.fromisoformat(day)
        if kind == "split" and not given["amount"]:
            return Split(symbol, ex_date, _ratio(given["ratio"]), "file", now)
        if kind == "dividend" and not given["ratio"]:
            return Dividend(symbol, ex_date, _finite(given["amount"]), CURRENCY, "file", now)
    except (ValueError, OverflowError, ZeroDivisionError, BadInputError) as error:
        raise BadInputError(f"{where}: {str(error).rstrip('.')}. {UNCHANGED}") from None
    raise BadInputError(f"{where}: a row is a split with a ratio, or a dividend with an amount. {UNCHANGED}")


def _ratio(text: str) -> float:
    """Return new shares for one old one, from a text such as ``10``, ``10:1`` or ``1.281``."""
    new, colon, old = text.partition(":")
    return _finite(new) / (_finite(old) if colon else 1.0)


def _finite(text: str) -> float:
    number = float(text) if text.isascii() and "_" not in text else math.nan
    if not math.isfinite(number):
        raise ValueError(f"not a number: {text[:40]!a}")
    return number


def text_of(error: SymbolError | str) -> str:
    """Return an error of a symbol as text."""
    return error if isinstance(error, str) else error.message
