"""Rules that name another symbol: the same alerts in whichever order, batch or tick the bars of each symbol arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from alert_bars import FIVE, NEWEST_DAY, backtested, bars_of, change, days, traded
from alert_histories import histories
from hypothesis import given, settings
from hypothesis import strategies as st

from barflow.alerts.evaluate import Evaluator, Event
from barflow.alerts.history import SymbolState
from barflow.alerts.rules import RuleBook
from barflow.alerts.rules_file import parse_rules
from barflow.backtest.run import run
from barflow.backtest.sources import from_sessions
from barflow.errors import BadInputError
from barflow.market.actions import Split
from barflow.market.bars import Bar, SessionBars
from barflow.market.instruments import Former, Instrument, Instruments
from barflow.market.sessions import previous_session
from barflow.staging.sessions import StoredSession

SYMBOLS = ("AAPL", "SPY", "QQQ")
DAYS = [item.session_date for item in days(4)]
UNTIL = traded(NEWEST_DAY).closes
# Fewer than NEWS_SESSIONS, so that no bar arrives too late to be news.
Histories = Mapping[str, Sequence[SessionBars]]
ByDay = Mapping[date, list[Bar]]
Values = Mapping[str, float]
# Each condition, and the same in Python over the values of AAPL, SPY and QQQ at one bar. & and | look at both sides.
CONDITIONS: dict[str, Callable[[Values, Values, Values], bool]] = {
    'of("SPY").close < close': lambda own, spy, qqq: spy["close"] < own["close"],
    "of('SPY').change_pct < -0.5 && close > 99.0": lambda own, spy, qqq: (
        (spy["change_pct"] < -0.5) & (own["close"] > 99)
    ),
    'of("SPY").vwap > vwap': lambda own, spy, qqq: spy["vwap"] > own["vwap"],
    'of("SPY").session_high - of("QQQ").session_low > 4.0 && of("SPY").volume > 9.0': lambda own, spy, qqq: (
        (spy["session_high"] - qqq["session_low"] > 4) & (spy["volume"] > 9)
    ),
    'of("QQQ").open <= of("QQQ").prev_close || of("SPY").gap_pct > 1.0': lambda own, spy, qqq: (
        (qqq["open"] <= qqq["prev_close"]) | (spy["gap_pct"] > 1)
    ),
    'of("SPY").high < of("SPY").session_open && of("spy").low < 99.5': lambda own, spy, qqq: (
        (spy["high"] < spy["session_open"]) & (spy["low"] < 99.5)
    ),
}


def book_of(when: str, **values: object) -> RuleBook:
    return parse_rules({"rule": [{"id": "rule", "when": when, "cool_down_minutes": 10, **values}]})


def values_at(by_day: ByDay, day: date, ts: datetime) -> dict[str, float]:
    """Return the values of a symbol at the bar that opens at ``ts``. It lacks those that are not known."""
    bars = [bar for bar in by_day.get(day, []) if bar.ts <= ts]
    if not bars or bars[-1].ts != ts:
        return {}
    found = {name: getattr(bars[-1], name) for name in ("open", "high", "low", "close", "volume")}
    found |= {"session_open": bars[0].open, "session_high": max(bar.high for bar in bars)}
    found["session_low"] = min(bar.low for bar in bars)
    if shares := sum(bar.volume for bar in bars):
        found["vwap"] = sum((bar.high + bar.low + bar.close) * bar.volume for bar in bars) / shares / 3
    night = previous_session(day)
    if night and (before := by_day.get(night.session_date)):
        found["prev_close"] = before[-1].close
        found["change_pct"] = float(change(found["close"], before[-1].close))
        found["gap_pct"] = float(change(bars[0].open, before[-1].close))
    return found


def reference(holds: Callable[[Values, Values, Values], bool], found: Histories, symbol: str) -> list[str]:
    """Return the ids that a symbol's rule gives when all bars are known at once."""
    by_day = {name: {item.session_date: item.bars() for item in found[name]} for name in SYMBOLS}
    fired: list[datetime] = []
    for day, bars in sorted(by_day[symbol].items()):
        held = False
        for bar in bars:
            try:
                now = holds(*(values_at(by_day[name], day, bar.ts) for name in (symbol, *SYMBOLS[1:])))
            except KeyError:
                now = False
            if now and not held and (not fired or bar.ts - fired[-1] >= timedelta(minutes=10)):
                fired.append(bar.ts)
            held = now
    return [f"rule|{symbol}|{ts:%Y-%m-%dT%H:%M:%SZ}" for ts in fired]


