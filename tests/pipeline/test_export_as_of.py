"""An export as of a moment is the same byte for byte when it is made later, after corrections and a late split."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from harness import Pipeline

from barflow.cli.main import main
from barflow.market.sessions import last_sessions, utc_now
from emulators.twelvedata.actions import ScriptedDividend, ScriptedSplit
from emulators.twelvedata.server import TwelveDataEmulator
from local.synthetic import SyntheticBars

FORMS = ("bars.csv", "bars.parquet", "bars/")
Run = Callable[..., None]


@pytest.fixture
def api(pipeline: Pipeline) -> Iterator[TwelveDataEmulator]:
    with TwelveDataEmulator(SyntheticBars()) as running:
        pipeline.settings |= {
            "BARFLOW_TWELVEDATA_URL": running.url,
            "TWELVEDATA_API_KEY": "emulator-key",
            "BARFLOW_CREDITS_PER_MINUTE": "10000",
            "BARFLOW_CREDITS_PER_DAY": "",
            "BARFLOW_HISTORY_SESSIONS": "4",
            "BARFLOW_SYMBOLS": "AAPL,NVDA",
            "BARFLOW_ACTIONS_SOURCE": "endpoint",
        }
        yield running


@pytest.fixture
def run(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return the function that runs a command, which must succeed."""

    def command(*arguments: object) -> None:
        monkeypatch.setattr("sys.argv", ["barflow", *map(str, arguments)])
        with pipeline.in_environment(), pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None), arguments

    return command


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_through_ticks_corrections_and_a_late_split_is_repeated_byte_for_byte(
    pipeline: Pipeline, api: TwelveDataEmulator, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traded = last_sessions(utc_now(), 4)
    days = ("--start", traded[0].session_date, "--end", traded[-1].session_date)

    def publish() -> None:
        time.sleep(1)  # the ids of two runs of one second have no order
        run("ingest")
        pipeline.process()

    def export(name: str, *arguments: object) -> dict[str, bytes]:
        """Export in every form. Return the files' contents."""
        (tmp_path / name).mkdir()
        for adjust, interval, to in [*(("all", "5min", form) for form in FORMS), ("splits", "1d", "1d.csv")]:
            chosen = ("--adjust", adjust, "--interval", interval, "--to", f"{tmp_path / name}/{to}")
            run("export", *days, *chosen, *arguments)
        return contents(tmp_path / name)

    run("actions", "refresh")
    publish()
    late, bar = traded[-1].session_date, traded[-2].slots[3]
    _, opened, high, low, *_ = api.source.rows("AAPL", bar, traded[-2].closes)[0]
    moments, made = [], []
    learned = ({"splits": [split(late)]}, {"dividends": [paid(late)]}, {"splits": []})
    for number, (actions, close) in enumerate(zip(learned, (low, high, opened), strict=True)):
        moments.append(utc_now().isoformat())
        made.append(export(f"then {number}", "--as-of", moments[-1]))
        api.switches.correct("AAPL", bar, close=close)
        api.switches.correct("NVDA", bar, volume=1000 + number)
        for kind, shown in actions.items():
            setattr(api.switches, kind, {"NVDA": shown})
        run("actions", "refresh")
        publish()
    assert capsys.readouterr().err.count("may still arrive") == 3 * len(FORMS) + 3
    later = [export(f"later {number}", "--as-of", moment) for number, moment in enumerate(moments)]
    assert later == made
    assert "may still arrive" not in capsys.readouterr().err
    assert all(one[name] != other[name] for one, other in pairwise(made) for name in one)


def split(day: date) -> ScriptedSplit:
    return ScriptedSplit(day, 10, 1)


def paid(day: date) -> ScriptedDividend:
    return ScriptedDividend(day, 0.5)
