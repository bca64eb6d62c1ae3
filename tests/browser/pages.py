"""What do the tests of the analysts' page put into its stores, and when is it?"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from pymongo.database import Database

from barflow.market.bars import SessionBars
from barflow.market.sessions import last_sessions, session
from barflow.staging.connection import Document
from barflow.staging.sessions import Staging

NOW = datetime(2025, 7, 17, 15, 0, tzinfo=UTC)
READY = "await page.waitForSelector('#chart-panel[data-shown]');"
# It listens to the events, and has read everything once more since (health comes last): what follows is news to it.
FOLLOWING = READY + (
    "await page.waitForFunction(() => performance.getEntriesByType('resource')"
    ".filter(({ name }) => name.endsWith('/api/health')).length > 1);"
)
# `(await late(url, n)).held` comes to a function that gives the n-th answer, which the server gives at once.
LATE = (
    "const late = async (url, nth = 1) => { let count = 0, hold; const held = new Promise((done) => { hold = done; });"
    " await page.route(url, async (route) => { if (++count !== nth) return route.continue();"
    " const response = await route.fetch(); hold(() => route.fulfill({ response })); }); return { held }; };"
)
ACT = "await page.evaluate(() => fetch('/act'));"  # what a test has happen while the page is open


def stage(database: Database[Document], symbol: str, bars: int, day: date | None = None, first: float = 100) -> None:
    """The first bars of a session, the one of NOW unless told, from this price on (dollars)."""
    traded = session(day) if day else last_sessions(NOW, 1)[0]
    assert traded is not None
    closes = [first + at / 100 for at in range(bars)]
    high, low = [close + 1 for close in closes], [close - 1 for close in closes]
    columns: list[Any] = [list(traded.slots[:bars]), closes, high, low, [*closes], [1000] * bars, [0] * bars]
    staging = Staging(database)
    staging.ensure()
    staging.save([(SessionBars(symbol, traded.session_date, *columns), datetime.now(UTC))], "test")
