"""What do the tests of the page share? The page, served over the stores of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from page_data import NOW
from pymongo.database import Database

from barflow.staging.connection import Document
from dashboard.app import create_app
from dashboard.server import serving


@pytest.fixture
def served(database: Database[Document], warehouse_dsn: str) -> Callable[..., object]:
    """``with served(token=…) as url``: the page over the test's own stores, at NOW."""

    @contextmanager
    def serve(token: str | None = None, now: datetime = NOW) -> Iterator[str]:
        app = create_app(database, warehouse_dsn, token=token, clock=lambda: now, poll_seconds=0.05)
        with serving(app, "127.0.0.1", 0) as url:
            assert app.state.live.wait(20)
            yield url.rstrip("/")

    return serve
