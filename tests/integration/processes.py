"""Processes for tests: a tick that is killed, or that runs at the same time as another one.

A fork server imports the library once, so that a process starts in milliseconds. Each process is prepared, waits, and
starts its tick only when the test says so.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "slack_sdk", "barflow.pipeline.ingest"])
# Gets the settings of a test and returns the tick, ready to run.
Prepare = Callable[[Mapping[str, Any]], Callable[[], Any]]


@dataclass
class Waiting:
    """A process that is ready to tick."""

    process: BaseProcess
    connection: Connection


def start(prepare: Prepare, **settings: Any) -> Waiting:
    """Start a process and wait until it is ready. ``prepare`` is a function of a module."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_main, args=(theirs, prepare, settings), daemon=True)
    process.start()
    theirs.close()
    assert ours.recv() == "ready"
    return Waiting(process, ours)


def run(*waiting: Waiting) -> list[Any]:
    """Let processes tick at the same time. Return the results in order, and None for each that was killed."""
    for item in waiting:
        item.connection.send("run")
    results = [_result(item) for item in waiting]
    for item in waiting:
        item.process.join()
    return results


def run_killed(waiting: Waiting) -> None:
    """Let a process tick that kills itself, and check that it did."""
    assert run(waiting) == [None]
    assert waiting.process.exitcode == -signal.SIGKILL


def _result(waiting: Waiting) -> Any:
    try:
        return waiting.connection.recv()
    except EOFError:
        return None


def _main(connection: Connection, prepare: Prepare, settings: Mapping[str, Any]) -> None:
    tick = prepare(settings)
    connection.send("ready")
    connection.recv()
    connection.send(tick())
