"""Which tests of a run in several processes stay in one process, and in which order they start.

Tests that share an expensive fixture are one unit of work. The units start in the order of how long they take, so that
none is left at the end while the other processes are idle. The longest mostly wait: the others use the processor then.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# The files that share the replayed recordings of tests/e2e/conftest.py.
REPLAYED = tuple(
    f"tests/e2e/test_{name}.py"
    for name in ("commands", "compare", "recorded_market", "research_examples", "stores_meet_contract")
)
# The units that are more or less than a file, by the start of the paths of their files. The first match counts.
UNITS = {
    "killed runs": ("tests/pipeline/test_killed.py",),  # a Spark session of its own, so that it runs beside the others
    "pipeline": ("tests/pipeline/",),  # one Spark session
    "stacks": ("tests/stacks/",),  # the synthesized templates
    "replayed": REPLAYED,
}
# The units that take longest, in the order in which they start.
LONGEST = (
    "tests/deploy/test_rehearsal.py",
    "pipeline",
    "tests/browser/test_airflow_page.py",
    "tests/deploy/test_verify.py",
    "killed runs",
    "tests/host/test_host_running.py",
    "tests/deploy/test_deploy_local.py",
    "stacks",
    "replayed",
    "tests/e2e/test_demo.py",
    "tests/host/test_airflow_users.py",
    "tests/emulators/",
    "tests/host/",
    "tests/e2e/",
    "tests/browser/",
    "tests/integration/",
)


def unit_of(nodeid: str) -> str:
    """Return the unit of work of a test: one of ``UNITS``, else its file."""
    path = nodeid.split("::", 1)[0]
    return next((unit for unit, starts in UNITS.items() if path.startswith(starts)), path)


def order(nodeid: str) -> int:
    """Return the place of a test's unit in ``LONGEST``. The other units come last."""
    unit = unit_of(nodeid)
    return next((number for number, start in enumerate(LONGEST) if unit.startswith(start)), len(LONGEST))


class Units(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps the tests of a unit in one worker. A worker gets its next unit when it starts the last test of one."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)

    def _reschedule(self, node: Any) -> None:
        # xdist hands out the next unit two tests early: it would then wait behind a long test.
        if not self.workqueue or self._pending_of(self.assigned_work[node]) <= 1:
            super()._reschedule(node)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest units first. The order within a unit stays."""
    items.sort(key=lambda item: order(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Return the scheduler of a run in several processes."""
    return Units(config, log)
