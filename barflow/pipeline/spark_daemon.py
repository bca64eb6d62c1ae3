"""The process that Spark's Python workers are forked from on one machine, with their imports done.

The environment names the modules with the tasks of a program: its workers would import them one by one otherwise.
Spark puts its own Python code on the workers' path as archives, and every task reads the archives again. The installed
packages replace them here.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if not entry.endswith((".zip", ".jar"))]

    import pyarrow.csv  # noqa: F401
    from pyspark import (
        daemon,
        worker,  # noqa: F401
    )

    for name in filter(None, os.environ.get("SPARK_TASKS_MODULES", "").split(",")):
        importlib.import_module(name)
    gc.freeze()  # workers collect garbage after each task: exclude what is loaded already
    daemon.manager()
