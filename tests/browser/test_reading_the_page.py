"""The page is right and usable: indicators against pandas, colours, times, and the keyboard alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from pages import NOW, READY
from pymongo.database import Database

from barflow.market.bars import SessionBars
from barflow.market.sessions import BAR, last_sessions
from barflow.staging.connection import Document
from barflow.staging.sessions import Staging

Look = Callable[..., Any]
BACKGROUND = "await page.evaluate(() => getComputedStyle(document.body).backgroundColor)"


@pytest.fixture
def frame(database: Database[Document]) -> pd.DataFrame:
    """Stage two sessions of AAPL, a random walk up to NOW, and return their bars."""
    random_walk, price = random.Random(7), 100.0
    rows: list[dict[str, Any]] = []
    staging = Staging(database)
    staging.ensure()
    for traded in last_sessions(NOW, 2):
        made = SessionBars("AAPL", traded.session_date)
        for ts in (slot for slot in traded.slots if slot + BAR <= NOW):
            opened, price = price, price * random_walk.uniform(0.99, 1.01)
            row = {
                "ts": ts, "open": opened, "high": max(opened, price) + random_walk.random(),
                "low": min(opened, price) - random_walk.random(), "close": price,
                "volume": random_walk.randrange(1, 9000), "revision": 0,
            }  # fmt: skip
            for name, value in row.items():
                getattr(made, name).append(value)
            rows.append(row | {"day": traded.session_date})
        staging.save([(made, datetime.now(UTC))], "test")
    return pd.DataFrame(rows)


def rsi(closes: pd.Series) -> pd.Series:
    """Return Cutler's RSI: simple averages of 14 gains and losses."""
    change = closes.diff()
    gains, losses = change.clip(lower=0).rolling(14).mean(), (-change.clip(upper=0)).rolling(14).mean()
    return 100 - 100 / (1 + gains / losses)


def session_vwap(frame: pd.DataFrame) -> pd.Series:
    typical = (frame["high"] + frame["low"] + frame["close"]) / 3
    by_day = frame.assign(turnover=typical * frame["volume"]).groupby("day")
    return by_day["turnover"].cumsum() / by_day["volume"].cumsum()


def test_the_indicators_equal_those_of_pandas(look: Look, frame: pd.DataFrame) -> None:
    shown = look(
        READY
        + "return page.evaluate(async () => {"
        + "const { movingAverage, relativeStrength, sessionVwap } = await import('/static/indicators.js');"
        + "const bars = await (await fetch('/api/bars/AAPL?interval=5min')).json();"
        + "const days = bars.time.map((at) => new Date(at * 1000).toISOString().slice(0, 10));"
        + "const text = (kind) => document.querySelector('#value-' + kind).textContent;"
        + "return { ma20: movingAverage(bars.close, 20), ma50: movingAverage(bars.close, 50),"
        + " rsi: relativeStrength(bars.close), vwap: sessionVwap(bars.vwap, bars.volume, days),"
        + " legend: ['ma20', 'ma50', 'vwap', 'rsi'].map(text) } })"
    )
    expected = {
        "ma20": frame["close"].rolling(20).mean(),
        "ma50": frame["close"].rolling(50).mean(),
        "rsi": rsi(frame["close"]),
        "vwap": session_vwap(frame),
    }
    for name, series in expected.items():
        drawn = pd.Series(shown[name], dtype=float)
        pd.testing.assert_series_equal(drawn, series.reset_index(drop=True), check_names=False, rtol=1e-9)
    newest = [expected[name].iloc[-1] for name in ("ma20", "ma50", "vwap", "rsi")]
    assert shown["legend"] == [*(f"{value:.2f}" for value in newest[:3]), f"{newest[3]:.1f}"]


def dark(colour: str) -> bool:
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) < 3 * 80


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_readers_colour_scheme_until_another_is_chosen_and_keeps_the_choice(
    look_at_two: Look, scheme: str
) -> None:
    other = "light" if scheme == "dark" else "dark"
    colours = look_at_two(
        READY
        + f"const before = {BACKGROUND};"
        + f"await page.click('#theme [data-value={other}]'); const chosen = {BACKGROUND};"
        + "await page.reload();" + READY
        + f"return [before, chosen, {BACKGROUND}]",
        scheme=scheme,
    )  # fmt: skip
    assert [dark(colour) for colour in colours] == [scheme == "dark", other == "dark", other == "dark"]


def test_times_are_new_york_times_or_the_readers(look_at_two: Look) -> None:
    legend = "await page.textContent('#legend time')"
    market = "await page.textContent('#market')"
    times = look_at_two(
        READY
        + f"const before = [{legend}, {market}]; await page.click('#zone [data-value=local]');"
        + f"return [...before, {legend}, {market}]"
    )
    bar_in_new_york, market_in_new_york, bar_here, market_here = times  # the reader is in Tokyo
    assert bar_in_new_york == "Thu, 17 Jul 2025, 10:55"
    assert bar_here == "Thu, 17 Jul 2025, 23:55"
    assert "11:00 New York" in market_in_new_york
    assert "18 Jul, 00:00 local" in market_here


def test_the_keyboard_alone_reaches_everything(look_at_two: Look) -> None:
    reached, marked, filtered, no_match, interval = look_at_two(
        READY
        + "const reached = [], marked = [];"
        + "for (let step = 0; step < 40; step++) {"
        + " await page.keyboard.press('Tab');"
        + " const [name, seen] = await page.evaluate(() => { const at = document.activeElement;"
        + "  const group = at.closest('[role=radiogroup], fieldset');"
        + "  const style = getComputedStyle(at);"
        + "  return [group?.id || at.id || at.className || at.tagName,"
        + "   style.outlineStyle !== 'none' || style.boxShadow !== 'none'] });"
        + " if (name === 'BODY') break; reached.push(name); marked.push(seen) }"
        + "await page.keyboard.press('/'); await page.keyboard.type('ms');"
        + "const filtered = await page.evaluate(() => [...document.querySelectorAll('.row')]"
        + " .filter((row) => !row.hidden).map((row) => row.dataset.symbol));"
        + "await page.keyboard.type('z'); const no_match = await page.textContent('#no-match');"
        + "await page.focus('#interval [aria-checked=true]'); await page.keyboard.press('ArrowRight');"
        + "await page.keyboard.press('Enter');"
        + "await page.waitForFunction(() => document.querySelector('#chart-panel').dataset.shown?.endsWith('30min'));"
        + "return [reached, marked, filtered, no_match, await page.getAttribute('#chart-panel', 'data-shown')]"
    )
    assert reached[0] == "skip"
    assert {"zone", "theme", "filter", "rows", "interval", "shown", "alerts"} <= set(reached)
    assert all(marked), "the focus is visible on every element"
    assert filtered == ["MSFT"]
    assert no_match == "No symbol contains MSZ."
    assert interval == "AAPL 30min"