@st.composite
def markets(draw: st.DrawFn) -> Histories:
    """Draw the sessions of each symbol, with missing sessions and bars."""
    found = {symbol: [item for item in draw(histories()) if item.session_date in DAYS] for symbol in SYMBOLS}
    return {symbol: [replace(item, symbol=symbol) for item in sessions] for symbol, sessions in found.items()}


class Ticks:
    """Ticks as ``barflow.alerts.tick`` does them, over states and an outbox in memory."""

    def __init__(self, book: RuleBook) -> None:
        self.book = book
        self.outbox: dict[str, Event] = {}
        self.states: dict[str, SymbolState] = {}
        self.versions: dict[tuple[str, date], int] = {}

    def store(self, now: datetime, *changed: SessionBars) -> None:
        """Store a batch, and evaluate the rules that name no other symbol."""
        evaluator = Evaluator(self.book, now)
        for bars in changed:
            key = (bars.symbol, bars.session_date)
            self.versions[key] = self.versions.get(key, 0) + 1
            state = self.states.get(bars.symbol) or evaluator.new_state(bars.symbol)
            after, events, *_ = evaluator.evaluate(state, [StoredSession(bars, self.versions[key])])
            self._add(events)
            self.states[bars.symbol] = after

    def end(self, now: datetime, symbols: Sequence[str] = SYMBOLS, *, killed_after: int = 99) -> None:
        """Compare the symbols. A tick that is killed has added alerts, and has not written the next state."""
        evaluator = Evaluator(self.book, now)
        for place, symbol in enumerate(symbols):
            if (state := self.states.get(symbol)) is None:
                continue
            comparison = evaluator.comparison(state, self.states)
            late = bool(comparison.places) and evaluator.is_late(comparison)
            fired = {"rule": [e.bar_start for e in self.outbox.values() if e.symbol == symbol]} if late else {}
            after, events, *_ = evaluator.compare(comparison, fired)
            self._add(events)
            if place >= killed_after:
                return
            self.states[symbol] = after

    def _add(self, events: Sequence[Event]) -> None:
        for event in events:
            self.outbox.setdefault(event.id, event)

    def ids(self, symbol: str) -> list[str]:
        return sorted(id for id, event in self.outbox.items() if event.symbol == symbol)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*CONDITIONS]), markets(), st.data())
def test_batches_ticks_and_kills_do_not_change_the_alerts(when: str, found: Histories, data: st.DataObject) -> None:
    """The bars of each symbol arrive in order, and each symbol at a pace of its own, in any batch."""
    book, ticks = book_of(when), Ticks(book_of(when))
    waiting = {symbol: [(item, at) for item in found[symbol] for at in range(1, len(item) + 1)] for symbol in SYMBOLS}
    now = traded(DAYS[0]).opens
    evaluator = Evaluator(book, now)
    ticks.states = {symbol: evaluator.evaluate(evaluator.new_state(symbol), []).state for symbol in SYMBOLS}
    while any(waiting.values()):
        for symbol in data.draw(st.permutations(SYMBOLS)):
            taken = data.draw(st.integers(0, len(waiting[symbol])))
            arrived = {item.session_date: (item, at) for item, at in waiting[symbol][:taken]}
            waiting[symbol] = waiting[symbol][taken:]
            parts = [SessionBars.of(symbol, item.session_date, item.bars()[:at]) for item, at in arrived.values()]
            now = max([now, *(part.ts[-1] + FIVE for part in parts)])
            ticks.store(now, *parts)
        order = data.draw(st.permutations(SYMBOLS))
        ticks.end(now, order, killed_after=data.draw(st.sampled_from([0, 1, 99, 99])))
    ticks.end(UNTIL)
    sessions = [item for name in SYMBOLS for item in found[name]]
    whole = backtested(book, sessions, UNTIL)
    assert whole == backtested(book, sessions, UNTIL, screened=False)
    for symbol in SYMBOLS:
        expected = reference(CONDITIONS[when], found, symbol)
        assert ticks.ids(symbol) == expected
        assert [event.id for event in whole if event.symbol == symbol] == expected


