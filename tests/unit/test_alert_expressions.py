"""A condition gives the values of an independent calculation, and its mistakes are found when the rules are read."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from alert_bars import FIVE, NEWEST_DAY, backtested, bars_of, days, traded
from alert_histories import histories
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import Recordings

from barflow.alerts.condition_values import COLUMNS, CROSSINGS, FUNCTIONS, NAMES, Value, sessions_with
from barflow.alerts.evaluate import Evaluator, Event
from barflow.alerts.expressions import condition
from barflow.alerts.history import EvaluatedSession
from barflow.alerts.message import Message
from barflow.alerts.rules_file import load_rules, parse_rules
from barflow.alerts.signals import SessionView
from barflow.alerts.values import VALUES, value_at
from barflow.errors import BadInputError
from barflow.market.actions import Split
from barflow.market.bars import SessionBars
from barflow.staging.sessions import StoredSession

HALF_DAY = date(2025, 7, 3)


def market(seed: int, count: int = 24) -> list[SessionBars]:
    """Return sessions of a random walk in cents, among them a half day, with missing bars and no missing session."""
    draw, price, found = random.Random(seed), 100.0, []
    for item in days(count):
        closes, columns = {}, {name: {} for name in ("open", "high", "low", "volume")}
        for slot in range(item.expected_bars):
            before, price = price, round(max(20.0, price + draw.gauss(0, 0.4)), 2)
            if slot and draw.random() < 0.03:
                continue
            closes[slot], columns["open"][slot] = price, round(before + draw.gauss(0, 0.1), 2)
            columns["high"][slot] = round(max(price, columns["open"][slot]) + abs(draw.gauss(0, 0.1)), 2)
            columns["low"][slot] = round(min(price, columns["open"][slot]) - abs(draw.gauss(0, 0.1)), 2)
            columns["volume"][slot] = draw.randint(0, 9000)
        found.append(bars_of(item.session_date, closes, **columns))
    return found


def view_of(sessions: Sequence[SessionBars], splits: Sequence[Split] = ()) -> SessionView:
    """Return the last session as rules see it, with everything that a state can hold of the others."""
    packed = [EvaluatedSession.of(StoredSession(bars, 1), prices=True) for bars in sessions]
    return SessionView(sessions[-1], packed[-1].slots, packed[:-1], splits)


def frame(sessions: Sequence[SessionBars]) -> pd.DataFrame:
    """Return all bars, oldest first. ``day`` is the session's date."""
    return pd.DataFrame(
        [
            (bars.session_date, bar.ts, *(getattr(bar, name) for name in COLUMNS))
            for bars in sessions
            for bar in bars.bars()
        ],
        columns=["day", "ts", *COLUMNS],
    )


