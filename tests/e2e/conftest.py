"""Fixtures of the end-to-end tests: folders for states, and one replayed recording per origin."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Replayed, barflow
from harness import Pipeline
from recordings import ORIGINS, Recordings

from local.services import Services
from local.state import State
from rehearsal.oracle import TWELVEDATA, Oracle


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder for state folders. Not under pytest's own: PostgreSQL's user must be let into it."""
    with tempfile.TemporaryDirectory(prefix="barflow-e2e-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture(scope="session", params=ORIGINS)
def replayed(request: pytest.FixtureRequest, no_developer_settings: None) -> Iterator[Replayed]:
    """Run two demos of a recording on one state, and keep its services up for the commands of the tests."""
    recordings: Recordings = request.getfixturevalue(f"{request.param}_recordings")
    with tempfile.TemporaryDirectory(prefix="barflow-e2e-", ignore_cleanup_errors=True) as folder:
        state, recording = Path(folder) / "state", recordings.watch_list
        arguments = ("demo", "--json", "--replay", recording, "--state", state)
        first = barflow(*arguments).object
        with Services(State.open(state), print) as services:
            stores = Pipeline(services.mongodb_uri, "barflow", services.warehouse_dsn, services.lake_uri)
            held, archived = everything(stores), files(state / "lake")
            second = barflow(*arguments).object
            yield Replayed(
                recording, state, stores, (first, second), (held, everything(stores)), (archived, files(state / "lake"))
            )


@pytest.fixture(scope="session")
def oracle(replayed: Replayed) -> Oracle:
    """Return the tables that the replayed recording must lead to, computed by DuckDB from its file."""
    return Oracle.of_files(TWELVEDATA, {"": replayed.recording})


def everything(stores: Pipeline) -> dict[str, Any]:
    return {**stores.warehouse(), "load_run": stores.rows("ops.load_run")}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
