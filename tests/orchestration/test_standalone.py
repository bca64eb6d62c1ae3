"""Airflow's components on a laptop: one that stops is started again, until it is asked to stop."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest

# Appends its arguments to a file. The first start ends by itself, and the second runs until it is stopped.
AIRFLOW = """#!/bin/sh
echo "$@" >> {starts}
test "$(wc -l < {starts})" -ge 2 && exec sleep 600
exit 1
"""


def test_a_component_that_stops_is_started_again_until_it_is_asked_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    from local import airflow_standalone

    monkeypatch.setattr(airflow_standalone, "RESTART_SECONDS", 0.01)
    starts, program = tmp_path / "starts", tmp_path / "airflow"
    program.write_text(AIRFLOW.format(starts=starts))
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    parent = SimpleNamespace(output_queue=deque())
    component = airflow_standalone.Component(parent, "scheduler", ["scheduler"], environment)
    component.daemon = True
    component.start()
    deadline = time.monotonic() + 60
    while not starts.exists() or len(starts.read_text().splitlines()) < 2:
        assert time.monotonic() < deadline, "it was not started again"
        time.sleep(0.02)
    component.stop()
    component.join(60)
    assert not component.is_alive()
    assert starts.read_text().splitlines() == ["scheduler --skip-serve-logs"] * 2
