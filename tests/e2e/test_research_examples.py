"""The examples of the documentation's Research chapter run on the archive of a demo, and say what its bars say."""

from __future__ import annotations

import runpy
from datetime import date
from pathlib import Path

import pytest
from commands import Replayed
from matplotlib.image import imread

from rehearsal.oracle import Oracle

EXAMPLES = Path(__file__).parents[2] / "examples" / "research"


@pytest.fixture
def days(oracle: Oracle) -> list[date]:
    return sorted({day for _, day in oracle.table("daily_metrics")})


@pytest.fixture
def symbols(oracle: Oracle) -> list[str]:
    return sorted({symbol for symbol, _ in oracle.table("daily_metrics")})


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_an_example_runs_as_its_docstring_says(
    file: Path,
    replayed: Replayed,
    days: list[date],
    symbols: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    moment = ["2100-01-01T00:00Z"] if file.stem == "as_of" else []
    monkeypatch.setenv("BARFLOW_LAKE_URI", str(replayed.state / "lake"))
    monkeypatch.setattr("sys.argv", [file.name, *moment, str(days[0]), str(days[-1])])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(file), run_name="__main__")
    shown = capsys.readouterr().out
    if file.stem == "time_of_day":
        assert f"average of {len(symbols)} stocks in " in shown
        assert imread(tmp_path / "time_of_day.png").std() > 0.05, "the picture is blank"
    elif file.stem == "duckdb_volume_by_hour":
        shares = [float(line.split("│")[3]) for line in shown.splitlines() if line.startswith("│     ")]
        assert len(shares) == 7
        assert sum(shares) == pytest.approx(100, abs=0.5)
    else:
        assert [symbol for symbol in symbols if symbol not in shown] == []
    assert [*tmp_path.iterdir()] == ([tmp_path / "time_of_day.png"] if file.stem == "time_of_day" else [])
