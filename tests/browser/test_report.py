"""The demo's page shows what the warehouse holds, to everyone, and talks to nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from browsing import BrowserShot
from report_rows import HOSTILE, METRICS, NOW, hourly, insert, outcome, status

from barflow.market.sessions import new_york
from local.report.page import read_report_data, write_report

AAPL, NVDA = hourly("AAPL", 20, 210.0), hourly("NVDA", 8, 160.0)
NVDA = NVDA[:9] + NVDA[11:]  # two hours are missing on its second day
STRANGE = hourly(HOSTILE, 2, 0.5 + 3)
ASKED = {
    "NVDA": {"received": 1602, "stored": 24, "revised": 3, "unchanged": 1570, "rejected": 4, "forming": 1},
    "AAPL": {"received": 1530, "stored": 1530},
}
Written = Callable[..., Path]


@pytest.fixture(scope="module")
def filled_dsn(warehouse_dsn: str) -> str:
    """The warehouse with three symbols, of which only AAPL and NVDA have metrics."""
    insert(warehouse_dsn, AAPL, METRICS)
    insert(warehouse_dsn, NVDA, METRICS | {"close": 161.0, "return_1d": None, "prev_close": None})
    insert(warehouse_dsn, STRANGE)
    return warehouse_dsn


@pytest.fixture(scope="module")
def written(filled_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Writes a page of what is in the warehouse; changes go into its data."""

    def write(*, balanced: bool = True, source: dict[str, Any] | None = None, **changes: Any) -> Path:
        found = {"AAPL": status("AAPL", AAPL), "NVDA": status("NVDA", NVDA), HOSTILE: status(HOSTILE, STRANGE)}
        for symbol, changed in changes.items():
            found[symbol] = status(symbol, {"AAPL": AAPL, "NVDA": NVDA}[symbol], **changed)
        result = outcome(ASKED, balanced=balanced)
        page = tmp_path_factory.mktemp("report") / "report.html"
        write_report(page, read_report_data(filled_dsn, result, found, NOW, source or {"kind": "synthetic"}))
        return page

    return write


@pytest.fixture(scope="module")
def page(written: Written) -> Path:
    return written()


def ask(expression: str) -> str:
    return f"return page.evaluate(() => {expression})"


def articles(expression: str) -> str:
    """Asks for one value a symbol, by the symbol's heading."""
    pair = f"[article.querySelector('h3').textContent, {expression}]"
    return ask(f"Object.fromEntries([...document.querySelectorAll('article')].map((article) => {pair}))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_complains_of_nothing_asks_for_nothing_and_fits(
    browser_shot: BrowserShot, page: Path, width: int, scheme: str
) -> None:
    seen = browser_shot(
        page, until="networkidle", width=width, scheme=scheme, run=ask("document.documentElement.scrollWidth")
    )
    assert (seen.errors, seen.outside) == ([], [])
    assert seen.value == width


def test_every_hourly_row_is_one_candle(browser_shot: BrowserShot, page: Path, filled_dsn: str) -> None:
    with psycopg.connect(filled_dsn) as connection:
        rows = connection.execute("select symbol, count(*) from market.bar_1h group by symbol").fetchall()
    assert browser_shot(page, run=articles("article.querySelectorAll('.candles path').length")).value == dict(rows)


def test_hollow_candles_rose_and_filled_ones_fell(browser_shot: BrowserShot, page: Path) -> None:
    fills = "new Set([...document.querySelectorAll('.candles .%s path')].map((path) => getComputedStyle(path).fill))"
    up, down, paper = browser_shot(
        page,
        run=ask(
            f"[[...{fills % 'up'}], [...{fills % 'down'}], getComputedStyle(document.documentElement).backgroundColor]"
        ),
    ).value
    assert up == [paper]
    assert len(down) == 1
    assert down != up
    seen = browser_shot(page, run=articles("article.querySelectorAll('.candles .up path').length"))
    assert seen.value["AAPL"] == sum(candle.close >= candle.open for candle in AAPL)


