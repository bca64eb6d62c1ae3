"""A live replay of a recording shows its candles and its alert on an open page, without a reload."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from browsing import BrowserShot
from pages import ACT, FOLLOWING, NOW
from pymongo.database import Database

from barflow.alerts.rules_file import load_rules
from barflow.market.recordings import Recording
from barflow.market.sessions import last_sessions, new_york
from barflow.pipeline import ingest
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.staging.connection import Document
from dashboard.app import create_app
from dashboard.server import serving
from emulators.twelvedata.server import TwelveDataEmulator
from local.embedded import EMULATOR_CREDITS
from local.live import LiveClock, keep_ticking, live_start


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """Seven sessions of TSLA at one price; the last one opens 8 % lower."""
    lines = ["datetime,open,high,low,close,volume,symbol"]
    sessions = last_sessions(NOW, 7)
    for traded in sessions:
        price = 92 if traded is sessions[-1] else 100
        lines += [f"{new_york(ts):%Y-%m-%d %H:%M:%S},{price},{price},{price},{price},1000,TSLA" for ts in traded.slots]
    (tmp_path / "bars.csv").write_text("\n".join(lines))
    return Recording.load(tmp_path / "bars.csv")


def test_the_alert_of_a_recorded_gap_appears_on_an_open_page(
    recording: Recording,
    browser_shot: BrowserShot,
    database: Database[Document],
    mongodb_uri: str,
    module_warehouse_dsn: str,
) -> None:
    assert recording.as_of is not None
    clock = LiveClock(live_start(recording, ["TSLA"], load_rules(None), recording.as_of))
    with TwelveDataEmulator(recording, clock=clock, api_key="emulator-key") as market:
        found = {"twelvedata_url": market.url, "twelvedata_api_key": "emulator-key", **EMULATOR_CREDITS}
        settings = load_settings(mongodb_uri=mongodb_uri, mongodb_database=database.name, history_sessions=3, **found)
        stores = Stores(settings, clock)
        ingest.run(stores, ["TSLA"], print)
        ticking = threading.Thread(target=tick_into_the_gap, args=[stores, clock])
        app = create_app(database, module_warehouse_dsn, clock=clock, poll_seconds=0.1)
        app.add_api_route("/act", ticking.start, include_in_schema=False)
        with serving(app, "127.0.0.1", 0) as server:
            assert app.state.live.wait(20)
            seen = browser_shot(
                server.url,
                run=FOLLOWING
                + "const quote = () => document.querySelector('#quote b').textContent;"
                + "const before = await page.evaluate(quote); await page.evaluate(() => { window.same = true });"
                + ACT
                + "await page.waitForSelector('#alerts li.new'); await page.waitForFunction("
                + "() => document.querySelector('#legend').textContent.includes('C92.00'));"
                + "return [before, await page.evaluate(quote), await page.evaluate(() => window.same),"
                + " await page.textContent('#alerts li.new')]",
            )
            ticking.join()
    assert (seen.errors, seen.outside) == ([], [])
    before, after, same, alert = seen.value
    assert (before, after, same) == ("100.00", "92.00", True)
    assert "gap_5pct" in alert
    assert "8.00 % below the previous close of 100.00" in alert


def tick_into_the_gap(stores: Stores, clock: LiveClock) -> None:
    """Tick every 100 ms, until a few bars of the last session are stored. Nothing is loaded at the close."""
    end = last_sessions(NOW, 1)[0].slots[4]
    tick = ingest.open_ingest(stores, print).tick
    keep_ticking(tick, clock, ["TSLA"], end=end, speed=3000, at_close=lambda: None, log=print)
