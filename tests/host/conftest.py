"""Fixtures of the host's tests: a fake host after its setup."""

from __future__ import annotations

import pytest
from fake_host import FakeHost


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeHost, list[str]]:
    """Return a host after its first setup, and the commands that the setup ran. Tests must not change it."""
    host = FakeHost(tmp_path_factory.mktemp("host"))
    return host, host.boot()