def test_metrics_are_the_databases_numbers(browser_shot: BrowserShot, page: Path, filled_dsn: str) -> None:
    with psycopg.connect(filled_dsn) as connection:
        cursor = connection.execute("select * from market.daily_metrics where symbol = 'AAPL'")
        assert cursor.description
        row = dict(zip([column.name for column in cursor.description], cursor.fetchone() or (), strict=True))
    every = "[...article.querySelectorAll('data[data-metric]')]"
    seen = browser_shot(page, run=articles(f"{every}.map((data) => [data.dataset.metric, Number(data.value)])"))
    exact = dict(seen.value["AAPL"])
    assert exact == {name: row[name] for name in METRICS if name != "close" and row[name] is not None}


def test_metrics_read_in_their_units_and_say_what_a_missing_one_needs(browser_shot: BrowserShot, page: Path) -> None:
    every = "[...article.querySelectorAll('[data-metric]')]"
    seen = browser_shot(page, run=articles(f"{every}.map((shown) => [shown.dataset.metric, shown.textContent])"))
    assert dict(seen.value["AAPL"]) == {
        "prev_close": "210.00",
        "return_1d": "−1.23\u00a0%",
        "gap_open": "+0.99\u00a0%",
        "range_pct": "2.34\u00a0%",
        "sma_5": "1,234.57",
        "sma_20": "209.50",
        "sma_50": "needs 50 sessions",
        "rsi_14": "54.3",
        "realized_vol": "1.10\u00a0%",
        "volatility_20": "needs 21 sessions",
        "atr_14": "0.9877",
        "volume_ratio_20": "1.23×",
    }
    assert dict(seen.value["NVDA"])["return_1d"] == "needs 2 sessions"
    assert seen.value[HOSTILE] == []


def test_the_reconciliation_shows_each_count_of_the_run_and_of_every_hop(browser_shot: BrowserShot, page: Path) -> None:
    cells = "[...row.cells].map((cell) => cell.innerText.trim())"
    rows = f"[...document.querySelectorAll('.ledger tbody tr')].map((row) => {cells})"
    aapl, nvda = (f"{sum(candle.bar_count for candle in bars):,}" for bars in (AAPL, NVDA))
    strange = str(sum(candle.bar_count for candle in STRANGE))
    assert browser_shot(page, run=ask(rows)).value == [
        ["NVDA", "1,602", "24", "3", "1,570", "4", "1", "8", nvda, nvda, nvda, "balanced"],
        ["AAPL", "1,530", "1,530", "0", "0", "0", "0", "20", aapl, aapl, aapl, "balanced"],
        [HOSTILE, "not fetched in this run", "2", strange, strange, strange, "balanced"],
    ]


def test_a_hostile_symbol_is_text_and_nothing_else(browser_shot: BrowserShot, written: Written) -> None:
    hostile = written(
        balanced=False,
        source={"kind": "replay", "path": f"/somewhere/{HOSTILE}.csv".replace("</", "<")},
        AAPL={"broken": [HOSTILE], "gaps": [HOSTILE], "missing_bars": 1},
    )
    seen = browser_shot(
        hostile,
        run=ask(
            "[document.querySelectorAll('img').length, [...document.querySelectorAll('h3')].at(-1).textContent,"
            " document.querySelector('.differences .broken').lastChild.textContent.trim()]"
        ),
    )
    assert (seen.errors, seen.outside) == ([], [])
    assert seen.value == [0, HOSTILE, HOSTILE]


