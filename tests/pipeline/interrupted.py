"""Run a program that kills itself at a chosen point: ``python interrupted.py WHEN WHERE SIZE PROGRAM [ARGUMENTS…]``.

The process sends itself SIGKILL ``before`` or ``after`` (WHEN) the first call of ``module:Class.function`` (WHERE).
SIZE is the number of partitions in a slice of process.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
from typing import Any

from barflow.pipeline import process_plan


def kill_at(when: str, where: str) -> None:
    """Patch the function so that its first call kills this process."""
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)

    def killing(*arguments: Any, **options: Any) -> None:
        if when == "after":
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killing)


if __name__ == "__main__":
    when, where, size, program, *arguments = sys.argv[1:]
    process_plan.PARTITIONS_PER_SLICE = int(size)
    kill_at(when, where)
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")