def test_the_conditions_of_the_property_fire() -> None:
    """Else the property above compares empty lists."""
    closes = {"AAPL": [100.0, 101, 99.5, 103, 100], "SPY": [100.5, 99, 100, 98, 97], "QQQ": [100.0, 93, 95, 94, 96]}
    volume = {0: 5, 1: 10, 2: 20, 3: 10, 4: 10}
    found = {
        symbol: [bars_of(day, values, symbol, volume=volume, low={2: values[2] - 2}) for day in DAYS[-2:]]
        for symbol, values in closes.items()
    }
    found["SPY"][1] = bars_of(DAYS[-1], [close - 3 for close in closes["SPY"]], "SPY", volume=volume)
    sessions = [item for name in SYMBOLS for item in found[name]]
    for when, holds in CONDITIONS.items():
        ids = [event.id for event in backtested(book_of(when), sessions, UNTIL) if event.symbol == "AAPL"]
        assert ids == reference(holds, found, "AAPL") != [], when


def at(slot: int) -> datetime:
    return traded(NEWEST_DAY).opens + slot * FIVE


def session_of(symbol: str, *closes: float, revision: Sequence[int] = ()) -> SessionBars:
    found = bars_of(NEWEST_DAY, closes, symbol)
    return replace(found, revision=[*revision]) if revision else found


WEAK = 'of("SPY").close < 100.0'
AT_0940 = "rule|AAPL|2025-07-30T13:40:00Z"


def test_a_revision_of_the_other_symbol_evaluates_that_bar_again_in_every_order_of_a_tick() -> None:
    for order in (("AAPL", "SPY"), ("SPY", "AAPL")):
        ticks = Ticks(book_of(WEAK, symbols="AAPL", cool_down_minutes=0))
        ticks.store(at(3), *(session_of(symbol, 101, 101, 101) for symbol in order))
        ticks.end(at(3))
        assert not ticks.outbox
        revised = {"AAPL": session_of("AAPL", 101, 101, 101, 102), "SPY": session_of("SPY", 101, 101, 99, 99)}
        revised["SPY"] = replace(revised["SPY"], revision=[0, 0, 1, 0])
        for symbol in order:
            ticks.store(at(4), revised[symbol])
        assert not ticks.outbox, "the rule waits for the end of the tick"
        ticks.end(at(4))
        assert [*ticks.outbox] == [AT_0940], "the next bar is no edge"
        ticks.end(at(4))
        ticks.store(at(5), session_of("SPY", 101, 101, 101, 99, revision=(0, 0, 2, 0)))
        ticks.end(at(5))
        assert [*ticks.outbox] == [AT_0940], "no alert is withdrawn, and the next bar is evaluated only if it changes"


def test_a_late_bar_of_the_other_symbol_respects_the_cool_downs_of_every_alert() -> None:
    ticks = Ticks(book_of(WEAK, symbols="AAPL", cool_down_minutes=15))
    ticks.store(at(8), session_of("AAPL", *[101.0] * 8))
    spy = session_of("SPY", 101, 101, 99, 101, 101, 101, 99, 101)
    ticks.store(at(8), SessionBars.of("SPY", NEWEST_DAY, [spy.bars()[place] for place in (0, 2, 6)]))
    ticks.end(at(8))
    assert [event.bar_start for event in ticks.outbox.values()] == [at(2), at(6)]
    late = replace(spy, close=[101.0, 99, 99, 99, 101, 101, 99, 101])
    ticks.store(at(8), late)
    ticks.end(at(8))
    assert [event.bar_start for event in ticks.outbox.values()] == [at(2), at(6)], "13:35 is too near to 13:40"


def test_bars_before_the_first_evaluation_of_either_symbol_fire_nothing() -> None:
    for late in ("AAPL", "SPY", "rule"):
        book = book_of(WEAK, symbols="AAPL")
        ticks = Ticks(parse_rules({"rule": []}) if late == "rule" else book)
        for day in DAYS[:-1]:
            arrived = [bars_of(day, [99.0], symbol) for symbol in ("AAPL", "SPY") if symbol != late]
            ticks.store(traded(day).closes, *arrived)
            ticks.end(traded(day).closes)
        ticks.book = book
        before = [bars_of(day, [99.0], late) for day in DAYS[:-1] if late != "rule"]
        if late == "rule":  # the next tick reads what the rules now look at
            before = [bars_of(day, [99.0], symbol) for day in DAYS[:-1] for symbol in ("AAPL", "SPY")]
            ticks.versions = {}
        ticks.store(at(1), *before, session_of("AAPL", 99), session_of("SPY", 99))
        ticks.end(at(1))
        assert [event.bar_start for event in ticks.outbox.values()] == [at(0)], late


