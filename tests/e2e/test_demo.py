"""`barflow demo` resumes wherever it was stopped, leaves no process running, and rejects bad input in one line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import all_end, barflow, descendants, ended, read_until, start
from console import in_process

from emulators.twelvedata.server import TwelveDataEmulator
from local.embedded import embedded
from local.state import State
from local.synthetic import SyntheticBars

CASES = Path(__file__).parents[1] / "cases"
TWO = ("--symbols", "NVDA,BRK.B", "--days", "3")


def processes_on(state: Path) -> list[psutil.Process]:
    """Return every process with the folder in its command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(state) in word for word in process.cmdline()) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def check(printed: dict[str, Any]) -> None:
    """Check that a demo of TWO ended balanced."""
    assert (printed["balanced"], set(printed["symbols"])) == (True, {"NVDA", "BRK.B"})
    for counts in printed["symbols"].values():
        parts = ("stored", "revised", "unchanged", "rejected", "forming")
        assert counts["received"] == sum(counts[name] for name in parts)
        assert counts["parquet_rows"] >= 2 * 42
        assert counts["bar_1d"] in (2, 3), "the newest session may have no closed bar yet"


def test_a_demo_that_is_interrupted_and_then_killed_resumes_and_leaves_no_process(folder: Path) -> None:
    state = folder / "state"

    first = start("demo", *TWO, "--state", state)
    read_until(first, "writing")  # Spark is reading MongoDB
    children = descendants(first)
    assert len(children) > 4, "the servers, their watchdog, the program and its JVM"
    first.send_signal(signal.SIGINT)
    stopped = ended(first)
    assert (stopped.code, stopped.err.splitlines()[-1]) == (
        130,
        "stopped. What was stored is kept. Run the same command again to resume.",
    )
    assert "Traceback" not in stopped.err
    assert all_end(children)
    assert processes_on(state) == []

    second = start("demo", *TWO, "--state", state)
    log = read_until(second, "aggregating")
    assert "waiting" not in log, "the interrupted run released its lease"
    children = descendants(second)
    second.kill()
    second.communicate()
    assert all_end(children)
    assert processes_on(state) == []

    check(barflow("demo", *TWO, "--json", "--state", state).object)
    assert processes_on(state) == []
    report = (state / "report.html").read_text()
    assert "Hourly bars, synthetic, adjusted for splits" in report
    assert report.count(">10-for-1 split</text>") == 1


def test_a_state_takes_bars_of_one_source_only(folder: Path) -> None:
    state = folder / "state"
    State.create(state, source={"kind": "synthetic"}, as_of=None)
    recording = folder / "bars.csv"
    recording.write_text("datetime,open,high,low,close,volume,symbol\n2025-07-02 09:30:00,10,11,9,10,100,AAPL\n")
    refused = in_process("demo", "--replay", recording, "--state", state)
    assert refused.code == 2
    assert "holds synthetic bars and cannot take replay of bars ones too. Nothing was changed." in refused.error
    assert sorted(path.name for path in state.iterdir()) == ["lake", "logs", "state.json"]


def test_another_recording_of_the_same_name_is_refused_with_the_path_to_correct(folder: Path) -> None:
    first, second = folder / "a b" / "bars.csv", folder / "bars.csv"
    State.create(folder / "state", source={"kind": "replay", "path": str(first)}, as_of=None)
    second.write_text("datetime,open,high,low,close,volume,symbol\n2025-07-02 09:30:00,10,11,9,10,100,AAPL\n")
    refused = in_process("demo", "--replay", second, "--state", folder / "state")
    assert (refused.code, f"put them into '{first}' and replay that." in refused.error) == (2, True), refused.error


def test_a_key_that_the_state_does_not_use_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWELVEDATA_API_KEY", "k" * 32)
    state, log = State.create(folder / "state", source={"kind": "synthetic"}, as_of=None), list[str]()
    with embedded(state, log.append, mongo=False, postgres=False, api=True):
        assert log == [f"TWELVEDATA_API_KEY is not used: {state.path} holds synthetic bars"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: give a CSV file or a folder of JSON answers"),
        ("", "is empty: expected the columns datetime,open,high,low,close,volume,symbol"),
        ("1,2,3,4,5,6,7\n", "has no header line: expected the columns"),
        ("datetime,open,high,low,close,volume,symbol\n", "has no bars in it: give another one"),
        ("datetime,open,high,low,close\n", "lacks the column(s) volume, symbol"),
        ("datetime,open,high,low,close,volume,symbol\n2025-07-02 09:30:00,1,2\n", "line 2"),
        ("datetime,open,high,low,close,volume,symbol\nnoon,1,1,1,1,1,AAPL\n", "'noon' is not a wall-clock datetime"),
    ],
)
def test_an_unreadable_recording_is_rejected_before_anything_is_created(
    folder: Path, content: str | None, message: str
) -> None:
    recording, state = folder / "bars.csv", folder / "state"
    if content is not None:
        recording.write_text(content)
    refused = in_process("demo", "--replay", recording, "--state", state)
    assert (refused.code, message in refused.error) == (2, True), refused.error
    assert not state.exists()


def other_version(state: Path) -> None:
    state.mkdir()
    (state / "state.json").write_text('{"format": 99, "source": {"kind": "synthetic"}, "as_of": null}')


