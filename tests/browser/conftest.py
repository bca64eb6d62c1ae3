"""A browser that looks at the analysts' page."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from browsing import BrowserShot
from pages import NOW, stage
from pymongo.database import Database

from barflow.staging.connection import Document, connect
from dashboard.app import create_app
from dashboard.server import serving

Look = Callable[..., Any]


@contextmanager
def served(
    database: Database[Document], dsn: str, now: datetime = NOW, act: Callable[[], None] | None = None
) -> Iterator[str]:
    """Serve the page on two stores at a moment, and yield its URL. The URL /act calls ``act``."""
    app = create_app(database, dsn, clock=lambda: now, poll_seconds=0.1)
    if act:
        app.add_api_route("/act", act, include_in_schema=False)
    with serving(app, "127.0.0.1", 0) as url:
        assert app.state.live.wait(20)
        yield url


def value_of(browser_shot: BrowserShot, url: str, run: str, **options: object) -> Any:
    """Return what the script returned on the page, which must log no error and send no request to another host."""
    seen = browser_shot(url, run=run, **options)
    assert (seen.errors, seen.outside) == ([], [])
    return seen.value


@pytest.fixture
def look(browser_shot: BrowserShot, database: Database[Document], module_warehouse_dsn: str) -> Look:
    """``look(script, now=…, act=…, dsn=…, width=…)``: what the script returned on the page over the test's own MongoDB.

    The script calls ``act`` where it says ACT.
    """

    def open_page(
        run: str,
        now: datetime = NOW,
        act: Callable[[], None] | None = None,
        dsn: str = module_warehouse_dsn,
        **options: object,
    ) -> Any:
        with served(database, dsn, now, act) as url:
            return value_of(browser_shot, url, run, **options)

    return open_page


@pytest.fixture(scope="module")
def look_at_two(browser_shot: BrowserShot, mongodb_uri: str, module_warehouse_dsn: str) -> Iterator[Look]:
    """``look`` at one page for all tests of a file: 18 bars of AAPL and MSFT, which no test changes."""
    database = connect(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}")
    for symbol in ("AAPL", "MSFT"):
        stage(database, symbol, 18)
    with served(database, module_warehouse_dsn) as url:
        yield lambda run, **options: value_of(browser_shot, url, run, **options)
    database.client.close()