@pytest.mark.parametrize("split", ["AAPL", "SPY"])
def test_a_split_of_either_symbol_that_is_learned_late_evaluates_the_session_again(split: str) -> None:
    book = book_of("change_pct > -2.0 && of('SPY').change_pct > -2.0", symbols="AAPL")
    evaluator = Evaluator(book, at(1))
    states = {}
    for symbol in ("AAPL", "SPY"):
        closes = (100.0, 20.0) if symbol == split else (100.0, 99.0)
        sessions = [bars_of(day, [close], symbol) for day, close in zip(DAYS[-2:], closes, strict=True)]
        state = replace(evaluator.new_state(symbol), horizon=DAYS[0])
        stored = [StoredSession(item, 1) for item in sessions]
        states[symbol] = evaluator.evaluate(state, stored).state
    states["AAPL"], events, *_ = evaluator.compare(evaluator.comparison(states["AAPL"], states))
    assert not events, "nothing is compared with the session before an unknown split"
    known = [Split(split, NEWEST_DAY, 5.0, "file", datetime(2025, 7, 30, tzinfo=UTC))]
    stored = [StoredSession(bars_of(NEWEST_DAY, [20.0], split), 1)]
    states[split] = evaluator.evaluate(states[split], stored, known).state
    comparison = evaluator.comparison(states["AAPL"], states)
    assert [event.bar_start for event in evaluator.compare(comparison).events] == [at(0)]
    unadjusted = evaluator.compare(comparison, adjust=False)
    assert not unadjusted.events, "as recorded, the price fell by 80 %"


def test_a_crossing_with_another_symbol_compares_bars_of_one_session() -> None:
    book = book_of('crosses_above(close, of("SPY").close)', symbols="AAPL")
    found = {"AAPL": [101.0, 99, 101], "SPY": [100.0, 100, 100]}
    sessions = [bars_of(DAYS[-2], [99.0], "AAPL"), *(session_of(symbol, *closes) for symbol, closes in found.items())]
    assert [event.bar_start for event in backtested(book, sessions, UNTIL)] == [at(2)]


def test_a_symbol_that_the_environment_lacks_is_named_with_its_rule_and_position() -> None:
    book = parse_rules({"rule": [{"id": "weak", "when": 'close > 1.0 && of("SPY").close < 1.0'}]})
    none = Instruments()
    book.check_others(["AAPL", "SPY"], none)
    message = "alert rule weak: when: position 16: SPY is not a symbol of this environment; symbols are AAPL, MSFT"
    with pytest.raises(BadInputError, match=message):
        book.check_others(["AAPL", "MSFT"], none)
    renamed = Instruments([Instrument(symbol="SPYX", former=(Former(symbol="SPY", last_day=DAYS[0]),))])
    book.check_others(["SPYX"], renamed)
    book.check_others(["SPY"], renamed)
    assert book.others("AAPL") == ("SPY",)


def test_a_backtest_without_bars_of_the_other_symbol_notes_that_its_rules_are_silent() -> None:
    sessions = from_sessions([bars_of(NEWEST_DAY, [99.0])])
    found = run(book_of(WEAK), sessions, UNTIL)
    assert found.events == []
    assert found.notes == ("SPY: rules that name it are silent, because it has no bars here",)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("of > 1.0", 'position 1: of is a function: write of("SPY").change_pct'),
        ("of(SPY).close > 1.0", 'position 4: of needs a symbol in quotes: write of("SPY").change_pct'),
        ('of("S PY").close > 1.0', "position 4: of needs a symbol in quotes"),
        ('of("SPY") > 1.0', "position 11: of(symbol) needs one of .open, .high, .low, .close, .volume, .vwap, .prev_"),
        ('of("SPY").rsi(14) > 1.0', "position 11: of(symbol) needs one of .open"),
        ('of("SPY").minutes_to_close > 1.0', "position 11: of(symbol) needs one of .open"),
        ('of("SPY", 1).close > 1.0', "position 9: ')' is expected, not ,"),
        ('close > "SPY"', 'position 9: a value, a function, a number or ( is expected, not "SPY"'),
        ('of("SPY).close > 1.0', "position 4: '\"' is not allowed"),
    ],
)
def test_a_mistake_in_the_naming_of_a_symbol_is_found_when_the_file_is_read(when: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^rule rule: when: ") as error:
        book_of(when)
    assert message in str(error.value)