def damaged(state: Path) -> None:
    state.mkdir()
    (state / "state.json").write_text('{"format": 1')


def foreign_files(state: Path) -> None:
    state.mkdir()
    (state / "thesis.txt").write_text("mine")


def a_file(state: Path) -> None:
    state.write_text("mine")


@pytest.mark.parametrize(
    ("command", "make", "message"),
    [
        ("demo", other_version, "has format 99; this version of Barflow reads 1. Nothing in it was changed."),
        ("status", other_version, "has format 99; this version of Barflow reads 1. Nothing in it was changed."),
        ("demo", damaged, "state.json is damaged. Nothing in it was changed."),
        ("status", damaged, "state.json is damaged. Nothing in it was changed."),
        ("demo", foreign_files, "is not a Barflow state: it has no state.json. Nothing in it was changed."),
        ("status", foreign_files, "holds no state. Run `barflow demo` first"),
        ("demo", a_file, "is a file, not a folder. Pass a folder with --state."),
        ("status", a_file, "holds no state. Run `barflow demo` first"),
    ],
)
def test_a_folder_that_is_not_a_state_of_this_version_is_unchanged(
    folder: Path, command: str, make: Callable[[Path], None], message: str
) -> None:
    state = folder / "state"
    make(state)
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    refused = in_process(command, "--state", state)
    assert (refused.code, message in refused.error) == (2, True), refused.error
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before


def test_a_command_without_a_state_names_the_ways_to_get_one(folder: Path) -> None:
    refused = in_process("status", "--state", folder / "none")
    assert refused.code == 2
    assert "holds no state. Run `barflow demo` first, pass --state FOLDER, or set BARFLOW_MONGODB_URI" in refused.error


def test_an_unknown_symbol_is_bad_input_and_the_others_are_stored(folder: Path) -> None:
    alone = in_process("demo", "--symbols", "UNKNOWN1", "--days", "2", "--state", folder / "alone")
    assert alone.code == 2
    assert alone.error.startswith("Twelve Data does not know UNKNOWN1 (")
    assert alone.error.endswith("Nothing was stored. Check the spelling, then run again.")
    assert processes_on(folder) == []

    among = in_process("ingest", "--symbols", "AAPL,UNKNOWN1", "--state", folder / "alone", "--json")
    assert (among.code, "1 other symbol was stored." in among.error) == (2, True)
    assert json.loads(among.out)["symbols"]["AAPL"]["new"] > 0


@pytest.fixture
def vendor() -> Iterator[TwelveDataEmulator]:
    with TwelveDataEmulator(SyntheticBars(), api_key="the-right-key") as running:
        yield running


def test_a_wrong_key_is_refused_by_twelve_data_and_never_shown(folder: Path, vendor: TwelveDataEmulator) -> None:
    settings = {"TWELVEDATA_API_KEY": "s3cr3t-key", "BARFLOW_TWELVEDATA_URL": vendor.url}
    refused = barflow("demo", "--symbols", "AAPL", "--state", folder / "state", settings=settings)
    assert refused.code == 3
    assert "TWELVEDATA_API_KEY" in refused.error
    assert "s3cr3t-key" not in refused.err + refused.out
    assert len(vendor.requests) == 1, "the request is not repeated"
    assert processes_on(folder) == []


@pytest.mark.parametrize(
    ("command", "setting", "address", "message"),
    [
        (
            ["rejected", "list"],
            "BARFLOW_MONGODB_URI",
            "mongodb://me:s3cr3t@127.0.0.1:1/",
            "MongoDB could not be reached",
        ),
        (
            ["migrate"],
            "BARFLOW_WAREHOUSE_DSN",
            "postgresql://me:s3cr3t@127.0.0.1:1/x",
            "the warehouse could not be reached",
        ),
    ],
)
def test_a_database_that_does_not_answer_is_named(
    folder: Path, command: list[str], setting: str, address: str, message: str
) -> None:
    settings = {setting: address, "BARFLOW_LAKE_URI": str(folder)}
    failed = in_process(*command, settings=settings)
    assert (failed.code, failed.error.startswith(message)) == (1, True)
    assert f"Check {setting} and that the server answers, then run the same command again." in failed.error
    assert "s3cr3t" not in failed.err


@pytest.mark.minutes
def test_a_replay_takes_every_session_unless_days_are_chosen_and_says_what_it_leaves_out(folder: Path) -> None:
    replay = ("demo", "--json", "--replay", CASES / "more_than_20_sessions.csv", "--state", folder / "state")
    some = in_process(*replay, "--days", "5")
    assert (some.code, some.object["left_out"], some.object["balanced"]) == (0, {"AAPL": 72}, True)
    assert some.object["symbols"]["AAPL"]["stored"] == 10
    whole = in_process(*replay)
    assert (whole.code, whole.object["left_out"], whole.object["balanced"]) == (0, {}, True)
    counts = whole.object["symbols"]["AAPL"]
    assert (counts["received"], counts["unchanged"], counts["parquet_rows"], counts["bar_1d"]) == (82, 10, 82, 41)
    report = (folder / "state" / "report.html").read_text()
    assert "Hourly bars, not adjusted" in report, "a recording does not say whether there were splits"