def within(bars: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the bars of the last session and of as many before it as the documentation says."""
    return bars[bars.day.isin(sorted(bars.day.unique())[-1 - sessions_with(count) :])].reset_index(drop=True)


def true_range(bars: pd.DataFrame) -> pd.Series:
    before = bars.close.shift()
    ranges = [bars.high - bars.low, (bars.high - before).abs(), (bars.low - before).abs()]
    return pd.concat(ranges, axis=1).max(axis=1).where(before.notna())


def rsi(bars: pd.DataFrame, n: int) -> pd.Series:
    step = bars.close.diff()
    gain, loss = step.clip(lower=0).rolling(n).mean(), (-step.clip(upper=0)).rolling(n).mean()
    return (100 - 100 / (1 + gain / loss)).where(gain + loss > 1e-12, 50.0).where(gain.notna())


def ema(bars: pd.DataFrame, n: int) -> pd.Series:
    weights = [(1 - 2 / (n + 1)) ** age * 2 / (n + 1) for age in range(4 * n)]
    first = (1 - 2 / (n + 1)) ** (4 * n) / n
    kernel = np.array([*weights, *[first] * n])[::-1]
    return bars.close.rolling(5 * n).apply(lambda window: float(np.dot(window, kernel)), raw=True)


# The same values by pandas, and the number of bars whose sessions each function looks at.
BY_BARS: dict[str, tuple[Callable[[pd.DataFrame, int], pd.Series], Callable[[int], int]]] = {
    "sma": (lambda bars, n: bars.close.rolling(n).mean(), lambda n: n),
    "ema": (ema, lambda n: 5 * n),
    "rsi": (rsi, lambda n: n + 1),
    "stdev": (lambda bars, n: bars.close.rolling(n).std(), lambda n: n),
    "atr": (lambda bars, n: true_range(bars).rolling(n).mean(), lambda n: n + 1),
    "highest": (lambda bars, n: bars.high.rolling(n).max(), lambda n: n),
    "lowest": (lambda bars, n: bars.low.rolling(n).min(), lambda n: n),
}


def same(found: float | None, expected: float) -> bool:
    return found is None if math.isnan(expected) else found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", BY_BARS)
def test_a_window_of_bars_equals_the_one_of_pandas(name: str, seed: int) -> None:
    sessions = market(seed)
    view, (expected, bars_for) = view_of(sessions), BY_BARS[name]
    window = FUNCTIONS[name]
    for n in sorted({window.least, 2, 14, 60, window.most}):
        if n > window.most:
            continue
        known = within(frame(sessions), bars_for(n))
        series = expected(known, n)[known.day == sessions[-1].session_date]
        for at, value in enumerate(series):
            assert same(value_at(view, at, Value(name, n)), value), (n, at)


@pytest.mark.parametrize("column", COLUMNS)
def test_an_earlier_bar_is_the_one_of_pandas(column: str) -> None:
    sessions = market(1)
    view = view_of(sessions)
    for n in (1, 5, 77, 200, 389):
        known = within(frame(sessions), n + 1)
        series = known[column].shift(n)[known.day == sessions[-1].session_date]
        for at, value in enumerate(series):
            assert same(value_at(view, at, Value("earlier", n, column)), value), (n, at)


@pytest.mark.parametrize("until", [NEWEST_DAY, HALF_DAY])
def test_values_of_the_session_equal_those_of_a_database(until: date) -> None:
    sessions = [bars for bars in market(2, 40) if bars.session_date <= until]
    view, bars = view_of(sessions), frame(sessions)
    assert len(bars) > 1500
    opens, closes = traded(until).opens, traded(until).closes
    found = duckdb.sql(
        """
        with today as (from bars where day = (select max(day) from bars)), before as (
            select last(close order by ts) as prev_close from bars
            where day = (select max(day) from bars where day < (select max(day) from bars))
        )
        select open, high, low, close, volume::double as volume, prev_close,
            sum((high + low + close) / 3 * volume) over up_to_now / nullif(sum(volume) over up_to_now, 0) as vwap,
            first(open) over up_to_now as session_open, max(high) over up_to_now as session_high,
            min(low) over up_to_now as session_low, round((close / prev_close - 1) * 100, 4) as change_pct,
            round((session_open / prev_close - 1) * 100, 4) as gap_pct,
            epoch(ts + interval 5 minute - $opens) / 60 as minutes_since_open,
            epoch($closes - ts - interval 5 minute) / 60 as minutes_to_close
        from today, before window up_to_now as (order by ts rows unbounded preceding) order by ts
        """,
        params={"opens": opens, "closes": closes},
    )
    columns = found.columns
    assert sorted(columns) == sorted(NAMES)
    for at, row in enumerate(found.fetchall()):
        for name, value in zip(columns, row, strict=True):
            assert value_at(view, at, Value(name)) == pytest.approx(value, rel=1e-9, abs=1e-4), (name, at)


@pytest.mark.parametrize("seed", range(2))
def test_windows_of_sessions_and_minutes_equal_those_of_pandas(seed: int) -> None:
    sessions = market(seed)
    view, table = view_of(sessions), frame(sessions)
    daily = table.groupby("day").agg({"high": "max", "low": "min", "close": "last"})[:-1]
    today = table[table.day == NEWEST_DAY].reset_index(drop=True)
    clock = table.ts.dt.time
    for at, bar in today.iterrows():
        for n in (2, 5, 20, len(daily)):
            assert same(value_at(view, at, Value("daily_highest", n)), daily.high[-n:].max())
            assert same(value_at(view, at, Value("daily_lowest", n)), daily.low[-n:].min())
            average = np.mean([*daily.close[1 - n :], bar.close])
            assert same(value_at(view, at, Value("daily_sma", n)), average)
            usual = table[(clock == bar.ts.time()) & table.day.isin(daily.index[-n:])].volume
            times = bar.volume / usual.mean() if len(usual) * 2 >= n else math.nan
            assert same(value_at(view, at, Value("volume_times", n)), round(times, 4))
        assert value_at(view, at, Value("daily_highest", len(daily) + 1)) is None, "the window is not full"
        for minutes in (5, 30, 390):
            since = bar.ts + FIVE - pd.Timedelta(minutes=minutes)
            closes = today[(today.ts + FIVE >= since) & (today.ts < bar.ts)].close
            prices = [*([today.open[0]] if today.ts[0] >= since else []), *closes]
            rise = (bar.close / min(prices) - 1) * 100 if prices else math.nan
            fall = (1 - bar.close / max(prices)) * 100 if prices else math.nan
            for name, value in (("rise_pct", rise), ("fall_pct", fall)):
                found = value_at(view, at, Value(name, minutes))
                assert found is None if math.isnan(value) else found == pytest.approx(value, abs=1e-4)


def test_each_value_and_function_has_a_calculation() -> None:
    assert set(VALUES) == {*NAMES, *FUNCTIONS, "earlier", "of", *CROSSINGS}
    for name, window in FUNCTIONS.items():
        for n in (window.least, window.most):
            assert condition(f"{name}({n}) > 0.0").values == (Value(name, n),)


def test_values_are_in_the_shares_of_the_session() -> None:
    """A 10-for-1 split: the earlier bars are divided by ten, and no value changes."""
    sessions = market(3, 8)
    day = sessions[-1].session_date
    before = [
        SessionBars.of(
            bars.symbol,
            bars.session_date,
            [
                type(bar)(bar.ts, bar.open * 10, bar.high * 10, bar.low * 10, bar.close * 10, bar.volume)
                for bar in bars.bars()
            ],
        )
        for bars in sessions[:-1]
    ]
    plain, split = (
        view_of(sessions),
        view_of([*before, sessions[-1]], [Split("AAPL", day, 10.0, "file", traded(day).opens)]),
    )
    for name, n in (
        ("sma", 90),
        ("ema", 20),
        ("rsi", 80),
        ("stdev", 90),
        ("atr", 90),
        ("highest", 90),
        ("lowest", 90),
        ("daily_sma", 5),
        ("daily_highest", 5),
        ("prev_close", 0),
        ("gap_pct", 0),
    ):
        for at in (0, 40):
            assert value_at(split, at, Value(name, n)) == pytest.approx(value_at(plain, at, Value(name, n))), name
    assert value_at(split, 0, Value("earlier", 3, "volume")) == 10 * value_at(plain, 0, Value("earlier", 3, "volume"))


def test_a_session_after_an_unknown_split_compares_with_nothing_before_it() -> None:
    night = days(2)
    sessions = [bars_of(night[0].session_date, [1000.0] * 78), bars_of(night[1].session_date, [100.0, 101.0, 99.0])]
    view = view_of(sessions)
    assert value_at(view, 2, Value("sma", 3)) == 100
    for value in (Value("sma", 4), Value("prev_close"), Value("gap_pct"), Value("earlier", 3, "close")):
        assert value_at(view, 2, value) is None
    assert value_at(view, 0, condition("crosses_below(close, 500.0)").values[0]) is None


# Each rule of the package and more, and the same as a condition.
AS_CONDITIONS = {
    "gap up": ({"kind": "gap", "percent": 1.5, "direction": "up"}, "gap_pct >= 1.5"),
    "gap down": ({"kind": "gap", "percent": 1.5, "direction": "down"}, "gap_pct <= -1.5"),
    "move up": ({"kind": "move", "percent": 0.4, "minutes": 30, "direction": "up"}, "rise_pct(30) >= 0.4"),
    "move down": ({"kind": "move", "percent": 0.4, "minutes": 30, "direction": "down"}, "fall_pct(30) >= 0.4"),
    "volume": ({"kind": "volume", "times": 2.0, "sessions": 5}, "volume_times(5) > 2.0"),
    "days up": (
        {"kind": "average", "sessions": 5, "direction": "up"},
        "crosses_above(close, daily_sma(5))",
    ),
    "days down": (
        {"kind": "average", "sessions": 5, "direction": "down"},
        "crosses_below(close, daily_sma(5))",
    ),
    "bars up": ({"kind": "average", "bars": 50, "direction": "up"}, "crosses_above(close, sma(50))"),
    "bars down": ({"kind": "average", "bars": 50, "direction": "down"}, "crosses_below(close, sma(50))"),
    "high": ({"kind": "extreme", "sessions": 3, "direction": "up"}, "session_high > daily_highest(3)"),
    "low": ({"kind": "extreme", "sessions": 3, "direction": "down"}, "session_low < daily_lowest(3)"),
    "level up": ({"kind": "level", "level": 301.0, "direction": "up"}, "crosses_above(close, 301.0)"),
    "level down": ({"kind": "level", "level": 301.0, "direction": "down"}, "crosses_below(close, 301.0)"),
}


def test_kinds_written_as_conditions_fire_at_the_same_bars_of_a_recording(recordings: Recordings) -> None:
    from barflow.backtest.sources import recorded_sessions
    from barflow.market.recordings import Recording

    sessions = list(recorded_sessions(Recording.load(recordings.watch_list)))
    prices = sorted(close for bars in sessions for close in bars.close)
    level = str(prices[len(prices) // 2])

    def fired(rules: Sequence[dict[str, object]]) -> list[str]:
        until = max(bars.ts[-1] for bars in sessions) + FIVE
        return [event.id for event in backtested(parse_rules({"rule": rules}), sessions, until)]

    named = {name.replace(" ", "_"): pair for name, pair in AS_CONDITIONS.items()}
    plain = [
        {"id": name, **values, **({"level": float(level)} if "level" in values else {})}
        for name, (values, _) in named.items()
    ]
    written = [{"id": name, "when": when.replace("301.0", level)} for name, (_, when) in named.items()]
    expected = fired(plain)
    assert {name.split("|")[0] for name in expected} == set(named), "each rule fires at least once"
    assert fired(written) == expected


CONDITIONS = [
    "crosses_above(close, sma(3)) && volume > 10.0",
    "close > earlier(1).high || rsi(3) < 30.0",
    "atr(3) > 2.0 && close < highest(8) && minutes_since_open > 10",
    "!(close >= vwap) && change_pct < 0.5",
    "daily_sma(3) < close ? low > lowest(4) : ema(2) > close",
]


class Outbox(dict[str, Event]):
    """Holds the first event of each id, as the collection does."""

    def add(self, events: Sequence[Event]) -> None:
        for event in events:
            self.setdefault(event.id, event)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CONDITIONS), histories(), st.data())
def test_splitting_bars_over_ticks_and_killing_ticks_does_not_change_the_alerts(
    when: str, history: list[SessionBars], data: st.DataObject
) -> None:
    """A killed tick has written the outbox but not the state. Bars after one that is evaluated change nothing."""
    book = parse_rules({"rule": [{"id": "rule", "when": when, "cool_down_minutes": 10}]})
    outbox, state, version = Outbox(), None, 0
    for whole in history:
        arrived = 0
        while arrived < len(whole):
            arrived += data.draw(st.integers(1, len(whole) - arrived))
            version += 1
            part = SessionBars.of(whole.symbol, whole.session_date, whole.bars()[:arrived])
            evaluator = Evaluator(book, part.ts[-1] + FIVE)
            state = state or evaluator.new_state(whole.symbol)
            after, events, *_ = evaluator.evaluate(state, [StoredSession(part, version)])
            outbox.add(events)
            state = state if data.draw(st.booleans()) else after
        if state is not None:
            evaluator = Evaluator(book, traded(whole.session_date).closes)
            state, events, *_ = evaluator.evaluate(state, [StoredSession(whole, version)])
            outbox.add(events)
    expected = backtested(book, history, traded(NEWEST_DAY).closes)
    assert sorted(outbox) == sorted(event.id for event in expected)


def test_the_state_holds_what_the_windows_need_and_no_more() -> None:
    for when, history, detail, prices in (
        ("close > open", 1, 0, 0),
        ("close > prev_close", 1, 0, 0),
        ("close > sma(41)", 1, 1, 0),
        ("close > sma(42)", 2, 2, 0),
        ("close > ema(78)", 10, 10, 0),
        ("close > highest(390)", 10, 10, 10),
        ("close > earlier(41).low", 2, 2, 2),
        ("close > earlier(41).volume", 2, 2, 0),
        ("crosses_above(high, 5.0)", 1, 1, 1),
        ("crosses_above(close, daily_sma(20))", 20, 1, 0),
        ("volume_times(20) > 2.0 && close > daily_highest(250)", 250, 20, 0),
    ):
        book = parse_rules({"rule": [{"id": "a", "when": when}]})
        assert (book.history, book.detail, book.prices) == (history, detail, prices), when
    sessions = market(4)
    book = parse_rules({"rule": [{"id": "a", "when": "close > highest(50)"}]})
    state = Evaluator(book, sessions[0].ts[-1]).new_state("AAPL")
    for bars in sessions:
        state = Evaluator(book, bars.ts[-1] + FIVE).evaluate(state, [StoredSession(bars, 1)]).state
    assert [bool(item.prices) for item in state.sessions.values()] == [True] * 7
    closes_only = parse_rules({"rule": [{"id": "a", "when": "close > sma(50)"}]})
    narrow = Evaluator(closes_only, sessions[-1].ts[-1] + FIVE).evaluate(state, []).state
    assert not any(item.prices for item in narrow.sessions.values())
    evaluator = Evaluator(book, sessions[-1].ts[-1] + FIVE)
    assert (evaluator.has_history(state), evaluator.has_history(narrow)) == (True, False), "a tick reads them again"
    for stored in state.sessions.values():
        assert EvaluatedSession.from_document(str(stored.session_date), stored.to_document()) == stored


def test_a_value_that_is_not_known_silences_the_rule() -> None:
    day = days(1)[0].session_date
    bars = bars_of(day, [100.0, 101.0, 102.0, 103.0], volume={0: 0, 1: 0, 2: 0, 3: 5})
    for when, slots in (
        ("sma(3) < 1000.0", [2]),
        ("sma(3) > 1000.0 || close > 0.0", [2]),
        ("vwap > 0.0", [3]),
        ("0.0 * volume / (0.0 * volume) > 1.0", []),
        ("volume * close > 100.0 && earlier(1).volume * 2.0 < 1.0", [3]),
        ("close / (close - close) > 1.0", [0]),
        ("close > 100 && close < 103", [1]),
    ):
        book = parse_rules({"rule": [{"id": "a", "when": when, "cool_down_minutes": 0}]})
        events = backtested(book, [bars], traded(day).closes)
        assert [event.bar_start for event in events] == [bars.ts[slot] for slot in slots], when


def test_the_message_of_a_condition_says_it() -> None:
    day = days(1)[0].session_date
    book = parse_rules({"rule": [{"id": "a", "when": "close > 101.0 &&\n  volume > 5.0"}]})
    [event] = backtested(book, [bars_of(day, [100.0, 102.0])], traded(day).closes)
    message = Message.of(event, event.bar_start)
    assert message.text == "AAPL at 102.00: close > 101.0 && volume > 5.0"
    assert (message.kind, message.value, message.unit) == ("expression", 102, "dollars")
    assert (message.direction, message.reference, message.price) == (None, None, 102)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("", "position 1: a value, a function, a number or ( is expected, not the end"),
        ("close >", "position 8: a value, a function, a number or ( is expected, not the end"),
        ("close > 1.0 close", "position 13: 'close' is not expected here"),
        ("close @ 1.0", "position 7: '@' is not allowed; allowed are names, numbers such as 2.0 or 2, and &&"),
        ("close > 'x'", "position 9: a value, a function, a number or ( is expected, not 'x'"),
        ("close > 1.", "position 9: '1' is not allowed; allowed are names, numbers such as 2.0"),
        ("(close > 1.0", "position 13: ')' is expected, not the end"),
        ("closing > 1.0", "position 1: closing is not a known value; values are open, high, low, close, volume, vwap"),
        ("close > mean(3)", "position 9: mean is not a known function; functions are sma, ema, rsi"),
        ("close > vwap()", "position 9: vwap is a value, not a function"),
        ("close > sma", "position 9: sma is a function: write sma(n)"),
        ("close > sma()", "position 9: sma has 0 arguments: write sma(n), with n a whole number from 1 to 390"),
        ("close > sma(1, 2)", "position 9: sma has 2 arguments"),
        ("close > sma(391)", "position 13: n of sma is 391: it must be a whole number from 1 to 390"),
        ("close > ema(79)", "n of ema is 79: it must be a whole number from 1 to 78"),
        ("close > sma(0)", "position 13: n of sma is 0"),
        ("close > sma(-1)", "position 13: n of sma is -1"),
        ("close > sma(2.0)", "position 13: n of sma must be a whole number from 1 to 390, written as a number"),
        ("close > sma(volume)", "position 13: n of sma must be a whole number"),
        ("close > daily_sma(251)", "n of daily_sma is 251: it must be a whole number from 2 to 250"),
        ("rise_pct(7) > 1.0", "n of rise_pct is 7: it must be a whole number from 5 to 390, a multiple of 5"),
        ("earlier(1) > 1.0", "position 12: earlier(n) needs one of .open, .high, .low, .close, .volume"),
        ("earlier(1).vwap > 1.0", "position 12: earlier(n) needs one of"),
        ("close.high > 1.0", "position 6: '.' is not expected here"),
        ("crosses_above(close)", "position 1: crosses_above has 1 argument: write crosses_above(a, b)"),
        ("crosses_above(close + 1.0, vwap)", "position 15: crosses_above compares values and numbers"),
        ("crosses_above", "position 1: crosses_above is a function: write crosses_above(close, vwap)"),
        ("close", "position 1: the condition is a number; compare it, such as close > 100.0"),
        ("close + 1.0", "position 1: the condition is a number"),
        ("close + 1 > 2.0", "position 9: + needs numbers with a decimal point, such as 2.0"),
        ("close > 1.0 && volume", "position 16: && needs a condition here, such as close > 100.0"),
        ("!close", "position 2: ! needs a condition here"),
        ("-(close > 1.0) > 2.0", "position 1: - needs a number"),
        ("1.0 < close < 2.0", "position 13: < compares numbers; join conditions with && or ||"),
        ("(close > 1.0) + 2.0 > 1.0", "position 15: + needs two numbers"),
        ("close > 1.0 ? 2.0 : close > 3.0", "position 13: ? : needs two conditions or two numbers"),
        ("1.0 < 2.0", "names no value of a bar: allowed are open, high"),
        ("close % 2.0 > 1.0", "position 7: '%' is not allowed"),
        ("close in high", "position 7: 'in' is not expected here"),
        ("close !> 1.0", "position 7: '!' is not expected here"),
        ("close > 1.0 || close > 1.0 ? close", "is expected, not the end"),
        ("- -close > --1.0 && !!!(close > 1.0) && close > " + "(" * 40 + "1.0" + ")" * 40, "nested deeper than 30"),
        ("close > 1.0 && " * 40 + "close > 1.0", "has 611 characters: allowed are 500"),
        ("close > 1e3", "position 9: '1' is not allowed"),
        ("close\n > foo", "position 10: foo is not a known value"),
    ],
)
def test_a_mistake_is_found_when_the_file_is_read(tmp_path: Path, when: str, message: str) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(f'[[rule]]\nid = "mine"\nwhen = """\n{when}"""\n')
    with pytest.raises(BadInputError) as error:
        load_rules(file)
    assert f"alert rules {file}: rule mine: when: " in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_condition_of_the_wrong_type_or_beside_another_kind_is_refused() -> None:
    for values, message in (
        ({"when": 3}, "rule a: when = 3: must be a valid string"),
        ({"kind": "expression"}, "rule a: when is missing"),
        ({"kind": "gap", "percent": 5, "when": "close > 1.0"}, "rule a: when: unknown field"),
        ({"when": "close > 1.0", "direction": "up"}, "rule a: direction: unknown field"),
        ({"when": "close > 1.0", "per_symbol": {"TSLA": {"when": "x > 1.0"}}}, "rule a for TSLA: when: position 1: x"),
    ):
        with pytest.raises(ValueError, match=r"^rule a") as error:
            parse_rules({"rule": [{"id": "a", **values}]})
        assert message in str(error.value)


# Text that may or may not be a condition.
WORDS = "close vwap sma(3) rsi(14) earlier(2).low crosses_above(close,vwap) 1.0 2"
SIGNS = "( ) && || ! < > == + - * / ? : , . %"
PARTS = st.lists(st.sampled_from(f"{WORDS} {SIGNS}".split()), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(PARTS)
def test_what_is_accepted_runs_with_any_numbers(text: str) -> None:
    """Neither an error nor a value that is no truth value comes later than the reading of the rules."""
    try:
        checked = condition(text)
    except ValueError:
        return
    for number in (0.0, -1.5, 1e308, math.inf):
        values = [number > 0 if value.compared else number for value in checked.values]
        assert checked.holds(values) in (True, False)


def test_watch_lists_name_symbols_of_rules(tmp_path: Path) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(
        '[lists]\nmegacaps = ["aapl", "MSFT", "AAPL"]\nchips = ["NVDA"]\n'
        '[[rule]]\nid = "a"\nwhen = "close > 1.0"\nsymbols = ["@megacaps", "TSLA"]\n'
        '[[rule]]\nid = "b"\nkind = "gap"\npercent = 5\nsymbols = "@chips, @megacaps"\n'
    )
    book = load_rules(file)
    assert book.lists == {"megacaps": ("AAPL", "MSFT"), "chips": ("NVDA",)}
    assert [rule.symbols for rule in book.all] == [("AAPL", "MSFT", "TSLA"), ("NVDA", "AAPL", "MSFT")]
    assert [rule.id for rule in book.rules("TSLA")] == ["a"]
    assert book.only("b").lists == book.lists


@pytest.mark.parametrize(
    ("lists", "symbols", "message"),
    [
        ('a = ["AAPL"]', "@b", "rule x: symbols: no list is named @b; lists are @a"),
        ("", "@b", "rule x: symbols: no list is named @b; the file has no [lists]"),
        ('A = ["AAPL"]', "*", "lists: 'A': must be lower-case letters, digits and _, at most 40"),
        ("a = []", "*", "lists: a = []: must be a list of symbols"),
        ('a = "AAPL"', "*", "lists: a = 'AAPL': must be a list of symbols"),
        ('a = ["*"]', "*", "lists: a: '*' is not a symbol"),
        ('a = ["@b"]', "*", "lists: a: '@b' is not a symbol"),
        ("a = [3]", "*", "lists: a: 3 is not a symbol"),
    ],
)
def test_a_mistake_in_a_watch_list_names_the_list(tmp_path: Path, lists: str, symbols: str, message: str) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(f'[lists]\n{lists}\n[[rule]]\nid = "x"\nwhen = "close > 1.0"\nsymbols = "{symbols}"\n')
    with pytest.raises(BadInputError) as error:
        load_rules(file)
    assert message in str(error.value)


def test_the_order_of_symbols_changes_nothing() -> None:
    day = days(1)[0].session_date
    sessions = [
        bars_of(day, [100.0, 101.0 + place, 99.0], symbol) for place, symbol in enumerate(("AAPL", "MSFT", "TSLA"))
    ]
    book = parse_rules({"rule": [{"id": "a", "when": "close > 101.5"}]})
    found = {
        tuple(event.id for event in backtested(book, draw, traded(day).closes))
        for draw in (sessions, sessions[::-1], sessions[1:] + sessions[:1])
    }
    assert len(found) == 1


def test_the_previous_close_is_that_of_the_exchanges_previous_session() -> None:
    three = days(3)
    view = view_of([bars_of(three[0].session_date, [100.0]), bars_of(three[2].session_date, [102.0])])
    assert value_at(view, 0, Value("prev_close")) is None
    assert value_at(view, 0, Value("earlier", 1, "close")) == 100
