"""How does a program die at a chosen point? It is run by ``python interrupted.py WHEN WHERE PROGRAM [ARGUMENTS…]``.

The process sends itself SIGKILL ``before`` or ``after`` the first call of ``module:Class.function`` of the package.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
from typing import Any


def die(when: str, where: str) -> None:
    """Has this process killed there."""
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)

    def dying(*arguments: Any, **options: Any) -> None:
        if when == "after":
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)


if __name__ == "__main__":
    when, where, program, *arguments = sys.argv[1:]
    die(when, where)
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")
