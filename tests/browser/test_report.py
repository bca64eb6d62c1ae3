"""The demo's report shows what the warehouse holds, on every screen, and sends no request."""

from __future__ import annotations

import json
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
STRANGE = hourly(HOSTILE, 2, 3.5)
COUNTS = {
    "NVDA": {"received": 1602, "stored": 24, "revised": 3, "unchanged": 1570, "rejected": 4, "forming": 1},
    "AAPL": {"received": 1530, "stored": 1530},
}
Write = Callable[..., Path]
HEADLINE = "['h1', '.lede .state'].map((part) => document.querySelector(part).innerText)"


@pytest.fixture(scope="module")
def filled_dsn(module_warehouse_dsn: str) -> str:
    """The warehouse with three symbols. Only AAPL and NVDA have metrics."""
    insert(module_warehouse_dsn, AAPL, METRICS)
    insert(module_warehouse_dsn, NVDA, METRICS | {"close": 161.0, "return_1d": None, "prev_close": None})
    insert(module_warehouse_dsn, STRANGE)
    return module_warehouse_dsn


@pytest.fixture(scope="module")
def write(filled_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """``write(AAPL={"pending": 2})``: a report on the warehouse, with these changes of a symbol's status."""

    def write_page(*, balanced: bool = True, source: dict[str, Any] | None = None, **changes: Any) -> Path:
        found = {"AAPL": status("AAPL", AAPL), "NVDA": status("NVDA", NVDA), HOSTILE: status(HOSTILE, STRANGE)}
        for symbol, changed in changes.items():
            found[symbol] = status(symbol, {"AAPL": AAPL, "NVDA": NVDA}[symbol], **changed)
        result = outcome(COUNTS, balanced=balanced)
        page = tmp_path_factory.mktemp("report") / "report.html"
        write_report(page, read_report_data(filled_dsn, result, found, NOW, source or {"kind": "synthetic"}, {}))
        return page

    return write_page


@pytest.fixture(scope="module")
def page(write: Write) -> Path:
    """The report on a balanced run."""
    return write()


@pytest.fixture(scope="module")
def shown(browser_shot: BrowserShot, page: Path) -> dict[str, Any]:
    """What the balanced report shows, read from the page at once."""
    fills = (
        "[...new Set([...document.querySelectorAll('.candles .%s path')].map((path) => getComputedStyle(path).fill))]"
    )
    metrics = "[...article.querySelectorAll('%s')].map((found) => [found.dataset.metric, %s])"
    expressions = {
        "headline": HEADLINE,
        "candles": by_symbol("article.querySelectorAll('.candles path').length"),
        "rising candles": by_symbol("article.querySelectorAll('.candles .up path').length"),
        "rising fills": fills % "up",
        "falling fills": fills % "down",
        "background": "getComputedStyle(document.documentElement).backgroundColor",
        "metric values": by_symbol(metrics % ("data[data-metric]", "Number(found.value)")),
        "metric texts": by_symbol(metrics % ("[data-metric]", "found.textContent")),
        "reconciliation": "[...document.querySelectorAll('.ledger tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText.trim()))",
    }
    pairs = ", ".join(f"{json.dumps(name)}: {expression}" for name, expression in expressions.items())
    found: dict[str, Any] = browser_shot(page, run=evaluate(f"({{{pairs}}})")).value
    return found


def evaluate(expression: str) -> str:
    """Return a script that evaluates an expression on the page."""
    return f"return page.evaluate(() => {expression})"


def by_symbol(expression: str) -> str:
    """Return an expression with one value per symbol. ``article`` is the symbol's part of the page."""
    pair = f"[article.querySelector('h3').textContent, {expression}]"
    return f"Object.fromEntries([...document.querySelectorAll('article')].map((article) => {pair}))"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_logs_no_error_sends_no_request_and_fits_the_screen(
    browser_shot: BrowserShot, page: Path, scheme: str
) -> None:
    widths = [320, 390, 1280]
    measure = f"""const found = [];
        for (const width of {widths}) {{
          await page.setViewportSize({{ width, height: 900 }});
          found.push(await page.evaluate(() => document.documentElement.scrollWidth));
        }}
        return found"""
    seen = browser_shot(page, until="networkidle", width=widths[0], scheme=scheme, run=measure)
    assert (seen.errors, seen.outside) == ([], [])
    assert seen.value == widths


def test_every_hourly_row_is_one_candle(shown: dict[str, Any], filled_dsn: str) -> None:
    with psycopg.connect(filled_dsn) as connection:
        rows = connection.execute("select symbol, count(*) from market.bar_1h group by symbol").fetchall()
    assert shown["candles"] == dict(rows)


def test_rising_candles_are_hollow_and_falling_ones_filled(shown: dict[str, Any]) -> None:
    assert shown["rising fills"] == [shown["background"]]
    assert len(shown["falling fills"]) == 1
    assert shown["falling fills"] != shown["rising fills"]
    assert shown["rising candles"]["AAPL"] == sum(candle.close >= candle.open for candle in AAPL)


def test_metrics_equal_those_of_the_database(shown: dict[str, Any], filled_dsn: str) -> None:
    with psycopg.connect(filled_dsn) as connection:
        cursor = connection.execute("select * from market.daily_metrics where symbol = 'AAPL'")
        assert cursor.description
        row = dict(zip([column.name for column in cursor.description], cursor.fetchone() or (), strict=True))
    exact = dict(shown["metric values"]["AAPL"])
    assert exact == {name: row[name] for name in METRICS if name != "close" and row[name] is not None}


def test_metrics_are_shown_in_their_units_and_a_missing_one_names_the_sessions_that_it_needs(
    shown: dict[str, Any],
) -> None:
    texts = shown["metric texts"]
    assert dict(texts["AAPL"]) == {
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
    assert dict(texts["NVDA"])["return_1d"] == "needs 2 sessions"
    assert texts[HOSTILE] == []


def test_the_reconciliation_shows_the_counts_of_the_run_and_of_every_hop(shown: dict[str, Any]) -> None:
    aapl, nvda = (f"{sum(candle.bar_count for candle in bars):,}" for bars in (AAPL, NVDA))
    strange = str(sum(candle.bar_count for candle in STRANGE))
    assert shown["reconciliation"] == [
        ["NVDA", "1,602", "24", "3", "1,570", "4", "1", "8", nvda, nvda, nvda, "balanced"],
        ["AAPL", "1,530", "1,530", "0", "0", "0", "0", "20", aapl, aapl, aapl, "balanced"],
        [HOSTILE, "not fetched in this run", "2", strange, strange, strange, "balanced"],
    ]


def test_a_hostile_symbol_is_shown_as_text(browser_shot: BrowserShot, write: Write) -> None:
    hostile = write(
        balanced=False,
        source={"kind": "replay", "path": f"/somewhere/{HOSTILE}.csv".replace("</", "<")},
        AAPL={"broken": [HOSTILE], "gaps": [HOSTILE], "missing_bars": 1},
    )
    seen = browser_shot(
        hostile,
        run=evaluate(
            "[document.querySelectorAll('img').length, [...document.querySelectorAll('h3')].at(-1).textContent,"
            " document.querySelector('.differences .broken').lastChild.textContent.trim()]"
        ),
    )
    assert (seen.errors, seen.outside) == ([], [])
    assert seen.value == [0, HOSTILE, HOSTILE]


def test_the_headline_says_whether_the_run_balances(
    browser_shot: BrowserShot, shown: dict[str, Any], write: Write
) -> None:
    assert shown["headline"] == ["Every bar is accounted for", "balanced"]
    broken = write(
        balanced=False, AAPL={"broken": ["2025-07-16: 78 bars staged, parquet 77"], "parquet": 1}, NVDA={"pending": 2}
    )
    results = "[...document.querySelectorAll('.ledger .result, .differences li')].map((item) => item.innerText.trim())"
    assert browser_shot(broken, run=evaluate(f"[{HEADLINE}, {results}]")).value == [
        ["Not every bar is accounted for", "not balanced"],
        [
            "pending",
            "not balanced",
            "balanced",
            "NVDA 2 sessions waiting for the next barflow process and barflow aggregate",
            "AAPL 2025-07-16: 78 bars staged, parquet 77",
        ],
    ]


@pytest.mark.parametrize(
    ("source", "notice"),
    [
        ({"kind": "synthetic"}, "Synthetic bars, not the market."),
        ({"kind": "replay", "path": "/somewhere/july.csv"}, "Recorded bars. Replayed from july.csv,"),
        ({"kind": "live"}, "Bars from Twelve Data."),
    ],
)
def test_the_page_names_the_source_of_its_bars_and_their_time(
    browser_shot: BrowserShot, write: Write, source: dict[str, str], notice: str
) -> None:
    parts = "['.notice', '.lede', 'figcaption .what'].map((part) => document.querySelector(part).innerText)"
    shown, lede, caption = browser_shot(write(source=source), run=evaluate(parts)).value
    assert shown.startswith(notice)
    assert "Thursday, July 17, 2025, 16:30 EDT" in lede
    assert ("synthetic" in caption) == (source["kind"] == "synthetic")


def test_the_caption_of_a_chart_says_that_it_shows_the_newest_sessions_only(
    browser_shot: BrowserShot, write: Write
) -> None:
    caption = by_symbol("article.querySelector('figcaption .what').innerText")
    captions = browser_shot(write(AAPL={"sessions": 1200}), run=evaluate(caption)).value
    assert captions["AAPL"] == "Hourly bars, synthetic, newest 20 of 1,200 sessions"
    assert captions["NVDA"] == "Hourly bars, synthetic"


READ = "return [await page.innerText('.readout'), await page.getAttribute('.band', 'visibility')]"


@pytest.mark.parametrize(("slot", "index"), [(8.5, 8), (9.4, 8), (10.6, 9), (14.5, 12)])
def test_the_pointer_shows_the_nearest_bar_in_new_york_time(
    browser_shot: BrowserShot, page: Path, slot: float, index: int
) -> None:
    # NVDA comes first, and its slots 9 and 10 are empty. The browser's own time zone is Tokyo.
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


def test_the_arrow_keys_show_the_bars_too(browser_shot: BrowserShot, page: Path) -> None:
    keys = """await page.locator("article input").first().focus();
              for (let step = 0; step < 3; step += 1) await page.keyboard.press("ArrowLeft");
              return page.getAttribute("article input", "aria-valuetext");"""
    text = browser_shot(page, run=keys).value
    bar = NVDA[-4]
    assert "12:30" in text
    assert f"Close {bar.close:.2f}" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_text_has_enough_contrast(browser_shot: BrowserShot, page: Path, scheme: str) -> None:
    """Contrast of at least 4.5 to 1: WCAG 2.2, success criterion 1.4.3."""
    contrast = """(() => {
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
          .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const background = light(getComputedStyle(document.documentElement).backgroundColor);
      const ratio = (ink) => (Math.max(ink, background) + 0.05) / (Math.min(ink, background) + 0.05);
      return Object.fromEntries(["h1", ".lede", ".meaning", ".price .down", "td .state", ".overview a"].map((part) =>
        [part, ratio(light(getComputedStyle(document.querySelector(part)).color))]));
    })()"""
    found = browser_shot(page, scheme=scheme, run=evaluate(contrast)).value
    assert {part: ratio for part, ratio in found.items() if ratio < 4.5} == {}
