"""`barflow backfill` on a replayed state: it skips what is stored and says so, and `--again` brings corrections."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

from console import in_process

from barflow.market.recordings import COLUMNS
from barflow.market.sessions import new_york, sessions_between
from barflow.staging.connection import connect
from local.services import Services
from local.state import State


def write(path: Path, volume: int) -> None:
    """Write seven whole sessions. ``volume`` is that of the first bar."""
    days = sessions_between(datetime(2025, 7, 22, tzinfo=UTC).date(), datetime(2025, 7, 30, tzinfo=UTC).date())
    opens = [f"{new_york(slot):%Y-%m-%d %H:%M:%S}" for day in days for slot in day.slots]
    with path.open("w", newline="") as file:
        rows = [[opened, 200, 201, 199, 200.5, 1000, "AAPL"] for opened in opens]
        rows[0][5] = volume
        csv.writer(file).writerows([COLUMNS, *rows])


def test_a_correction_of_a_stored_session_needs_again(folder: Path) -> None:
    recording, path = folder / "late.csv", folder / "state"
    write(recording, 1000)
    as_of = datetime(2025, 7, 30, 20, tzinfo=UTC)
    state = State.create(path, source={"kind": "replay", "path": str(recording)}, as_of=as_of)
    arguments = ("backfill", "--symbols", "AAPL", "--start", "2025-07-22", "--end", "2025-07-30", "--state", path)
    with Services(state, print, postgres=False) as services:
        bars = connect(services.mongodb_uri)["bars"]
        first = in_process(*arguments, "--json").object
        assert (first["symbols"]["AAPL"]["new"], first["skipped"]["stored"]) == (546, 0)

        write(recording, 1234)
        second = in_process(*arguments)
        assert second.code == 0
        assert "skipped 7 sessions: 7 stored. `barflow backfill --again` fetches them again.\n" in second.err
        assert bars.find_one({"_id": "AAPL|5min|2025-07-22"}, {"volume": 1})["volume"][0] == 1000  # type: ignore[index]

        third = in_process(*arguments, "--json", "--again").object
        assert (third["symbols"]["AAPL"]["revised"], third["symbols"]["AAPL"]["unchanged"]) == (1, 545)
        assert third["skipped"] == {"stored": 0, "answered": 0, "before_first_bar": 0, "not_listed": 0}
        assert bars.find_one({"_id": "AAPL|5min|2025-07-22"}, {"volume": 1})["volume"][0] == 1234  # type: ignore[index]

        plan = in_process(*arguments, "--plan", "--again", "--json").object
        assert plan["credits"] == 1
