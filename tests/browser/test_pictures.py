"""The documentation's picture of the analysts' page: a synthetic market in the middle of a session, after a split."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from browsing import BrowserShot
from pages import READY

from barflow.market.sessions import BAR, last_sessions, utc_now
from barflow.pipeline import actions
from barflow.pipeline.children import run_script
from barflow.pipeline.ingest import open_ingest
from barflow.warehouse.migrations import migrate
from dashboard.commands import page_of
from emulators.twelvedata.actions import ScriptedSplit
from emulators.twelvedata.script import MarketScript
from local.embedded import embedded
from local.live import LiveClock
from local.state import State

pytestmark = pytest.mark.minutes
SYMBOLS = ("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA")


def test_picture_of_a_session_with_candles_markers_and_alerts(
    browser_shot: BrowserShot, picture: Callable[[str], Path]
) -> None:
    before, today, _ = last_sessions(utc_now(), 3)
    clock = LiveClock(before.closes + timedelta(minutes=40))
    with tempfile.TemporaryDirectory(prefix="barflow-picture-", ignore_cleanup_errors=True) as folder:
        script = MarketScript({"NVDA": [ScriptedSplit(today.session_date, 10)]})
        state = State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None, script=script)
        with embedded(state, print, api=True, clock=clock, symbols=SYMBOLS) as stores:
            migrate(stores.warehouse_dsn)
            ingest = open_ingest(stores, print)
            ingest.tick(SYMBOLS)
            actions.refresh(stores, SYMBOLS, print, lambda _: None)
            run_script(stores, "spark/bars_to_parquet.py", print)
            run_script(stores, "glue/aggregate_bars.py", print)
            until = min(today.opens + timedelta(hours=4), today.closes - BAR)  # a half day closes before
            for moment in clock.moments(until):
                clock.now = moment
                ingest.tick(SYMBOLS)
            fired = stores.alerts.outbox.find(None, None)
            with page_of(stores) as url:
                seen = browser_shot(
                    url,
                    run=READY
                    + "await page.waitForSelector('#health table'); await page.click('[data-symbol=NVDA]');"
                    + "await page.waitForSelector('[data-shown=\"NVDA 5min\"]'); await page.mouse.move(0, 0);"
                    + "await page.evaluate(() => new Promise((drawn) => "
                    + "requestAnimationFrame(() => setTimeout(drawn))));"
                    + "return await page.evaluate(() => [document.querySelectorAll('.row').length,"
                    " document.querySelectorAll('#alerts li').length, document.querySelector('#market').textContent,"
                    " [...document.querySelectorAll('#actions button:not([hidden])')].map((mark) => mark.ariaLabel)])",
                    screenshot=picture("dashboard.png"),
                    width=1440,
                )
    rows, alerts, market, marks = seen.value
    assert rows == len(SYMBOLS)
    assert alerts == len(fired) > 0
    assert "Market open" in market
    assert [mark.split(",")[0] for mark in marks] == ["10-for-1 split"]
    assert (seen.errors, seen.outside) == ([], [])
