"""Corporate actions in a tick: ask for a split that an open suggests, and for the actions of symbols never asked for.

The bars come first: a refusal or an outage is a note of the tick and never fails it, and the requests stay within the
credits that the ticks of the day leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from barflow.errors import BarflowError
from barflow.market.actions import split_text
from barflow.market.sessions import utc_now
from barflow.market.validation import Jump, Validated, jump_flags
from barflow.pipeline.actions import ActionsReport, refresh, text_of
from barflow.pipeline.stores import Stores
from barflow.pipeline.vendor import Allowance, spare_credits
from barflow.progress import Log
from barflow.staging.action_attempts import Attempts
from barflow.staging.actions import Actions
from barflow.twelvedata.client import TwelveDataClient

# How long the requests of a tick may wait for credits, and how many symbols it asks about because of their open.
LONGEST = timedelta(seconds=90)
MOST_SUSPECTS = 5
NOT_ASKED = "Twelve Data was not asked"
Flags = dict[str, list[str]]


class TickActions:
    """The requests for corporate actions in one tick. They use the tick's client, so that its credits are counted."""

    def __init__(self, stores: Stores, client: TwelveDataClient, log: Log) -> None:
        self.stores, self.client, self.log = stores, client, log
        self.notes: list[str] = []
        self._may_ask = False
        self._suspects = 0
        self._allowance: Allowance | None = None

    def begin_tick(self, *, may_ask: bool) -> None:
        """Begin a tick. Without ``may_ask`` it only reads what is known, as a backfill does."""
        self.notes, self._suspects, self._allowance = [], 0, None
        self._may_ask = may_ask and self.stores.settings.actions_source != "none"

    def flags(self, answers: Mapping[str, Validated]) -> Flags:
        """Return the flags of price jumps that no known split explains, by symbol.

        First, ask for the splits that are not known: once per symbol and session, and once more later.
        """
        jumps = {symbol: item.jumps for symbol, item in answers.items() if item.jumps}
        if not jumps:
            return {}
        splits = self._splits([*jumps])
        done: dict[str, dict[date, str]] = {}
        for symbol, found in jumps.items():
            if days := _unknown(found, splits[symbol]):
                done[symbol] = dict.fromkeys(days, self._ask(symbol, days))
        if done:
            splits = self._splits([*jumps])
        for symbol, asked in done.items():
            learned = [day for day in asked if day in splits[symbol]]
            self.notes += [f"{symbol}: learned the {split_text(splits[symbol][day])} on {day}" for day in learned]
        flags = {symbol: jump_flags(found, splits[symbol], done.get(symbol, {})) for symbol, found in jumps.items()}
        return {symbol: found for symbol, found in flags.items() if found}

    def add_new(self, symbols: Sequence[str]) -> None:
        """Record symbols that have no bars yet, so that this tick or a later one asks for their actions."""
        if self._may_ask and symbols:
            Attempts(self.stores.database).add_new(symbols)

    def ask_new(self, symbols: Sequence[str]) -> None:
        """Ask for the actions of the new symbols among these, as far as the credits go."""
        if self._may_ask:
            new = Attempts(self.stores.database).new()
            if chosen := [symbol for symbol in symbols if symbol in new]:
                self._refresh(chosen)

    def _splits(self, symbols: Sequence[str]) -> dict[str, dict[date, float]]:
        """Return the known splits of the symbols: ratio by ex-date."""
        known = Actions(self.stores.database).splits(symbols)
        return {symbol: {item.ex_date: item.ratio for item in known.get(symbol, ())} for symbol in symbols}

    def _ask(self, symbol: str, days: Sequence[date]) -> str:
        """Ask for the unknown splits of some sessions of a symbol, if it is time to. Return what was done."""
        if self.stores.settings.actions_source == "none":
            return f"{NOT_ASKED}: give the split to `barflow actions import`"
        if not self._may_ask:
            return f"{NOT_ASKED}: run `barflow actions refresh --symbols {symbol}`, or import the split"
        if self._suspects >= MOST_SUSPECTS:
            return f"{NOT_ASKED}, because more than {MOST_SUSPECTS} symbols look like this; the next tick asks"
        attempts, now = Attempts(self.stores.database), self.stores.clock()
        claims = [attempts.claim(symbol, day, now) for day in days]
        if not any(claims):
            return "Twelve Data was asked before"
        self._suspects += 1
        report = self._refresh([symbol])
        if report is None or symbol in report.errors:
            return "Twelve Data gave no usable answer about its splits"
        if symbol in report.left:
            return f"{NOT_ASKED}, because its credits are kept for ticks"
        return "Twelve Data was asked, and knows no such split"

    def _refresh(self, symbols: list[str]) -> ActionsReport | None:
        """Refresh the symbols and note the result. Return None if Twelve Data refused or did not answer."""
        try:
            if self._allowance is None:
                self._allowance = Allowance(spare_credits(self.stores), utc_now() + LONGEST)
            report = refresh(self.stores, symbols, self.log, client=self.client, allowance=self._allowance)
        except BarflowError as error:
            self.notes.append(f"splits and dividends were not fetched: {error}")
            return None
        self.notes += [f"{symbol}: {text_of(error)}" for symbol, error in report.errors.items()]
        if report.left:
            more = f" and {len(report.left) - 5} more" if len(report.left) > 5 else ""
            self.notes.append(
                f"splits and dividends of {', '.join(report.left[:5])}{more} are asked for later: the credits are kept "
                "for ticks"
            )
        return report


def _unknown(jumps: Sequence[Jump], splits: Mapping[date, float]) -> list[date]:
    """Return the sessions whose open looks like a split, and before which no split is known."""
    return [
        item.ts.date()
        for item in jumps
        if item.suspected and not any(item.before.date() < day <= item.ts.date() for day in splits)
    ]
