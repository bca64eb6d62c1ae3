"""A backtest's figures equal those of plain loops over its alerts and bars."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from barflow.alerts.evaluate import Event
from barflow.alerts.rules import MoveRule, Rule
from barflow.backtest.bootstrap import BATCH, RESAMPLES, interval
from barflow.backtest.prices import Prices
from barflow.backtest.result import Backtest
from barflow.backtest.series import Series
from barflow.backtest.statistics import longest_silence, statistics
from barflow.cli.main import alerts_app
from barflow.market.actions import Split
from barflow.market.bars import SessionBars
from barflow.market.sessions import BAR, sessions_between

# 24 sessions over two months: the third is a half day.
SESSIONS = sessions_between(date(2025, 7, 1), date(2025, 8, 4))
FIRST, LAST = SESSIONS[0].session_date, SESSIONS[-1].session_date
SPLIT = Split("BBB", date(2025, 7, 16), 4.0, "file", datetime(2025, 7, 1, tzinfo=UTC))
MINUTES = {"30min": 30, "1h": 60}
AHEAD = {"close": 0, "1_session": 1, "5_sessions": 5}
Closes = Mapping[tuple[str, datetime], float]


def rule(name: str) -> Rule:
    return MoveRule(id=name, kind="move", percent=1.0, minutes=30)


def walk(symbol: str, seed: int) -> list[SessionBars]:
    """Return sessions of a random walk: some bars are missing, one session is, and BBB splits."""
    chance, price, found = random.Random(seed), 100.0, []
    for traded in SESSIONS:
        if traded.session_date == SPLIT.ex_date and symbol == SPLIT.symbol:
            price /= SPLIT.ratio
        bars = SessionBars(symbol, traded.session_date)
        for slot in traded.slots:
            price = round(price * (1 + chance.choice((-0.004, -0.001, 0.0, 0.001, 0.004))), 2)
            if chance.random() < 0.05:
                continue
            for name, value in (("ts", slot), ("volume", 100), ("revision", 0)):
                getattr(bars, name).append(value)
            for column in (bars.open, bars.high, bars.low, bars.close):
                column.append(price)
        if traded is not SESSIONS[9]:
            found.append(bars)
    return found


BARS = [*walk("AAA", 1), *walk("BBB", 2)]
CLOSES: Closes = {(bars.symbol, ts): close for bars in BARS for ts, close in zip(bars.ts, bars.close, strict=True)}


def drawn(seed: int, count: int, rules: Sequence[str] = ("one", "two")) -> list[Event]:
    """Return alerts at random bars, up, down or without a direction."""
    chance = random.Random(seed)
    events = []
    for symbol, ts in sorted(chance.sample(sorted(CLOSES), count), key=lambda place: (place[1], place[0])):
        day = next(item.session_date for item in SESSIONS if item.opens <= ts < item.closes)
        side = chance.choice(("up", "down", None))
        events.append(Event(rule(chance.choice(rules)), symbol, day, ts, side, 1.0, 1.0, CLOSES[symbol, ts]))
    return events


def prices(until: datetime = SESSIONS[-1].closes) -> Prices:
    found = Prices(FIRST, LAST, until)
    for symbol, bars in groupby(BARS, key=lambda item: item.symbol):
        found.add(Series.of(symbol, bars, [SPLIT] if symbol == SPLIT.symbol else []))
    return found


def reference_return(symbol: str, ts: datetime, horizon: str) -> float | None:
    """Return the return of one bar by the definition, in a plain way."""
    here = next(place for place, item in enumerate(SESSIONS) if item.opens <= ts < item.closes)
    if horizon in MINUTES:
        later: datetime | None = ts + timedelta(minutes=MINUTES[horizon])
        there = here
    else:
        there = here + AHEAD[horizon]
        last = [SESSIONS[there].slots[::-1] if there < len(SESSIONS) else []][0]
        later = next((slot for slot in last if (symbol, slot) in CLOSES), None)
    if later is None or (symbol, later) not in CLOSES or later == ts or later >= SESSIONS[there].closes:
        return None
    old, new = CLOSES[symbol, ts], CLOSES[symbol, later]
    if symbol == SPLIT.symbol and SESSIONS[here].session_date < SPLIT.ex_date <= SESSIONS[there].session_date:
        old /= SPLIT.ratio
    return new / old - 1


def reference(events: Sequence[Event], horizon: str) -> dict[str, float]:
    """Return the figures over one horizon with plain loops."""
    returns, usual, hits, usual_hits = [], [], [], []
    for event in events:
        found = reference_return(event.symbol, event.bar_start, horizon)
        if found is None:
            continue
        traded = next(item for item in SESSIONS if item.session_date == event.session_date)
        clock = event.bar_start - traded.opens
        same = [
            other
            for item in SESSIONS
            if (event.symbol, item.opens + clock) in CLOSES
            and (other := reference_return(event.symbol, item.opens + clock, horizon)) is not None
        ]
        sign = -1 if event.direction == "down" else 1
        returns.append(sign * found)
        usual.append(sign * sum(same) / len(same))
        hits.append(sign * found > 1e-9)
        usual_hits.append(sum(sign * other > 1e-9 for other in same) / len(same))
    count = len(returns)
    figures = {"mean": returns, "baseline": usual, "hit_rate": hits, "baseline_hit_rate": usual_hits}
    return {"alerts": count} | {name: sum(values) / count for name, values in figures.items()}


@pytest.mark.parametrize("horizon", [*MINUTES, *AHEAD])
def test_returns_and_baselines_equal_plain_loops(horizon: str) -> None:
    events = drawn(3, 400)
    found = statistics(
        Backtest(events, [], ("AAA", "BBB"), FIRST, LAST, len(CLOSES)), [rule("one"), rule("two")], prices()
    )
    for item in found:
        expected = reference([event for event in events if event.rule.id == item.rule], horizon)
        figures = {name: getattr(item.returns[horizon], name) for name in expected}
        assert figures == pytest.approx(expected, abs=1e-8), item.rule
        assert figures["alerts"] > 50


def test_a_split_within_the_horizon_is_no_return() -> None:
    """The closes are constant in the shares of one session, so every return is 0 and none is a hit."""
    flat = Prices(FIRST, LAST, SESSIONS[-1].closes)
    bars = [
        SessionBars("BBB", day, list(item.slots), *[[price] * item.expected_bars] * 4, [1] * item.expected_bars)
        for item in SESSIONS
        if (day := item.session_date) and (price := 33.3 if day < SPLIT.ex_date else 33.3 / 4)
    ]
    flat.add(Series.of("BBB", bars, [SPLIT]))
    for horizon in AHEAD:
        values = flat.returns("BBB", horizon)
        assert not values[~np.isnan(values)].any()
    unadjusted = Prices(FIRST, LAST, SESSIONS[-1].closes)
    unadjusted.add(Series.of("BBB", bars, None))
    assert np.nanmin(unadjusted.returns("BBB", "1_session")) == pytest.approx(-0.75)


def test_counts_months_symbols_and_cool_downs_are_those_of_the_alerts() -> None:
    events = drawn(4, 60, ["one"])
    dropped = [replace(event, rule=rule("one")) for event in events[:7]]
    feed = replace(events[0], symbol="*", price=None)
    backtest = Backtest([feed, *events], dropped, ("AAA", "BBB"), FIRST, LAST, len(CLOSES))
    one, never = statistics(backtest, [rule("one"), rule("never")], prices())
    assert (one.alerts, one.cooled_down, one.a_month) == (61, 7, pytest.approx(61 * 21 / len(SESSIONS)))
    assert one.up + one.down + sum(event.direction is None for event in backtest.events) == 61
    assert one.by_month == {
        "2025-07": sum(event.session_date.month == 7 for event in backtest.events),
        "2025-08": sum(event.session_date.month == 8 for event in backtest.events),
    }
    assert list(one.by_month) == ["2025-07", "2025-08"]
    assert one.by_symbol == {
        name: sum(event.symbol == name for event in backtest.events) for name in ("AAA", "BBB", "*")
    }
    assert sum(item.alerts for item in one.returns.values()) <= 5 * 60, "the feed has no return"
    assert (never.alerts, never.longest_silence.sessions, never.returns["1h"].mean) == (0, len(SESSIONS), None)
    assert never.by_month == {"2025-07": 0, "2025-08": 0}


def test_a_path_that_is_no_text_is_shown_in_the_report(tmp_path: Path) -> None:
    recording, rules, report = (tmp_path / f"\udcff.{end}" for end in ("csv", "toml", "html"))
    bars = "".join(f"2025-07-30 {time},100,100,100,100,5,AAPL\n" for time in ("09:30:00", "09:35:00"))
    recording.write_text(f"datetime,open,high,low,close,volume,symbol\n{bars}")
    rules.write_text('[[rule]]\nid = "gap"\nkind = "gap"\npercent = 1.0\n')
    given = ["backtest", "--replay", f"{recording}", "--rules", f"{rules}", "--html", f"{report}", "--json"]
    CliRunner().invoke(alerts_app, given, catch_exceptions=False)
    assert "\\udcff.toml" in report.read_text()
    assert "2 bars of \\udcff.csv" in report.read_text()


def test_a_session_that_is_not_over_has_no_close() -> None:
    until = SESSIONS[-1].opens + 20 * BAR
    values = prices(until).returns("AAA", "close")
    assert np.isnan(values[-1]).all()
    assert not np.isnan(prices().returns("AAA", "close")[-1]).all()
    assert np.isnan(prices(until).returns("AAA", "1_session")[-2]).all()


@pytest.mark.parametrize("count", range(1, 8))
def test_a_period_as_short_as_a_horizon_has_no_return_over_it(count: int) -> None:
    found = Prices(FIRST, SESSIONS[count - 1].session_date, SESSIONS[-1].closes)
    found.add(Series.of("AAA", [bars for bars in BARS if bars.symbol == "AAA"]))
    for horizon, ahead in AHEAD.items():
        rows = ~np.isnan(found.returns("AAA", horizon)).all(axis=1)
        assert rows.sum() == max(0, count - ahead), horizon


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ([], (24, 0, 23)),
        ([0], (23, 1, 23)),
        ([23], (23, 0, 22)),
        ([3, 4, 15], (10, 5, 14)),
        ([11], (12, 12, 23)),
        ([8, 17], (8, 0, 7)),
        (range(24), (0, None, None)),
    ],
)
def test_the_longest_silence_is_the_longest_stretch_of_sessions(
    days: Sequence[int], expected: tuple[int, int | None, int | None]
) -> None:
    found = longest_silence({SESSIONS[day].session_date for day in days}, SESSIONS)
    length, first, last = expected
    assert found.sessions == length
    assert found.first == (None if first is None else SESSIONS[first].session_date)
    assert found.last == (None if last is None else SESSIONS[last].session_date)


def reference_interval(values: Sequence[float], sessions: Sequence[int]) -> tuple[float, float]:
    """Return the percentiles of the means of whole sessions, drawn one by one with another generator."""
    chance = random.Random(5)
    members = [[value for value, of in zip(values, sessions, strict=True) if of == day] for day in sorted({*sessions})]
    means = []
    for _ in range(4000):
        chosen = [value for _ in members for value in chance.choice(members)]
        means.append(sum(chosen) / len(chosen))
    means.sort()
    return means[int(0.025 * len(means))], means[int(0.975 * len(means))]


def test_the_interval_resamples_whole_sessions_and_is_the_same_each_time() -> None:
    """The alerts of a session agree, so drawing single alerts would give an interval that is far too narrow."""
    chance = random.Random(6)
    sessions = [day for day in range(30) for _ in range(chance.randint(1, 20))]
    side = [chance.gauss(0, 0.01) for _ in range(30)]
    values = [side[day] + chance.gauss(0, 0.001) for day in sessions]
    found = interval(np.array(values), np.array(sessions))
    assert found is not None
    low, high = reference_interval(values, sessions)
    assert found == pytest.approx((low, high), abs=0.15 * (high - low))
    assert found == interval(np.array(values), np.array(sessions))
    alone = interval(np.array(values), np.arange(len(values)))
    assert alone is not None
    assert alone[1] - alone[0] < 0.5 * (high - low)
    assert RESAMPLES % BATCH == 0


def test_fewer_than_5_sessions_have_no_interval() -> None:
    values = np.array([0.01, 0.02, 0.0, 0.03, 0.01])
    assert interval(values, np.array([0, 1, 2, 3, 3])) is None
    assert interval(values, np.array([0, 1, 2, 3, 4])) is not None
    assert interval(np.array([]), np.array([], dtype=int)) is None
