"""The report's file is complete, below 3 MB and self-contained."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from barflow.errors import BarflowError
from barflow.market.actions import Split, factors
from barflow.market.bars import PRICES
from barflow.market.sessions import last_sessions
from barflow.pipeline.status import SymbolStatus
from local.report.chart import Candle, adjusted, draw
from local.report.page import MOST_BARS, MOST_SESSIONS, Report, SymbolReport, render, write_report
from local.report.words import METRICS, describe_source
from local.synthetic import SyntheticBars

NOW = datetime(2025, 11, 21, 21, 30, tzinfo=UTC)
FUTURE = NOW.date() + timedelta(days=3)


def hourly(symbol: str, sessions: int) -> list[Candle]:
    """Return synthetic hourly bars, made from the first 5-minute bar of each hour."""
    market, hour = SyntheticBars(), timedelta(hours=1)
    made = []
    for traded in last_sessions(NOW, sessions):
        for start, *prices, volume in market.rows(symbol, traded.opens, traded.closes)[::12]:
            expected = min(hour, traded.closes - start) // timedelta(minutes=5)
            open_, high, low, close = map(float, prices)
            day = traded.session_date
            made.append(Candle(symbol, start, day, open_, high, low, close, 12 * int(volume), expected, expected))
    return made


def report(symbols: int, sessions: int) -> Report:
    charts = {f"SYM{n}": draw(hourly(f"SYM{n}", sessions)) for n in range(symbols)}
    metrics = {"close": 123.456789, "session_date": NOW.date()} | {metric.name: 0.1234567890123 for metric in METRICS}
    parts = (SymbolReport(name, SymbolStatus(name), {}, chart, metrics, False) for name, chart in charts.items())
    return Report(NOW, describe_source({"kind": "synthetic"}), True, {}, tuple(parts), sessions)


@pytest.fixture(scope="module")
def small() -> Report:
    return report(1, 2)


def test_fifty_symbols_of_sixty_sessions_stay_under_three_megabytes() -> None:
    assert MOST_BARS >= 50 * MOST_SESSIONS * 7
    few = len(render(report(1, MOST_SESSIONS)).encode())
    more = len(render(report(6, MOST_SESSIONS)).encode())
    assert few + (more - few) / 5 * 49 < 3e6


def test_the_page_has_no_address_and_allows_only_its_own_script_and_style(small: Report) -> None:
    text = render(small)
    assert re.findall(r"https?:|[\"'(=]//|url\(|@import|\bsrc=|<link(?! rel=\"icon\" href=\"data:,\")", text) == []
    policy = re.findall(r'content="(default-src [^"]*)"', text)[0].replace("&#39;", "'")
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'sha256-[\w+/]{43}='; script-src 'sha256-[\w+/]{43}='", policy
    )
    assert not re.search(r"\sstyle=|\son\w+=", text)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Limit the size of files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_earlier_page_and_leaves_no_other_file(small: Report, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(page, small)
    before = page.read_text()
    with (
        files_no_larger_than(1000),
        pytest.raises(BarflowError, match=r"report\.html could not be written: .*too large"),
    ):
        write_report(page, replace(small, balanced=False))
    assert page.read_text() == before
    assert list(tmp_path.iterdir()) == [page]


def test_a_missing_folder_is_one_clear_error(small: Report, tmp_path: Path) -> None:
    with pytest.raises(BarflowError, match=r"No such file or directory.*then run the demo again"):
        write_report(tmp_path / "gone" / "report.html", small)


def test_a_page_replaces_the_earlier_one(small: Report, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("an earlier page")
    write_report(page, small)
    assert page.read_text() == render(small)


def test_a_chart_is_adjusted_for_a_split_and_marks_it() -> None:
    plain = hourly("NVDA", 6)
    ex_date = last_sessions(NOW, 3)[0].session_date
    known = NOW - timedelta(days=1)
    raw = [
        replace(bar, **{name: getattr(bar, name) * 10 for name in PRICES}, volume=bar.volume // 10)
        if bar.session_date < ex_date
        else bar
        for bar in plain
    ]
    splits = [Split("NVDA", day, ratio, "endpoint", known) for day, ratio in ((ex_date, 10.0), (FUTURE, 2.0))]
    chart = draw(adjusted(raw, factors(splits, "splits", NOW.date(), lambda _: None)), splits)
    unsplit = draw(plain)
    assert (chart.candles, chart.spark, chart.price_ticks) == (unsplit.candles, unsplit.spark, unsplit.price_ticks)
    assert chart.bars["v"] == [round(bar.volume * (10 if bar.session_date < ex_date else 1)) for bar in raw]
    first = next(number for number, bar in enumerate(plain) if bar.session_date == ex_date)
    assert [(round(mark.x), mark.label) for mark in chart.splits] == [(round(first / 42 * 100), "10-for-1 split")]
    assert chart.description.endswith(f" 10-for-1 split on {ex_date}.")

    part = SymbolReport("NVDA", SymbolStatus("NVDA"), {}, chart, None, False, adjusted=True)
    text = render(Report(NOW, describe_source({"kind": "synthetic"}), True, {}, (part,), 6))
    assert "Hourly bars, synthetic, adjusted for splits" in text
    assert text.count(">10-for-1 split</text>") == 1
    assert "adjusted for splits" not in render(Report(NOW, describe_source({"kind": "synthetic"}), True, {}, (), 6))
