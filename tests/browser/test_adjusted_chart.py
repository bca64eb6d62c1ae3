"""The chart is adjusted for splits, marks splits and dividends, and says below it what its prices are."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from browsing import BrowserShot
from pages import ACT, FOLLOWING, NOW, READY, served, stage
from pymongo.database import Database

from barflow.market.actions import Dividend, Split
from barflow.market.sessions import last_sessions
from barflow.staging.actions import Actions, Answer
from barflow.staging.connection import Document, connect

Look = Callable[..., Any]
BEFORE, EX_DATE, PAID, _ = (item.session_date for item in last_sessions(NOW, 4))
LEARNED = datetime(2025, 7, 15, 12, tzinfo=UTC)
SPLIT = Split("AAPL", EX_DATE, 10.0, "endpoint", LEARNED)
DIVIDENDS = [Dividend("AAPL", day, 0.25, "USD", "file", LEARNED) for day in (EX_DATE, PAID)]
ADJUSTED = "await page.waitForSelector('#chart-panel[data-adjust=%s]');"
CLOSE = "Number(document.querySelector('#legend').textContent.match(/C([0-9,.]+)/)[1].replace(',', ''))"
BASIS = "document.querySelector('#basis').textContent"
MARKS = "[...document.querySelectorAll('#actions button:not([hidden])')]"


def stage_bars(database: Database[Document]) -> None:
    """Stage sessions of AAPL as stored: about 1,000 dollars before the split, and about 100 from its ex-date on."""
    for day, first in ((BEFORE, 1000.0), (EX_DATE, 100.0), (PAID, 100.0)):
        stage(database, "AAPL", 78, day, first)
    stage(database, "AAPL", 18)


def store(database: Database[Document], *, dividends: bool = True) -> None:
    """Stage the answers of the endpoints."""
    answers = [Answer("AAPL", "split", [SPLIT], "endpoint", LEARNED, LEARNED)]
    if dividends:
        answers.append(Answer("AAPL", "dividend", DIVIDENDS, "file", LEARNED, LEARNED))
    Actions(database).store(answers)


@pytest.fixture(scope="module")
def look_at_split(browser_shot: BrowserShot, mongodb_uri: str, module_warehouse_dsn: str) -> Iterator[Look]:
    """What a script returned on the page of AAPL, which no test changes. The page logs no error."""
    database = connect(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}")
    stage_bars(database)
    store(database)

    def look(run: str, **options: object) -> Any:
        seen = browser_shot(url, run=READY + run, **{"width": 1440, **options})
        assert (seen.errors, seen.outside) == ([], [])
        return seen.value

    with served(database, module_warehouse_dsn) as url:
        yield look
    database.client.close()


def test_the_keyboard_changes_the_adjustment_and_the_browser_remembers_it(look_at_split: Look) -> None:
    read = f"await page.evaluate(() => [{CLOSE}, {BASIS}, document.activeElement.dataset.value])"
    found = look_at_split(
        "await page.click('#interval [data-value=\"1d\"]'); await page.waitForSelector('[data-shown=\"AAPL 1d\"]');"
        "await page.focus('#adjust [aria-checked=true]'); const box = await page.locator('#chart').boundingBox();"
        "const found = []; const oldest = async () => {"
        " for (let x = box.x + 2; x < box.x + box.width - 80; x += 4) {"
        "  await page.mouse.move(x, box.y + 90);"
        f"  if (await page.evaluate(() => document.querySelector('#legend').textContent.includes('{BEFORE.day} Jul')))"
        "   return; } };"
        f"await oldest(); found.push({read});"
        "await page.keyboard.press('ArrowRight');"
        + ADJUSTED % "all"
        + f"await oldest(); found.push({read});"
        + "await page.keyboard.press('ArrowRight');"
        + ADJUSTED % "none"
        + f"await oldest(); found.push({read});"
        + "await page.reload();"
        + ADJUSTED % "none"
        + "found.push(await page.getAttribute('#adjust [aria-checked=true]', 'data-value')); return found;"
    )
    raw, factor = 1000.77, (1 - 0.25 / 100.077) * (1 - 0.25 / 100.77)
    assert [close for close, _, _ in found[:3]] == [
        pytest.approx(raw / 10, abs=0.006),
        pytest.approx(raw / 10 * factor, abs=0.006),
        raw,
    ]
    assert [text for _, text, _ in found[:3]] == [
        "Prices in US dollars, adjusted for splits; raw prices are stored.",
        "Prices in US dollars, adjusted for splits and dividends; raw prices are stored.",
        "Prices in US dollars, as stored, not adjusted.",
    ]
    assert [focus for _, _, focus in found[:3]] == ["splits", "all", "none"]
    assert found[3] == "none"


def test_splits_and_dividends_are_marked_on_every_interval(look_at_split: Look) -> None:
    found = look_at_split(
        "const found = []; for (const interval of ['5min', '30min', '1h', '1d']) {"
        ' await page.click(`#interval [data-value="${interval}"]`);'
        ' await page.waitForSelector(`[data-shown="AAPL ${interval}"]`); await page.waitForTimeout(50);'
        f" found.push(await page.evaluate(() => {MARKS}.map((mark) => mark.innerText + mark.ariaLabel))); }}"
        "return found;"
    )
    ex_date, paid = (f"ex-date {day:%d} Jul 2025" for day in (EX_DATE, PAID))
    everything = [
        f"DDividend of 0.25 dollars, {ex_date}, imported from a file",
        f"S10-for-1 split, {ex_date}, listed by Twelve Data",
        f"DDividend of 0.25 dollars, {paid}, imported from a file",
    ]
    assert found[1:] == [everything] * 3
    assert found[0] == everything[2:], "156 candles of 5 minutes reach back to the second session"


@pytest.mark.parametrize("width", [390, 1440])
def test_a_mark_is_reached_by_keyboard_and_its_tooltip_is_in_view(look_at_split: Look, width: int) -> None:
    texts, inside, stops = look_at_split(
        "await page.click('#interval [data-value=\"1h\"]'); await page.waitForSelector('[data-shown=\"AAPL 1h\"]');"
        "await page.waitForTimeout(50); await page.focus('#shown [value=rsi]');"
        "const texts = [], inside = []; await page.keyboard.press('Tab');"
        "for (const _ of [1, 2, 3]) {"
        " const tip = page.locator('#actions button:focus .tip'); await tip.waitFor({ state: 'visible' });"
        " texts.push(await tip.innerText()); const box = await tip.boundingBox();"
        " inside.push(box.x >= 0 && box.x + box.width <= page.viewportSize().width);"
        " await page.keyboard.press('ArrowRight'); }"
        "const stops = await page.evaluate(() => document.querySelectorAll('#actions [tabindex=\"0\"]').length);"
        "return [texts, inside, stops]",
        width=width,
    )
    assert [text.split(",")[0] for text in texts] == [
        "Dividend of 0.25 dollars",
        "10-for-1 split",
        "Dividend of 0.25 dollars",
    ]
    assert (inside, stops) == ([True] * 3, 1)


def test_dividends_that_were_never_fetched_are_named_and_splits_applied(
    browser_shot: BrowserShot, database: Database[Document], module_warehouse_dsn: str
) -> None:
    stage_bars(database)
    store(database, dividends=False)
    with served(database, module_warehouse_dsn) as url:
        seen = browser_shot(
            url,
            run=READY
            + "await page.click('#adjust [data-value=all]');"
            + "await page.waitForFunction(() => document.querySelector('#basis').textContent.includes('only'));"
            + f"return page.evaluate(() => [{BASIS}, document.querySelector('#chart-panel').dataset.adjust])",
        )
    text, adjust = seen.value
    assert text.startswith("Prices in US dollars, adjusted for splits only; raw prices are stored. adjust=all needs")
    assert "`barflow actions refresh --symbols AAPL`" in text
    assert adjust == "splits"
    assert ["400" in error for error in seen.errors] == [True]


def test_a_split_that_is_learned_while_the_page_is_open_adjusts_its_chart(
    look: Look, database: Database[Document]
) -> None:
    stage_bars(database)
    before, after, marks = look(
        FOLLOWING
        + f"const before = await page.evaluate(() => {BASIS});"
        + ACT
        + ADJUSTED % "splits"
        + "await page.waitForSelector('#actions button', { state: 'attached' });"
        + f"return [before, await page.evaluate(() => {BASIS}), await page.locator('#actions button').count()]",
        act=lambda: store(database),
    )
    assert before == (
        "Prices in US dollars, not adjusted: the splits of AAPL were never fetched. Run barflow actions refresh."
    )
    assert after == "Prices in US dollars, adjusted for splits; raw prices are stored."
    assert marks == 3
