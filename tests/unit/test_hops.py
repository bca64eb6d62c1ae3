"""Both Spark programs in one process: they wait for the ingest, and the first that fails ends the run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from local import hops

PROGRAM = "import sys\ndef main(argv):\n    print('{name}', argv, file=sys.stderr)\n    return {code}\n"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake with a publication, so Spark is not started, and two programs that succeed."""
    (tmp_path / "lake" / "manifests").mkdir(parents=True)
    (tmp_path / "lake" / "manifests" / "process-1.json").touch()
    monkeypatch.setenv("BARFLOW_LAKE_URI", str(tmp_path / "lake"))
    monkeypatch.setattr(hops, "CHECKOUT", tmp_path)
    monkeypatch.setattr(hops, "PROGRAMS", {"process": "process.py", "aggregate": "aggregate.py"})
    for name in hops.PROGRAMS:
        (tmp_path / f"{name}.py").write_text(PROGRAM.format(name=name, code=0))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, sent: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(sent))
    return hops.main()


def test_the_programs_run_one_after_the_other(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "go\n") == 0
    printed, said = capsys.readouterr()
    assert [line.split()[0] for line in said.splitlines()] == ["process", "process", "aggregate", "aggregate"]
    assert json.loads(printed).keys() == {"process", "aggregate"}


def test_nothing_runs_without_the_line(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "") == 0
    assert capsys.readouterr() == ("", "")


def test_the_first_program_that_fails_ends_the_run(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (programs / "process.py").write_text(PROGRAM.format(name="error: no such lake", code=3))
    assert run(monkeypatch, "go\n") == 3
    printed, said = capsys.readouterr()
    assert (printed, said) == ("", "error: no such lake []\n")


def test_a_failed_ingest_ends_the_process(tmp_path: Path) -> None:
    children = []
    stores = Stores(load_settings(), environment={"BARFLOW_LAKE_URI": str(tmp_path)}, on_child=children.append)
    with pytest.raises(ValueError, match="no bars"), hops.standby(stores):
        raise ValueError("no bars")
    assert children[0].returncode is not None
