"""Where do Spark's Python workers come from on one machine? From this process, forked when their imports are done.

Spark puts its own Python code on their path as archives, and has each task read the archives' contents again. Here
the installed packages serve instead.
"""

from __future__ import annotations

import gc
import sys

if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if not entry.endswith((".zip", ".jar"))]

    import pyarrow.csv  # noqa: F401
    from pyspark import (
        daemon,
        worker,  # noqa: F401
    )

    gc.freeze()  # a worker collects garbage after each task: what is here already is none
    daemon.manager()
