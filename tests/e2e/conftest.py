"""How does a test use Barflow as a person does? By its console command, on state folders of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Replayed, barflow
from harness import Pipeline

from local.services import Services
from local.state import State

CSV = "twelvedata_5min/all_symbols_5min_2025-07-02_2025-07-30.csv"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for state folders. Not under pytest's own: PostgreSQL's user must be let into it."""
    with tempfile.TemporaryDirectory(prefix="barflow-e2e-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture(scope="session")
def replayed(real_data: Path, no_settings_from_outside: None) -> Iterator[Replayed]:
    """The services of the state stay up, so that other commands on it need not start them."""
    with tempfile.TemporaryDirectory(prefix="barflow-e2e-", ignore_cleanup_errors=True) as folder:
        state, recording = Path(folder) / "state", real_data / CSV
        arguments = ("demo", "--json", "--replay", recording, "--state", state)
        first = barflow(*arguments).object
        with Services(State.open(state), print) as services:
            stores = Pipeline(services.mongodb_uri, "barflow", services.warehouse_dsn, services.lake_uri)
            held, archived = everything(stores), files(state / "lake")
            second = barflow(*arguments).object
            yield Replayed(
                recording, state, stores, (first, second), (held, everything(stores)), (archived, files(state / "lake"))
            )


def everything(stores: Pipeline) -> dict[str, Any]:
    return {**stores.warehouse(), "load_run": stores.rows("ops.load_run")}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
