"""The units of work of a test run in several processes, and their order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scheduling import LONGEST, UNITS, Units, order, unit_of

ROOT = Path(__file__).parents[2]


def test_every_path_that_is_named_exists() -> None:
    named = [path for path in LONGEST if path not in UNITS] + [path for paths in UNITS.values() for path in paths]
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert set(UNITS) <= set(LONGEST)


def test_tests_that_share_a_fixture_are_one_unit_and_the_longest_comes_first() -> None:
    assert unit_of("tests/pipeline/test_killed.py::a[tests/stacks/]") == "killed runs"
    assert unit_of("tests/pipeline/test_why.py::a") == unit_of("tests/pipeline/test_process.py::b") == "pipeline"
    assert unit_of("tests/e2e/test_demo.py::a") == "tests/e2e/test_demo.py"
    starts = ("tests/unit/test_bars.py", "tests/e2e/test_commands.py", "tests/deploy/test_rehearsal.py")
    assert sorted(starts, key=order) == [*reversed(starts)]


class Worker:
    """A process of xdist that records what it is sent."""

    shutting_down = False
    gateway = SimpleNamespace(id="worker")

    def __init__(self) -> None:
        self.sent: list[list[int]] = []

    def send_runtest_some(self, tests: list[int]) -> None:
        self.sent.append(tests)

    def shutdown(self) -> None:
        self.shutting_down = True


def test_a_worker_gets_its_next_unit_at_the_last_test_of_one() -> None:
    """A unit that is handed out earlier would wait behind a long test, while another worker is idle."""
    config: Any = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=False), getvalue=lambda name: {"tx": ["2*popen"]}[name]
    )
    scheduler = Units(config)
    first, second = Worker(), Worker()
    tests = [f"tests/a/test_{unit}.py::test_{number}" for unit in "abcd" for number in range(3)]
    for worker in (first, second):
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, tests)
    scheduler.schedule()
    assert (first.sent, second.sent) == ([[0, 1, 2]], [[3, 4, 5]])
    scheduler.mark_test_complete(first, 0)
    assert len(first.sent) == 1
    scheduler.mark_test_complete(first, 1)
    assert first.sent[1:] == [[6, 7, 8]]
