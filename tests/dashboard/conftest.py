"""The page's server on the stores of a test."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest
from page_data import serve
from pymongo.database import Database

from barflow.staging.connection import Document


@pytest.fixture
def served(database: Database[Document], warehouse_dsn: str) -> Callable[..., AbstractContextManager[str]]:
    """``with served(token=…) as url``: the page on the test's own stores, at NOW."""
    return partial(serve, database, warehouse_dsn)
