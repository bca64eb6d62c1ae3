"""The analysts' page shows what is stored, follows what arrives, and talks to nobody else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pages import ACT, FOLLOWING, LATE, NOW, READY, stage
from pymongo.database import Database

from barflow.alerts.message import Message
from barflow.alerts.outbox import Outbox
from barflow.market.sessions import BAR, last_sessions
from barflow.staging.connection import Document

SHOWN = "await page.waitForSelector('#chart-panel[data-shown=\"%s\"]');"
# The server's events end as they begin: the page connects again every three seconds, and reads everything.
CUT_OFF = "await page.route(/api.events/, (route) => route.fulfill({ contentType: 'text/event-stream', body: '' }));"
MARKED = "await page.waitForSelector('#chart[aria-label$=\"alerts marked: %d\"]');"


def alert(database: Database[Document]) -> None:
    moment = datetime.now(UTC)
    message = Message(
        schema_version=1, id="r|AAPL|x", rule="level_101", kind="level", symbol="AAPL", severity="critical",
        session_date=NOW.date(), bar_start=NOW - 2 * BAR, direction="up", value=101, unit="dollars", reference=101,
        price=101, text="AAPL rose to 101.00, through 101.00", created_at=moment,
    )  # fmt: skip
    Outbox(database).add([(message, ["sse"])])


@pytest.fixture
def arrive(database: Database[Document]) -> Callable[[], None]:
    """Has a bar more, and an alert, arrive at a page that shows 17 bars."""
    stage(database, "AAPL", 17)

    def act() -> None:
        stage(database, "AAPL", 18)
        alert(database)

    return act


@pytest.mark.parametrize("width", [390, 1440])
def test_symbol_and_interval_are_switched_by_keys_and_pointer(
    look: Callable[..., Any], database: Database[Document], width: int
) -> None:
    stage(database, "AAPL", 18)
    stage(database, "MSFT", 18)
    shown = look(
        READY
        + "await page.focus('#rows'); await page.keyboard.press('ArrowDown');"
        + "await page.click('[data-value=\"1h\"]');"
        + SHOWN % "MSFT 1h"
        + "return page.evaluate(() => [document.documentElement.scrollWidth,"
        + " document.querySelector('[aria-selected=true]').dataset.symbol])",
        width=width,
    )
    assert shown == [width, "MSFT"]


def test_a_candle_and_an_alert_arrive_without_a_reload(look: Callable[..., Any], arrive: Callable[[], None]) -> None:
    text = look(
        FOLLOWING
        + "await page.evaluate(() => { window.same = true });"
        + ACT
        + "await page.waitForSelector('#alerts li.new');"
        + MARKED % 1
        + "await page.waitForFunction(() => document.querySelector('#legend').textContent.includes('100.17'));"
        + "return page.evaluate(() => [window.same, document.querySelector('.row .last').textContent])",
        act=arrive,
    )
    assert text == [True, "100.17"]


@pytest.mark.parametrize(("bars", "first", "last"), [(18, 100, "100.17"), (17, 105, "105.16")])
def test_what_comes_while_the_page_reads_stays_on_it(
    look: Callable[..., Any], database: Database[Document], bars: int, first: float, last: str
) -> None:
    """A bar more, or another price of the same one, and an alert."""
    stage(database, "AAPL", 17)

    def act() -> None:
        stage(database, "AAPL", bars, first=first)
        alert(database)

    seen = look(
        FOLLOWING
        + LATE
        # The second reads, of once the page listens, are answered when all has arrived.
        + "const reads = [await late(/api.watchlist/, 2), await late(/api.alerts.limit=100/, 2)];"
        + "await page.reload(); const answers = await Promise.all(reads.map(({ held }) => held));"
        + ACT
        + "await page.waitForSelector('#alerts li.new');"
        + f"await page.waitForFunction(() => document.querySelector('.row .last').textContent === '{last}');"
        + "for (const answer of answers) await answer(); await page.waitForSelector('#alerts li:not(.new)');"
        + "return [await page.textContent('.row .last'), await page.textContent('#alerts')]",
        act=act,
    )
    assert seen[0] == last
    assert "level_101" in seen[1]


def test_an_alert_that_comes_while_a_chart_is_opened_is_marked_on_it(
    look: Callable[..., Any], database: Database[Document]
) -> None:
    stage(database, "AAPL", 17)
    stage(database, "MSFT", 17)
    look(
        FOLLOWING
        + "await page.click('[data-symbol=MSFT]');"
        + SHOWN % "MSFT 5min"
        + LATE
        + "const { held } = await late(/api.alerts.symbol=AAPL/);"
        + "await page.click('[data-symbol=AAPL]'); const answer = await held;"
        + ACT
        + "await page.waitForSelector('#alerts li.new'); await answer();"
        + SHOWN % "AAPL 5min"
        + MARKED % 1
        + "await page.click('[data-symbol=MSFT]');"
        + SHOWN % "MSFT 5min"
        + MARKED % 0,
        act=lambda: alert(database),
    )


def test_what_comes_while_the_connection_is_lost_is_on_the_page_once_it_is_back(
    look: Callable[..., Any], arrive: Callable[[], None]
) -> None:
    """Its marks, too."""
    look(
        READY
        + CUT_OFF
        + "await page.reload();"
        + MARKED % 0
        + "await page.waitForSelector('#link:visible');"
        + ACT
        + "await page.unroute(/api.events/);"
        + MARKED % 1
        + "await page.waitForSelector('#link', { state: 'hidden' });"
        + "await page.waitForFunction(() => document.querySelector('#legend').textContent.includes('100.17'));",
        act=arrive,
    )


def test_a_late_answer_does_not_bring_an_old_price_back(look: Callable[..., Any], arrive: Callable[[], None]) -> None:
    last = look(
        FOLLOWING
        + LATE
        + "const { held } = await late(/api.watchlist/, 2);"
        + CUT_OFF
        + "await page.reload(); const answer = await held;"
        + ACT
        + "await page.waitForFunction(() => document.querySelector('.row .last')?.textContent === '100.17');"
        + "await answer(); await page.waitForTimeout(300); return page.textContent('.row .last')",
        act=arrive,
    )
    assert last == "100.17"


def test_a_late_answer_does_not_bring_an_old_candle_back(
    look: Callable[..., Any], database: Database[Document]
) -> None:
    stage(database, "AAPL", 17)
    prices = iter((105, 110))
    legend = look(
        FOLLOWING
        + LATE
        + "const { held } = await late(/limit=240/);"
        + ACT
        + "const answer = await held;"
        + ACT
        + "await page.waitForFunction(() => document.querySelector('#legend').textContent.includes('110.16'));"
        + "await answer(); await page.waitForTimeout(300); return page.textContent('#legend')",
        act=lambda: stage(database, "AAPL", 17, first=next(prices)),
    )
    assert "110.16" in legend


def test_an_outage_of_days_leaves_no_hole_between_the_candles(
    look: Callable[..., Any], database: Database[Document]
) -> None:
    """The newest candles that an event has the page read do not reach back as far as those at hand."""
    *missed, _ = last_sessions(NOW, 7)
    stage(database, "AAPL", 78, missed.pop(0).session_date)

    def act() -> None:
        for traded in missed:
            stage(database, "AAPL", 78, traded.session_date)

    candles = look(
        FOLLOWING
        + "const asked = page.waitForRequest(/api.bars.AAPL.*limit=600/), held = [];"
        + "const hold = (route) => { held.push(route); }; await page.route(/limit=240/, hold);"
        + ACT  # of which the page must not see a part
        + "await page.unroute(/limit=240/, hold); for (const route of held) await route.continue();"
        + "const shown = await (await (await asked).response()).json(); return shown.time.length;",
        act=act,
    )
    assert candles == 6 * 78


def test_candles_are_not_laid_over_those_of_another_symbol_whose_own_are_late(
    look: Callable[..., Any], database: Database[Document]
) -> None:
    stage(database, "AAPL", 17)
    stage(database, "MSFT", 17)
    look(
        FOLLOWING
        + LATE
        + "const { held } = await late(/api.bars.MSFT/);"
        + "await page.click('[data-symbol=MSFT]'); const answer = await held;"
        + ACT
        + SHOWN % "MSFT 5min"
        + "await answer();",
        act=lambda: stage(database, "MSFT", 18),
    )


def test_late_data_are_marked_stale(look: Callable[..., Any], database: Database[Document]) -> None:
    stage(database, "AAPL", 10)
    text = look(READY + "return await page.textContent('#quote') + await page.textContent('.row .age')")
    assert "stale: newest bar" in text
    assert "stale 40 min" in text


def test_a_closed_market_is_marked_closed(look: Callable[..., Any], database: Database[Document]) -> None:
    stage(database, "AAPL", 78)
    text = look(READY + "return page.textContent('#market')", now=NOW + timedelta(hours=8))
    assert "Market closed" in text


def test_without_data_the_page_says_what_to_do(look: Callable[..., Any]) -> None:
    assert "barflow demo" in look("await page.waitForSelector('#empty:visible'); return page.textContent('#empty')")
