"""When a process run starts Spark: while it reads a long plan, and not for a short one."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from barflow.errors import BarflowError
from barflow.pipeline import process
from barflow.pipeline.process import first_slice
from barflow.pipeline.process_plan import Plan

PLAN = Plan({("A", "2025-07"): {"2025-07-02": (1, 78)}})
SECONDS = 30  # after which a broken test fails


def test_spark_starts_while_a_long_plan_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PLAN_SECONDS", 0.01)
    started = threading.Event()

    def planned() -> Iterator[Plan]:
        assert started.wait(SECONDS), "Spark was not started before the plan was whole"
        yield PLAN

    assert first_slice(planned(), started.set) is PLAN


@pytest.mark.parametrize("plans", [[], [PLAN]])
def test_a_short_plan_starts_no_spark(plans: list[Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PLAN_SECONDS", SECONDS)
    started: list[bool] = []
    assert first_slice(iter(plans), lambda: started.append(True)) is next(iter(plans), None)
    assert not started


def test_the_error_of_a_long_plan_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PLAN_SECONDS", 0.01)
    started = threading.Event()

    def planned() -> Iterator[Plan]:
        assert started.wait(SECONDS)
        raise BarflowError("MongoDB did not answer")
        yield

    with pytest.raises(BarflowError, match="MongoDB did not answer"):
        first_slice(planned(), started.set)
