"""Which machine do the tests of the host look at? One that the bootstrap has made."""

from __future__ import annotations

import pytest
from machine import Machine


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, list[str]]:
    """A machine after its first boot, and the calls that the boot made. Tests only look at it."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    return machine, machine.boot()
