"""The embedded services of a state start once, are shared, and end with their owner, whatever it dies of."""

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
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from pymongo import MongoClient

from barflow.errors import BadInputError, BarflowError
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
        """What it says once its services are up."""
        assert self.process.stdout
        return dict(json.loads(self.process.stdout.readline()))

    @property
    def children(self) -> list[int]:
        """Its servers with all their own children, and the watchdog."""
        servers = [psutil.Process(pid) for pid in self.found["servers"]]
        below = [child.pid for server in servers for child in server.children(recursive=True)]
        return [*self.found["servers"], *below, self.found["watchdog"]]

    @property
    def mongo(self) -> MongoClient[dict[str, Any]]:
        return MongoClient(self.found["uris"]["mongodb_uri"])

    @property
    def warehouse(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.found["uris"]["warehouse_dsn"])

    def works(self) -> bool:
        """Whether its services answer."""
        with self.mongo as client:
            answers = [client.admin.command("ping")["ok"] == 1]
        if "warehouse_dsn" in self.found["uris"]:
            with self.warehouse as connection:
                answers.append(connection.execute("select 1").fetchone() == (1,))
        return all(answers)

    def let_end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not under pytest's own: PostgreSQL's user must be let into it."""
    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture
def command() -> Iterator[Callable[..., Command]]:
    """Starts a command; it is ended with the test."""
    started: list[Command] = []

    def start(path: Path, *options: str) -> Command:
        started.append(Command(path, *options))
        return started[-1]

    yield start
    for item in started:
        item.let_end()
    for item in started:
        item.process.wait()


def all_end(pids: list[int]) -> bool:
    """Whether these processes end, given time."""
    living = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            living.append(psutil.Process(pid))
    return not psutil.wait_procs(living, timeout=60)[1]


def test_no_process_is_left_behind_whatever_the_owner_dies_of_and_the_next_command_goes_on_at_once(
    folder: Path, command: Callable[..., Command]
) -> None:
    owner = command(folder / "state")
    assert owner.works()
    with owner.mongo as client, owner.warehouse as connection:
        client["barflow"]["bars"].insert_one({"_id": "kept"})
        connection.execute("create table kept (n int)")
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        children = owner.children
        assert len(children) > 6, "MongoDB, PostgreSQL with its workers, the watchdog"
        owner.process.send_signal(number)
        while (folder / "state" / "services.json").exists():  # else the next would use what is about to stop
            time.sleep(0.01)
        # It waits until the servers of the dead one have let go of the data.
        owner = command(folder / "state")
        assert owner.works()
        with owner.mongo as client, owner.warehouse as connection:
            assert client["barflow"]["bars"].find_one() == {"_id": "kept"}
            assert connection.execute("select count(*) from kept").fetchone() == (0,)
        assert all_end(children), number
    children = owner.children
    assert owner.process.communicate("")[0] == "stopped\n"
    assert all_end(children)


def test_a_dead_owners_state_is_nobodys_until_its_servers_have_stopped(
    folder: Path, command: Callable[..., Command]
) -> None:
    owner = command(folder / "state", "mongo")
    children = owner.children
    os.kill(owner.found["servers"][0], signal.SIGSTOP)  # it cannot stop yet
    owner.process.kill()
    owner.process.wait()
    with (folder / "state" / "lock").open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(owner.found["servers"][0], signal.SIGCONT)
        assert all_end(children)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not (folder / "state" / "services.json").exists(), "nobody attaches to what is gone"


def test_a_second_command_uses_the_services_of_the_first_and_leaves_them_running(
    folder: Path, command: Callable[..., Command]
) -> None:
    first = command(folder / "state", "mongo")
    assert first.works()
    second = command(folder / "state", "mongo")
    assert second.found["uris"] == first.found["uris"]
    assert second.found["servers"] == []
    assert second.found["said"] == [f"using the services that another command runs on {(folder / 'state').resolve()}"]
    second.let_end()
    second.process.wait()
    assert first.works()


def test_two_states_live_side_by_side(folder: Path, command: Callable[..., Command]) -> None:
    one, two = command(folder / "one"), command(folder / "two" / ("a-long-name-" * 12))
    assert not set(one.found["uris"].values()) & set(two.found["uris"].values())
    assert one.works()
    assert two.works()
    children = one.children
    one.let_end()
    assert all_end(children)
    assert two.works()


def test_the_servers_end_also_when_somebody_killed_the_watchdog(folder: Path, command: Callable[..., Command]) -> None:
    owner = command(folder / "state", "mongo")
    os.kill(owner.found["watchdog"], signal.SIGKILL)
    assert owner.process.communicate("")[0] == "stopped\n"
    assert all_end(owner.found["servers"])


def test_given_addresses_replace_the_embedded_services(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARFLOW_MONGODB_URI", "mongodb://elsewhere/")
    monkeypatch.setenv("BARFLOW_WAREHOUSE_DSN", "postgresql://elsewhere/")
    said: list[str] = []
    with Services(State.create(folder / "state", source=SYNTHETIC, as_of=None), said.append) as services:
        assert services.environment()["BARFLOW_MONGODB_URI"] == "mongodb://elsewhere/"
        assert services.warehouse_dsn == "postgresql://elsewhere/"
    assert said == []


def test_a_service_that_does_not_start_says_why_and_where_its_log_is(folder: Path) -> None:
    state = State.create(folder / "state", source=SYNTHETIC, as_of=None)
    (state.path / "mongo").write_text("not a folder")
    before = {*psutil.Process().children()}
    with pytest.raises(BarflowError, match=r"^MongoDB did not start: .+ What is stored is unchanged\. Its log is "):
        Services(state, print, postgres=False).__enter__()
    assert {*psutil.Process().children()} <= before
    assert not (state.path / "services.json").exists()


def a_folder(path: Path) -> None:
    path.mkdir()


def something_elses(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("three years of work")


def a_file(path: Path) -> None:
    path.write_text("")


def content(text: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "state.json").write_text(text)

    return make


BROKEN = {
    "a folder of something else": (something_elses, "is not a Barflow state: it has no state.json"),
    "a file": (a_file, "is a file, not a folder"),
    "cut off": (content('{"format": 1, "sour'), "state.json is damaged"),
    "not an object": (content("[1]"), "state.json is damaged"),
    "without a source": (content('{"format": 1}'), "state.json is damaged"),
    "with a time that is none": (content('{"format": 1, "source": {}, "as_of": "noon"}'), "state.json is damaged"),
    "with a time without a zone": (
        content('{"format": 1, "source": {}, "as_of": "2025-07-30T20:00:00"}'),
        "state.json is damaged",
    ),
    "not text": (content("\udcff\udcfe".encode("utf-8", "surrogateescape").decode("latin-1")), "state.json is damaged"),
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
def test_a_folder_that_is_no_state_for_this_is_refused_and_left_as_it_is(tmp_path: Path, kind: str) -> None:
    make, message = BROKEN[kind]
    path = tmp_path / "state"
    make(path)
    before = {item: item.read_bytes() for item in path.rglob("*")} if path.is_dir() else path.read_bytes()
    with pytest.raises(BadInputError) as caught:
        State.create(path, source=SYNTHETIC, as_of=None)
    assert message in str(caught.value)
    assert "--state" in str(caught.value), "it says what to do"
    assert "\n" not in str(caught.value)
    assert before == ({item: item.read_bytes() for item in path.rglob("*")} if path.is_dir() else path.read_bytes())


def test_an_empty_folder_becomes_a_state_and_is_one_from_then_on(tmp_path: Path) -> None:
    a_folder(tmp_path / "state")
    made = State.create(tmp_path / "state", source=SYNTHETIC, as_of=None)
    assert State.open(tmp_path / "state") == made == State.create(tmp_path / "state", source=SYNTHETIC, as_of=None)
    assert State.source_at(tmp_path / "state") == SYNTHETIC
    assert State.source_at(tmp_path / "nothing here") is None


@pytest.mark.parametrize("step", ["mkdir", "write_text", "replace"])
def test_a_full_disk_is_no_fault_of_the_input_and_the_next_try_goes_on_from_there(
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