def test_whether_it_balances_is_the_first_thing_said(browser_shot: BrowserShot, page: Path, written: Written) -> None:
    said = ask("['h1', '.lede .state'].map((part) => document.querySelector(part).innerText)")
    assert browser_shot(page, run=said).value == ["Every bar is accounted for", "balanced"]
    broken = written(
        balanced=False, AAPL={"broken": ["2025-07-16: 78 bars staged, parquet 77"], "parquet": 1}, NVDA={"pending": 2}
    )
    assert browser_shot(broken, run=said).value == ["Not every bar is accounted for", "not balanced"]
    results = "[...document.querySelectorAll('.ledger .result, .differences li')].map((item) => item.innerText.trim())"
    assert browser_shot(broken, run=ask(results)).value == [
        "pending",
        "not balanced",
        "balanced",
        "NVDA 2 sessions waiting for the next barflow process and barflow aggregate",
        "AAPL 2025-07-16: 78 bars staged, parquet 77",
    ]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "synthetic"}, "Synthetic bars, not the market."),
        ({"kind": "replay", "path": "/somewhere/july.csv"}, "Recorded bars. Replayed from july.csv,"),
        ({"kind": "live"}, "Bars from Twelve Data."),
    ],
)
def test_the_page_says_where_its_bars_come_from_and_as_of_when(
    browser_shot: BrowserShot, written: Written, source: dict[str, str], said: str
) -> None:
    parts = "['.notice', '.lede', 'figcaption .what'].map((part) => document.querySelector(part).innerText)"
    notice, lede, caption = browser_shot(written(source=source), run=ask(parts)).value
    assert notice.startswith(said)
    assert "Thursday, July 17, 2025, 16:30 EDT" in lede
    assert ("synthetic" in caption) == (source["kind"] == "synthetic")


def test_a_chart_says_when_it_shows_the_newest_sessions_only(browser_shot: BrowserShot, written: Written) -> None:
    captions = browser_shot(
        written(AAPL={"sessions": 1200}), run=articles("article.querySelector('figcaption .what').innerText")
    ).value
    assert captions["AAPL"] == "Hourly bars, synthetic, newest 20 of 1,200 sessions"
    assert captions["NVDA"] == "Hourly bars, synthetic"


READ = "return [await page.innerText('.readout'), await page.getAttribute('.band', 'visibility')]"


@pytest.mark.parametrize(("slot", "index"), [(8.5, 8), (9.4, 8), (10.6, 9), (14.5, 12)])
def test_the_pointer_reads_the_bar_nearest_to_it_in_new_yorks_time(
    browser_shot: BrowserShot, page: Path, slot: float, index: int
) -> None:
    # NVDA comes first, and its slots 9 and 10 are empty. The browser's own clock is Tokyo's.
    at = f"""const {{ width }} = await page.locator(".canvas").first().boundingBox();
             const slots = Number(await page.getAttribute("figure", "data-slots"));
             await page.locator(".plot").first().hover({{ position: {{ x: width * {slot} / slots, y: 40 }} }});"""
    text, band = browser_shot(page, run=at + READ).value
    bar = NVDA[index]
    opened = new_york(bar.bar_start)
    assert text.startswith(f"{opened:%a, %b} {opened.day}, {opened:%H:%M}")
    for value in (bar.open, bar.high, bar.low, bar.close):
        assert f"{value:.2f}" in text
    assert f"{bar.volume:,}" in text
    assert band == "visible"


def test_the_keyboard_reads_the_bars_too(browser_shot: BrowserShot, page: Path) -> None:
    keys = """await page.locator("article input").first().focus();
              for (let step = 0; step < 3; step += 1) await page.keyboard.press("ArrowLeft");
              return page.getAttribute("article input", "aria-valuetext");"""
    told = browser_shot(page, run=keys).value
    bar = NVDA[-4]
    assert "12:30" in told
    assert f"Close {bar.close:.2f}" in told


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper(browser_shot: BrowserShot, page: Path, scheme: str) -> None:
    """Contrast of at least 4.5 to 1: WCAG 2.2, success criterion 1.4.3."""
    contrast = """(() => {
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
          .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const paper = light(getComputedStyle(document.documentElement).backgroundColor);
      const ratio = (ink) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
      return Object.fromEntries(["h1", ".lede", ".meaning", ".price .down", "td .state", ".overview a"].map((part) =>
        [part, ratio(light(getComputedStyle(document.querySelector(part)).color))]));
    })()"""
    found = browser_shot(page, scheme=scheme, run=ask(contrast)).value
    assert {part: ratio for part, ratio in found.items() if ratio < 4.5} == {}
