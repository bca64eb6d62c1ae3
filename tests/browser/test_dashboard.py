"""The analysts' page shows the stored bars and alerts, follows new ones, and sends requests to its own server only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from backtest_summaries import HOSTILE, summary
from browsing import BrowserShot
from pages import ACT, FOLLOWING, LATE, NOW, READY, served, stage
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pymongo.database import Database

from barflow.alerts.message import Message
from barflow.alerts.mutes import Mutes
from barflow.alerts.outbox import Outbox
from barflow.backtest.stored import Backtests
from barflow.market.sessions import BAR, last_sessions
from barflow.staging.connection import Document

Look = Callable[..., Any]
SHOWN = "await page.waitForSelector('#chart-panel[data-shown=\"%s\"]');"
# The event stream ends as soon as it begins: the page reconnects every 200 ms, and reads everything each time.
CUT_OFF = (
    "await page.route(/api.events/, (route) =>"
    " route.fulfill({ contentType: 'text/event-stream', body: 'retry: 200\\n\\n' }));"
)
MARKED = "await page.waitForSelector('#chart[aria-label$=\"alerts marked: %d\"]');"


def fire_alert(database: Database[Document], name: str = "x") -> None:
    """Store an alert of AAPL, two bars before NOW."""
    moment = datetime.now(UTC)
    message = Message(
        schema_version=1, id=f"level_101|AAPL|{name}", rule="level_101", kind="level", symbol="AAPL",
        severity="critical", session_date=NOW.date(), bar_start=NOW - 2 * BAR, direction="up", value=101,
        unit="dollars", reference=101,
        price=101, text="AAPL rose to 101.00, through 101.00", created_at=moment,
    )  # fmt: skip
    Outbox(database).add([(message, ["sse"])])


@pytest.fixture
def arrive(database: Database[Document]) -> Callable[[], None]:
    """Store 17 bars of AAPL; the returned function stores one more, and an alert."""
    stage(database, "AAPL", 17)

    def act() -> None:
        stage(database, "AAPL", 18)
        fire_alert(database)

    return act


@pytest.mark.parametrize("width", [390, 1440])
def test_keys_change_the_symbol_and_the_pointer_changes_the_interval(look_at_two: Look, width: int) -> None:
    shown = look_at_two(
        READY
        + "await page.focus('#rows'); await page.keyboard.press('ArrowDown');"
        + "await page.click('[data-value=\"1h\"]');"
        + SHOWN % "MSFT 1h"
        + "return page.evaluate(() => [document.documentElement.scrollWidth,"
        + " document.querySelector('[aria-selected=true]').dataset.symbol])",
        width=width,
    )
    assert shown == [width, "MSFT"]


def test_a_named_list_filters_the_watch_list_and_stays_after_a_reload(look_at_two: Look) -> None:
    names = "page.$$eval('#rows .row', (rows) => rows.filter((row) => !row.hidden).map((row) => row.dataset.symbol))"
    seen = look_at_two(
        READY
        + "const offered = await page.$$eval('#list option', (options) => options.map((option) => option.textContent));"
        + f"const all = await {names};"
        + f"await page.selectOption('#list', 'software'); const chosen = await {names};"
        + "await page.fill('#filter', 'aa'); const note = await page.textContent('#no-match');"
        + "await page.reload();"
        + READY
        + f"const again = [await page.inputValue('#list'), ...await {names}];"
        + "await page.selectOption('#list', 'none_stored'); const none = await page.textContent('#no-match');"
        + "await page.selectOption('#list', '');"
        + f"return [offered, all, chosen, note, again, none, await {names}];"
    )
    assert seen == [
        ["All symbols", "@software", "@none_stored"],
        ["AAPL", "MSFT"],
        ["MSFT"],
        "No symbol of @software contains AA.",
        ["software", "MSFT"],
        "No symbol of @none_stored has bars.",
        ["AAPL", "MSFT"],
    ]


def test_a_candle_and_an_alert_appear_without_a_reload(look: Look, arrive: Callable[[], None]) -> None:
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
def test_a_change_and_an_alert_that_arrive_during_a_read_stay_on_the_page(
    look: Look, database: Database[Document], bars: int, first: float, last: str
) -> None:
    """The change is one more bar, or another price of the same bar."""
    stage(database, "AAPL", 17)

    def act() -> None:
        stage(database, "AAPL", bars, first=first)
        fire_alert(database)

    seen = look(
        FOLLOWING
        + LATE
        # The page reads a second time once it listens. Those answers come after the change and the alert.
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


def test_an_alert_that_arrives_while_a_chart_opens_gets_a_marker(look: Look, database: Database[Document]) -> None:
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
        act=lambda: fire_alert(database),
    )


def test_a_change_during_a_lost_connection_is_shown_after_the_reconnect(look: Look, arrive: Callable[[], None]) -> None:
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


def test_an_outage_of_the_warehouse_is_reported_and_the_page_catches_up_after_it(
    look: Look, database: Database[Document], postgres_dsn: str, warehouse_dsn: str
) -> None:
    name = conninfo_to_dict(warehouse_dsn)["dbname"]
    stage(database, "AAPL", 17)

    def accept_connections(accept: bool) -> None:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            alter = sql.SQL("alter database {} with allow_connections {}")
            connection.execute(alter.format(sql.Identifier(name), accept))
            if not accept:
                terminate = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = %s"
                connection.execute(terminate, [name])
                stage(database, "AAPL", 18)

    acts = iter((False, True))
    try:
        banner, last = look(
            FOLLOWING
            + "await page.route(/api.health/, () => {});"  # the browser would log its failed answer as an error
            + ACT
            + "await page.waitForSelector('#banner:visible'); const banner = await page.textContent('#banner');"
            + ACT
            + "await page.waitForFunction(() => document.querySelector('#legend').textContent.includes('100.17'));"
            + "await page.waitForSelector('#banner', { state: 'hidden' });"
            + "return [banner, await page.textContent('.row .last')]",
            act=lambda: accept_connections(next(acts)),
            dsn=warehouse_dsn,
        )
    finally:
        accept_connections(True)
    assert "the warehouse could not" in banner
    assert last == "100.17"


def test_a_late_answer_does_not_restore_an_old_price(look: Look, arrive: Callable[[], None]) -> None:
    last = look(
        FOLLOWING
        + LATE
        + "const { held } = await late(/api.watchlist/, 2);"
        + CUT_OFF
        + "await page.reload(); const answer = await held;"
        + ACT
        + "await page.waitForFunction(() => document.querySelector('.row .last')?.textContent === '100.17');"
        + "await answer(); return page.textContent('.row .last')",
        act=arrive,
    )
    assert last == "100.17"


def test_a_late_answer_does_not_restore_an_old_candle(look: Look, database: Database[Document]) -> None:
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
        + "await answer(); return page.textContent('#legend')",
        act=lambda: stage(database, "AAPL", 17, first=next(prices)),
    )
    assert "110.16" in legend


def test_an_outage_of_days_leaves_no_gap_between_the_candles(look: Look, database: Database[Document]) -> None:
    """The newest candles that the page reads after an event do not reach back to the candles that it shows."""
    *missed, _ = last_sessions(NOW, 7)
    stage(database, "AAPL", 78, missed.pop(0).session_date)

    def act() -> None:
        for traded in missed:
            stage(database, "AAPL", 78, traded.session_date)

    candles = look(
        FOLLOWING
        + "const asked = page.waitForRequest(/api.bars.AAPL.*limit=600/), held = [];"
        + "const hold = (route) => { held.push(route); }; await page.route(/limit=240/, hold);"
        + ACT  # the page must not read a part of it
        + "await page.unroute(/limit=240/, hold); for (const route of held) await route.continue();"
        + "const shown = await (await (await asked).response()).json(); return shown.time.length;",
        act=act,
    )
    assert candles == 6 * 78


def test_new_candles_are_not_added_to_the_chart_of_the_previous_symbol(
    look: Look, database: Database[Document]
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


@pytest.mark.parametrize(
    ("late", "request_it"),
    [
        (
            "/api.bars.AAPL.*limit=600/",
            "await page.click('[data-symbol=MSFT]'); await page.click('[data-symbol=AAPL]');",
        ),
        ("/api.bars.AAPL.*limit=240/", ACT),
    ],
    ids=["of a chart that opens", "of an event"],
)
def test_late_candles_of_another_symbol_are_not_shown(
    look: Look, database: Database[Document], late: str, request_it: str
) -> None:
    """The reader has chosen MSFT before the candles of AAPL arrive."""
    stage(database, "AAPL", 17)
    stage(database, "MSFT", 17, first=200)
    shown = look(
        FOLLOWING
        + LATE
        + f"const {{ held }} = await late({late});"
        + request_it
        + "const answer = await held;"
        + "const chosen = await late(/api.bars.MSFT.*limit=600/);"
        + "await page.click('[data-symbol=MSFT]'); await (await chosen.held)();"
        + SHOWN % "MSFT 5min"
        + "await answer();"
        + "return [await page.getAttribute('#chart-panel', 'data-shown'), await page.textContent('#legend')]",
        act=lambda: stage(database, "AAPL", 18),
    )
    assert shown[0] == "MSFT 5min"
    assert "200.16" in shown[1]


def test_a_long_list_of_alerts_scrolls_in_its_panel_below_the_active_mutes(
    look: Look, database: Database[Document]
) -> None:
    stage(database, "AAPL", 18)
    for number in range(40):
        fire_alert(database, str(number))
    reason = "<b>earnings</b> week"
    Mutes(database).add("gap_5pct", ["AAPL", "TSLA"], datetime.now(UTC) + timedelta(hours=8), "ann", reason)
    Mutes(database).add(None, ["MSFT"], datetime.now(UTC) - timedelta(hours=8), "ann", None)
    shown = look(
        READY + "await page.waitForSelector('#mutes li');"
        "return page.evaluate(() => [document.documentElement.scrollHeight,"
        " document.querySelector('#alerts').scrollHeight > document.querySelector('#alerts').clientHeight,"
        " [...document.querySelectorAll('#mutes li')].map((line) => line.textContent)])",
        width=1440,
        height=900,
    )
    assert shown[:2] == [900, True]
    [mute] = shown[2]
    assert mute.startswith("Muted: gap_5pct for AAPL, TSLA until ")
    assert mute.endswith(f"ann: {reason}"), "as text, and only the active one"


def test_a_symbol_without_a_5_minute_bar_is_marked_stale(look_at_two: Look) -> None:
    texts = look_at_two(
        "await page.route(/api.watchlist/, async (route) => {"
        " const response = await route.fetch(), json = await response.json();"
        " for (const row of json.rows) Object.assign(row, { newest_bar: null, age_minutes: null, freshness: 'stale' });"
        " await route.fulfill({ response, json }); });"
        + "await page.reload();"
        + READY
        + "return [await page.textContent('#quote .stale-mark'), await page.textContent('.row .age')]"
    )
    assert texts == ["stale: no 5-minute bar", "stale"]


def test_the_arrow_keys_move_one_step_after_a_failed_start(
    browser_shot: BrowserShot, database: Database[Document], module_warehouse_dsn: str
) -> None:
    stage(database, "AAPL", 18)
    with served(database, module_warehouse_dsn) as url:
        seen = browser_shot(
            url,
            run="await page.clock.install();"
            "await page.route(/api.session/, (route) => route.fulfill({ status: 503, body: '{}' }), { times: 1 });"
            "await page.reload(); await page.waitForSelector('#banner:visible'); await page.clock.fastForward(3000);"
            + READY
            + "await page.focus('#interval [aria-checked=true]'); await page.keyboard.press('ArrowRight');"
            + "return page.getAttribute('#interval [aria-checked=true]', 'data-value')",
        )
    assert seen.value == "30min"
    assert ["503" in error for error in seen.errors] == [True]


def test_late_data_are_marked_stale(look: Look, database: Database[Document]) -> None:
    stage(database, "AAPL", 10)
    text = look(READY + "return await page.textContent('#quote') + await page.textContent('.row .age')")
    assert "stale: newest bar" in text
    assert "stale 40 min" in text


def test_a_closed_market_is_marked_closed(look: Look, database: Database[Document]) -> None:
    stage(database, "AAPL", 78)
    text = look(READY + "return page.textContent('#market')", now=NOW + timedelta(hours=8))
    assert "Market closed" in text


def test_without_data_the_page_names_the_command_to_run(look: Look) -> None:
    assert "barflow demo" in look("await page.waitForSelector('#empty:visible'); return page.textContent('#empty')")


@pytest.mark.parametrize("width", [390, 1440])
def test_the_last_backtests_are_listed_in_their_tab_as_text(
    look: Look, database: Database[Document], width: int
) -> None:
    stage(database, "AAPL", 18)

    def act() -> None:
        for minutes, rule in ((0, "older"), (1, HOSTILE)):
            Backtests(database).add(summary(minutes, rule=rule, note=HOSTILE))

    tab = "await page.click('#side [data-value=%s]');"
    none, shown = look(
        READY
        + (tab % "backtests" + "const none = await (await page.waitForSelector('#backtests .none')).innerText();")
        + ACT
        + (tab % "alerts" + "await page.waitForSelector('#alerts:visible');")
        + (tab % "backtests" + "await page.waitForSelector('#backtests table:visible');")
        + "return [none, await page.evaluate(() => ({"
        " width: document.documentElement.scrollWidth,"
        " periods: [...document.querySelectorAll('#backtests summary')].map((item) => item.innerText),"
        " rows: [...document.querySelector('#backtests tbody').rows].map((row) => row.innerText.split(/\\s*[\\t\\n]/)),"
        " commands: [...document.querySelectorAll('#backtests .command')].map((item) => item.textContent),"
        " note: document.querySelector('#backtests li').textContent,"
        " images: document.querySelectorAll('#backtests img').length,"
        " alerts: document.querySelector('#alerts').hidden }))]",
        act=act,
        width=width,
        height=900,
    )
    assert none == "No backtest yet. Run one on the archive: barflow alerts backtest"
    assert shown["width"] == width
    made = "27 Jun 2025 to 30 Jul 2025\n2 symbols, 22 sessions; run 31 Jul, 08:0"
    assert shown["periods"] == [f"{made}1", f"{made}0"]
    assert shown["rows"] == [
        [HOSTILE, "40", "38.2", "+1.23 %", "−0.04 %", "52 %", "50 %"],
        ["never", "0", "0.0", "–", "–", "–", "–"],
    ]
    assert shown["commands"] == [f"barflow alerts backtest --rule {rule}" for rule in (HOSTILE, "older")]
    assert (shown["note"], shown["images"], shown["alerts"]) == (HOSTILE, 0, True)
