"""A replay names the bars of its recording that it did not receive, and its clock follows a recording that grows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from barflow.market.recordings import Recording
from barflow.market.sessions import BAR
from barflow.pipeline.ingest_report import Counts, IngestReport
from barflow.pipeline.status import SymbolStatus
from barflow.twelvedata.client import SymbolError
from local.demo import Outcome, _left_out
from local.state import State

RECORDING = Recording.load(Path(__file__).parents[1] / "cases/delisted_mid_window.csv")


@pytest.mark.parametrize(
    ("received", "left_out"),
    [
        ({"OLDCO": 12, "AAPL": 6}, {}),
        ({"OLDCO": 12, "AAPL": 7}, {}),  # a bar that is still forming is received, too
        ({"OLDCO": 5, "AAPL": 6}, {"OLDCO": 7}),
        ({"AAPL": 0}, {"OLDCO": 12, "AAPL": 6}),
    ],
)
def test_bars_that_were_not_received_are_counted(received: dict[str, int], left_out: dict[str, int]) -> None:
    report = IngestReport("run", counts={symbol: Counts(received=count) for symbol, count in received.items()})
    assert _left_out(RECORDING, report, RECORDING.symbols, RECORDING.as_of) == left_out


def test_a_symbol_with_an_error_is_named_by_its_error_alone() -> None:
    report = IngestReport("run", errors={"OLDCO": SymbolError("OLDCO", 422, "all rejected")})
    assert _left_out(RECORDING, report, RECORDING.symbols, RECORDING.as_of) == {"AAPL": 6}


def test_at_an_earlier_clock_only_the_bars_before_it_are_missed() -> None:
    earlier = RECORDING.first + BAR
    assert _left_out(RECORDING, IngestReport("run"), RECORDING.symbols, earlier) == {"OLDCO": 1}


@pytest.mark.parametrize(("partial", "balanced"), [(False, False), (True, True)])
def test_a_run_with_missed_bars_is_balanced_only_if_days_were_chosen(
    tmp_path: Path, partial: bool, balanced: bool
) -> None:
    state = State.create(tmp_path / "state", source={"kind": "replay", "path": "x"}, as_of=RECORDING.as_of)
    status = {"AAPL": SymbolStatus("AAPL")}
    outcome = Outcome(state, "lake", IngestReport("run"), status, left_out={"AAPL": 1}, partial=partial)
    assert outcome.balanced is balanced
    assert outcome.to_json()["left_out"] == {"AAPL": 1}


def test_the_clock_of_a_state_follows_a_recording_that_grows_and_never_goes_back(tmp_path: Path) -> None:
    source, path = {"kind": "replay", "path": "x"}, tmp_path / "state"
    later = RECORDING.as_of + timedelta(days=1)
    for as_of, expected in ((RECORDING.as_of, RECORDING.as_of), (later, later), (RECORDING.as_of, later)):
        assert State.create(path, source=source, as_of=as_of).as_of == expected
        assert State.open(path).as_of == expected
