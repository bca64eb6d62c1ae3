"""What the browser tests of the page share: its server, its data and pieces of script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

from pymongo.database import Database

from barflow.market.bars import SessionBars
from barflow.market.sessions import last_sessions, session
from barflow.staging.connection import Document
from barflow.staging.sessions import Staging
from dashboard.app import create_app
from dashboard.server import serving

# Thursday, July 17, 2025, 11:00 New York: the newest session has 18 closed bars.
NOW = datetime(2025, 7, 17, 15, 0, tzinfo=UTC)
LISTS = {"software": ["MSFT", "ORCL"], "none_stored": ["ORCL"]}
READY = "await page.waitForSelector('#chart-panel[data-shown]');"
# The page listens to the events and has read everything once more since (health last): later changes come as events.
FOLLOWING = READY + (
    "await page.waitForFunction(() => performance.getEntriesByType('resource')"
    ".filter(({ name }) => name.endsWith('/api/health')).length > 1);"
)
# `const { held } = await late(url, n)` holds the n-th answer of that URL back; the server gives it at once.
# `const answer = await held` waits for it, and `await answer()` returns once the page has processed it.
LATE = """
const watchAnswers = () => {
  const parse = Response.prototype.json;
  Response.prototype.json = function () {
    const body = parse.call(this), name = this.headers.get('x-held');
    if (name) body.then(() => setTimeout(() => { window.processed = name; }));
    return body;
  };
};
await page.addInitScript(watchAnswers);
await page.evaluate(watchAnswers);
const late = async (url, nth = 1) => {
  let count = 0, hold;
  const held = new Promise((done) => { hold = done; });
  const name = `${url} ${nth}`;
  await page.route(url, async (route) => {
    if (++count !== nth) return route.continue();
    const response = await route.fetch();
    hold(async () => {
      await route.fulfill({ response, headers: { ...response.headers(), 'x-held': name } });
      await page.waitForFunction((held) => window.processed === held, name);
    });
  });
  return { held };
};
"""
ACT = "await page.evaluate(() => fetch('/act'));"  # runs the test's `act` while the page is open


@contextmanager
def served(
    database: Database[Document], dsn: str, now: datetime = NOW, act: Callable[[], None] | None = None
) -> Iterator[str]:
    """Serve the page on two stores at a moment, and yield its URL. The URL /act calls ``act``."""
    app = create_app(database, dsn, lists=LISTS, clock=lambda: now, poll_seconds=0.1)
    if act:
        app.add_api_route("/act", act, include_in_schema=False)
    with serving(app, "127.0.0.1", 0) as server:
        assert app.state.live.wait(20)
        yield server.url


def stage(database: Database[Document], symbol: str, bars: int, day: date | None = None, first: float = 100) -> None:
    """Store the first bars of a session, by default NOW's. The first one closes at ``first`` dollars."""
    traded = session(day) if day else last_sessions(NOW, 1)[0]
    assert traded is not None
    closes = [first + at / 100 for at in range(bars)]
    high, low = [close + 1 for close in closes], [close - 1 for close in closes]
    columns: list[Any] = [list(traded.slots[:bars]), closes, high, low, [*closes], [1000] * bars, [0] * bars]
    staging = Staging(database)
    staging.ensure()
    staging.save([(SessionBars(symbol, traded.session_date, *columns), datetime.now(UTC))], "test")
