"""What do the tests of pages share? A browser, and a warehouse that holds two ordinary symbols and a hostile one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from browsing import BrowserShot
from pages import NOW
from pymongo.database import Database

from barflow.staging.connection import Document
from barflow.warehouse.migrations import migrate
from dashboard.app import create_app
from dashboard.server import serving
from local.services import Services
from local.state import State


@pytest.fixture(scope="session")
def warehouse_dsn() -> Iterator[str]:
    """The DSN of a warehouse without rows. Not under pytest's own folder: PostgreSQL's user must be let into it."""
    with tempfile.TemporaryDirectory(prefix="barflow-pages-", ignore_cleanup_errors=True) as folder:
        state = State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("BARFLOW_WAREHOUSE_DSN", raising=False)  # never the one that a developer works with
            with Services(state, print, mongo=False) as services:
                migrate(services.warehouse_dsn, Path(__file__).parents[2] / "sql")
                yield services.warehouse_dsn


@pytest.fixture
def look(browser_shot: BrowserShot, database: Database[Document], warehouse_dsn: str) -> Callable[..., Any]:
    """Opens the page over the test's stores at a moment, and gives what the browser made of it.

    ``act`` is done when the page's script says ACT.
    """

    def open_page(run: str, now: datetime = NOW, act: Callable[[], None] | None = None, **options: object) -> Any:
        app = create_app(database, warehouse_dsn, clock=lambda: now, poll_seconds=0.1)
        if act:
            app.add_api_route("/act", act, include_in_schema=False)
        with serving(app, "127.0.0.1", 0) as url:
            assert app.state.live.wait(20)
            seen = browser_shot(url, run=run, **options)
        assert (seen.errors, seen.outside) == ([], [])
        return seen.value

    return open_page
