"""Several processes spend a large plan within its credits. After a kill, no stored session costs a credit again."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pymongo.database import Database

from barflow.errors import BadInputError, DayIsSpentError, UnavailableError
from barflow.market.sessions import last_sessions, utc_now
from barflow.pipeline.backfill_workers import SYMBOLS_AT_ONCE, share_of, workers_for
from barflow.pipeline.stores import Stores
from barflow.settings import Settings, load_settings
from barflow.staging.connection import Document
from emulators.twelvedata.server import TwelveDataEmulator
from local.synthetic import SyntheticBars

SYMBOLS = [f"S{number}" for number in range(3 * SYMBOLS_AT_ONCE)]
# An earlier session, so that it is closed at any time of day.
DAY = last_sessions(utc_now(), 3)[0].session_date
CREDITS = 500


def large_plan(**changes: object) -> Settings:
    given = {"credits_per_minute": CREDITS, "credits_per_day": None, "batch_size": 120}
    return load_settings(**given | changes)


@pytest.mark.parametrize(
    ("settings", "symbols", "expected"),
    [
        (large_plan(), 24, 2),
        (large_plan(), SYMBOLS_AT_ONCE, 1),
        (large_plan(credits_per_minute=499), 24, 1),
        (large_plan(credits_per_day=100_000), 24, 1),
        (large_plan(credits_per_minute=10_946), 5000, 6),
    ],
)
def test_the_processes_follow_the_plan_the_symbols_and_the_cores(
    settings: Settings, symbols: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("barflow.pipeline.backfill_workers._cores", lambda: 3)
    assert workers_for(Stores(settings), symbols) == expected
    share = share_of(settings, expected)
    assert expected * share.credits_per_minute <= settings.credits_per_minute
    assert share.batch_size <= share.credits_per_minute


def test_a_replay_is_fetched_by_one_process() -> None:
    now = utc_now()
    assert workers_for(Stores(large_plan(), clock=lambda: now), 24) == 1


def test_a_killed_backfill_resumes_without_a_second_credit(mongodb_uri: str, database: Database[Document]) -> None:
    environment = os.environ | {
        "BARFLOW_MONGODB_URI": mongodb_uri, "BARFLOW_MONGODB_DATABASE": database.name,
        "TWELVEDATA_API_KEY": "emulator-key", "BARFLOW_CREDITS_PER_MINUTE": str(CREDITS),
        "BARFLOW_CREDITS_PER_DAY": "", "BARFLOW_BATCH_SIZE": "120", "BARFLOW_LAKE_URI": "unused",
    }  # fmt: skip
    with TwelveDataEmulator(SyntheticBars(), credits_per_minute=CREDITS) as api:
        api.switches.latency = 1.0
        command = [sys.executable, "-m", "barflow.cli.main", "backfill", "--json", "--symbols", ",".join(SYMBOLS),
                   "--start", str(DAY), "--end", str(DAY)]  # fmt: skip
        environment["BARFLOW_TWELVEDATA_URL"] = api.url

        def stored() -> set[str]:
            return {document["symbol"] for document in database["bars"].find({}, {"symbol": 1})}

        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
            until(lambda: bool(stored()))
            children = children_of(first.pid)
            first.kill()
        assert len(children) >= 2
        until(lambda: not any(map(is_running, children)))  # they spend no credits without the parent
        assert not database["ledger"].count_documents({"outcome": "running"}), "the archive would stay incomplete"
        kept = stored()
        assert kept
        assert kept < set(SYMBOLS)

        api.requests.clear()
        api.switches.latency = 0.0
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        report = json.loads(ended.stdout)
        asked = [symbol for call in api.requests for symbol in call.symbols]
        assert sorted(asked) == sorted(set(SYMBOLS) - kept)
        assert report["skipped"]["stored"] == len(kept)
        assert sum(counts["new"] for counts in report["symbols"].values()) >= len(asked) * 42
        assert database["bars"].count_documents({}) == len(SYMBOLS)


def test_an_error_keeps_its_kind_and_message_on_the_way_to_the_parent() -> None:
    for error in (DayIsSpentError("no credits left"), UnavailableError("no answer"), BadInputError("a wrong address")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.exit_code) == (type(error), str(error), error.exit_code)


def until(done: object, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
