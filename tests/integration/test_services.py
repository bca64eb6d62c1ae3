"""The embedded services of a state start once, are shared, and end with their owner, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from pymongo import MongoClient

from barflow.errors import BadInputError, BarflowError
from emulators.twelvedata.actions import ScriptedSplit
from emulators.twelvedata.script import NO_SCRIPT, MarketScript
from local.services import Services
from local.state import FORMAT, State

PROGRAM = Path(__file__).with_name("services_program.py")
SYNTHETIC: dict[str, Any] = {"kind": "synthetic"}


class Command:
    """A process that uses the services of a state."""

    def __init__(self, path: Path, *options: str) -> None:
        command = [sys.executable, str(PROGRAM), str(path), *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @cached_property
    def found(self) -> dict[str, Any]:
        """Return what it prints once its services are up."""
        assert self.process.stdout
        return dict(json.loads(self.process.stdout.readline()))

    @property
    def children(self) -> list[int]:
        """Return its servers, all their children, and the watchdog."""
        servers = [psutil.Process(pid) for pid in self.found["servers"]]
        below = [child.pid for server in servers for child in server.children(recursive=True)]
        return [*self.found["servers"], *below, self.found["watchdog"]]

    @property
    def mongo(self) -> MongoClient[dict[str, Any]]:
        return MongoClient(self.found["uris"]["mongodb_uri"])

    @property
    def warehouse(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.found["uris"]["warehouse_dsn"])

    def services_answer(self) -> bool:
        """Return whether its services answer."""
        with self.mongo as client:
            answers = [client.admin.command("ping")["ok"] == 1]
        if "warehouse_dsn" in self.found["uris"]:
            with self.warehouse as connection:
                answers.append(connection.execute("select 1").fetchone() == (1,))
        return all(answers)

    def end(self) -> None:
        """Let it stop its services and exit."""
        assert self.process.stdin
        self.process.stdin.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder outside pytest's own, because PostgreSQL's user needs access to it."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture
def command() -> Iterator[Callable[..., Command]]:
    """Return a function that starts a command. The commands end with the test."""
    started: list[Command] = []

    def start(path: Path, *options: str) -> Command:
        started.append(Command(path, *options))
        return started[-1]

    yield start
    for item in started:
        item.end()
    for item in started:
        item.process.wait()


def all_end(pids: list[int]) -> bool:
    """Return whether these processes end within a minute."""
    running = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            running.append(psutil.Process(pid))
    return not psutil.wait_procs(running, timeout=60)[1]


def test_no_process_remains_however_the_owner_ends_and_the_next_command_starts_at_once(
    folder: Path, command: Callable[..., Command]
) -> None:
    owner = command(folder / "state")
    assert owner.services_answer()
    with owner.mongo as client, owner.warehouse as connection:
        client["barflow"]["bars"].insert_one({"_id": "kept"})
        connection.execute("create table kept (n int)")
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        children = owner.children
        assert len(children) > 6, "MongoDB, PostgreSQL with its workers, the watchdog"
        owner.process.send_signal(number)
        # Until this file is removed, the next command would use services that are about to stop.
        while (folder / "state" / "services.json").exists():
            time.sleep(0.01)
        # It waits until the servers of the ended owner have released the data.
        owner = command(folder / "state")
        assert owner.services_answer()
        with owner.mongo as client, owner.warehouse as connection:
            assert client["barflow"]["bars"].find_one() == {"_id": "kept"}
            assert connection.execute("select count(*) from kept").fetchone() == (0,)
        assert all_end(children), number
    children = owner.children
    assert owner.process.communicate("")[0] == "stopped\n"
    assert all_end(children)


def test_the_state_of_a_killed_owner_stays_locked_until_its_servers_have_stopped(
    folder: Path, command: Callable[..., Command]
) -> None:
    owner = command(folder / "state", "mongo")
    children = owner.children
    os.kill(owner.found["servers"][0], signal.SIGSTOP)  # the server cannot stop yet
    owner.process.kill()
    owner.process.wait()
    with (folder / "state" / "lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(owner.found["servers"][0], signal.SIGCONT)
        assert all_end(children)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not (folder / "state" / "services.json").exists(), "no command attaches to stopped services"


def test_a_second_command_uses_the_services_of_the_first_and_leaves_them_running(
    folder: Path, command: Callable[..., Command]
) -> None:
    first = command(folder / "state", "mongo")
    assert first.services_answer()
    second = command(folder / "state", "mongo")
    assert second.found["uris"] == first.found["uris"]
    assert second.found["servers"] == []
    assert second.found["log"] == [f"using the services that another command runs on {(folder / 'state').resolve()}"]
    second.end()
    second.process.wait()
    assert first.services_answer()


def test_two_states_run_side_by_side(folder: Path, command: Callable[..., Command]) -> None:
    one, two = command(folder / "one"), command(folder / "two" / ("a-long-name-" * 12))
    assert not set(one.found["uris"].values()) & set(two.found["uris"].values())
    assert one.services_answer()
    assert two.services_answer()
    children = one.children
    one.end()
    assert all_end(children)
    assert two.services_answer()


def test_the_servers_end_even_when_the_watchdog_was_killed(folder: Path, command: Callable[..., Command]) -> None:
    owner = command(folder / "state", "mongo")
    os.kill(owner.found["watchdog"], signal.SIGKILL)
    assert owner.process.communicate("")[0] == "stopped\n"
    assert all_end(owner.found["servers"])


def test_addresses_of_the_environment_replace_the_embedded_services(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARFLOW_MONGODB_URI", "mongodb://elsewhere/")
    monkeypatch.setenv("BARFLOW_WAREHOUSE_DSN", "postgresql://elsewhere/")
    log: list[str] = []
    with Services(State.create(folder / "state", source=SYNTHETIC, as_of=None), log.append) as services:
        assert services.environment()["BARFLOW_MONGODB_URI"] == "mongodb://elsewhere/"
        assert services.warehouse_dsn == "postgresql://elsewhere/"
    assert log == []


def test_a_service_that_does_not_start_raises_its_reason_and_its_log_file(folder: Path) -> None:
    state = State.create(folder / "state", source=SYNTHETIC, as_of=None)
    (state.path / "mongo").write_text("not a folder")
    before = {*psutil.Process().children()}
    with pytest.raises(BarflowError, match=r"^MongoDB did not start: .+ What is stored is unchanged\. Its log is "):
        Services(state, print, postgres=False).__enter__()
    assert {*psutil.Process().children()} <= before
    assert not (state.path / "services.json").exists()


def a_folder(path: Path) -> None:
    path.mkdir()


def foreign_files(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("a foreign file")


def a_file(path: Path) -> None:
    path.write_text("")


def content(text: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "state.json").write_text(text)

    return make


BROKEN = {
    "a folder with other files": (foreign_files, "is not a Barflow state: it has no state.json"),
    "a file": (a_file, "is a file, not a folder"),
    "cut off": (content('{"format": 1, "sour'), "state.json is damaged"),
    "not an object": (content("[1]"), "state.json is damaged"),
    "without a source": (content('{"format": 1}'), "state.json is damaged"),
    "with an invalid time": (content('{"format": 1, "source": {}, "as_of": "noon"}'), "state.json is damaged"),
    "with a time without a time zone": (
        content('{"format": 1, "source": {}, "as_of": "2025-07-30T20:00:00"}'),
        "state.json is damaged",
    ),
    "not text": (content("\udcff\udcfe".encode("utf-8", "surrogateescape").decode("latin-1")), "state.json is damaged"),
    "with an invalid script": (
        content('{"format": 1, "source": {}, "as_of": null, "script": {"splits": [1]}}'),
        "state.json is damaged",
    ),
    "of a later version": (
        content(f'{{"format": {FORMAT + 1}, "source": {{}}, "as_of": null}}'),
        f"has format {FORMAT + 1}; this version of Barflow reads {FORMAT}",
    ),
    "of another source": (
        content('{"format": 1, "source": {"kind": "replay"}, "as_of": null}'),
        "holds replay bars",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_folder_that_is_not_a_fitting_state_is_rejected_and_unchanged(tmp_path: Path, kind: str) -> None:
    make, message = BROKEN[kind]
    path = tmp_path / "state"
    make(path)
    before = {item: item.read_bytes() for item in path.rglob("*")} if path.is_dir() else path.read_bytes()
    with pytest.raises(BadInputError) as caught:
        State.create(path, source=SYNTHETIC, as_of=None)
    assert message in str(caught.value)
    assert "--state" in str(caught.value), "the message names the option"
    assert "\n" not in str(caught.value)
    assert before == ({item: item.read_bytes() for item in path.rglob("*")} if path.is_dir() else path.read_bytes())


def test_an_empty_folder_becomes_a_state(tmp_path: Path) -> None:
    a_folder(tmp_path / "state")
    made = State.create(tmp_path / "state", source=SYNTHETIC, as_of=None)
    assert State.open(tmp_path / "state") == made == State.create(tmp_path / "state", source=SYNTHETIC, as_of=None)
    assert State.source_at(tmp_path / "state") == SYNTHETIC
    assert State.source_at(tmp_path / "absent") is None


def test_a_state_keeps_the_script_that_it_was_made_with(tmp_path: Path) -> None:
    """Another run on the state, on a later day, gets the same raw bars."""
    day = date(2026, 11, 17)
    first, later = (MarketScript({"NVDA": [ScriptedSplit(day + timedelta(days=n), 10)]}) for n in (0, 1))
    for script in (first, later):
        assert State.create(tmp_path / "new", source=SYNTHETIC, as_of=None, script=script).script == first
    assert State.create(tmp_path / "old", source=SYNTHETIC, as_of=None).script == NO_SCRIPT
    assert State.create(tmp_path / "old", source=SYNTHETIC, as_of=None, script=later).script == NO_SCRIPT


@pytest.mark.parametrize("step", ["mkdir", "write_text", "replace"])
def test_a_full_disk_is_not_bad_input_and_the_next_try_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, step, full)
    with pytest.raises(BarflowError, match="cannot be written: No space left on device") as caught:
        State.create(tmp_path / "state", source=SYNTHETIC, as_of=None)
    assert caught.value.exit_code == 1
    monkeypatch.undo()
    assert State.create(tmp_path / "state", source=SYNTHETIC, as_of=None).lake.is_dir()
