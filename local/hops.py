"""Both Spark programs in one process: what `barflow demo` runs after an ingest.

They share one Spark session. On a lake without a publication it starts at once, so it is ready when the ingest is.
The programs start with a line on stdin; without one, the process ends. Progress and errors go to stderr as those of
the programs; the last line on stdout is the seconds of each hop.

    echo | python -m local.hops
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from barflow.lake.partitions import Lake
from barflow.pipeline.children import CHECKOUT, started, wait_for
from barflow.pipeline.environment import own_environment, spark_environment
from barflow.pipeline.stores import Stores
from barflow.progress import Log
from barflow.settings import load_settings

PROGRAMS = {"process": "spark/bars_to_parquet.py", "aggregate": "glue/aggregate_bars.py"}
TASKS = ("barflow.pipeline.partition_tasks", "barflow.pipeline.daily_history")


@contextmanager
def standby(stores: Stores) -> Iterator[Callable[[Log], dict[str, float]]]:
    """Start the process for a block. Yield the function that runs the hops and returns the seconds of each.

    The function raises the error that a program ended with.
    """
    environment = {**own_environment(), **spark_environment(), **stores.environment}
    command = [sys.executable, "-m", __name__]
    with started(command, environment, stores.on_child, stdin=subprocess.PIPE, cwd=CHECKOUT) as child:

        def run(log: Log) -> dict[str, float]:
            return wait_for(child, log, sent="go\n")

        yield run


def main() -> int:
    """Wait for the line, run the programs one after the other, and return the exit code of the first that fails."""
    with suppress(Exception):  # the program that needs Spark meets the same error, and reports it
        if not Lake(load_settings().require("lake_uri")).manifest_ids():
            from barflow.pipeline.spark import spark_session

            spark_session("barflow demo", *TASKS)
    if not sys.stdin.readline():
        return 0
    seconds: dict[str, float] = {}
    for hop, path in PROGRAMS.items():
        begun = time.monotonic()
        code: int = _load(hop, path).main([])
        if code:
            return code
        seconds[hop] = round(time.monotonic() - begun, 2)
        print(f"{hop} done in {seconds[hop]:.1f} s", file=sys.stderr, flush=True)
    print(json.dumps(seconds), flush=True)
    return 0


def _load(name: str, path: str) -> Any:
    """Return a program of the checkout as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_program", CHECKOUT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    raise SystemExit(main())
