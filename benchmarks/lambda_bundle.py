"""The ingest function: the size of its bundle, and the import of its handler in a new process.

The deployed bundle is for arm64. The import is timed on the same bundle built for this machine, by the function's
Python version where this machine has it. The import writes no byte code, because Lambda's file system is read-only.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.figures import Chapter, Figure
from benchmarks.stores import Bench
from config import versions
from stacks.bundles import INGEST

MAX_MEGABYTES = 40.0
MAX_SECONDS = 0.45
TIMED = "import time; began = time.perf_counter(); import handler; print(time.perf_counter() - began)"


MEANING = """
The size is that of the deployed bundle, unzipped. The import is that of the handler, in a new interpreter and with the
byte code of the bundle: an invocation after an idle hour waits for it. Both limits are this project's own.
"""


def measure(bench: Bench) -> Chapter:
    """Measure the size and the cold import."""
    bench.log("the ingest function's size and cold import")
    python = python_version(function_python())
    figures = [
        Figure("ingest bundle, unzipped", bundle_megabytes(), "MB", "the limit", MAX_MEGABYTES, 1.0),
        Figure("ingest handler, cold import", cold_import_seconds(), "s", "the limit", MAX_SECONDS, 1.0),
    ]
    return Chapter("The ingest function", MEANING, figures, [f"imported by Python {python}"])


def bundle_megabytes() -> float:
    """Return the size of the deployed bundle, unzipped."""
    files = (path for path in INGEST.build().rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files) / 1e6


def cold_import_seconds(runs: int = 7) -> float:
    """Return the median of so many imports of the handler, each in a new interpreter."""
    interpreter = function_python()
    bundle = replace(INGEST, name="ingest-here", platform=_this_platform(), python=python_version(interpreter)).build()
    command = [str(interpreter), "-B", "-I", "-c", f"import sys; sys.path.insert(0, '.'); {TIMED}"]
    timed = [
        subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=True).stdout for _ in range(runs)
    ]
    return statistics.median(map(float, timed))


def function_python() -> Path:
    """Return an interpreter of the function's Python version, or this one where the machine has none."""
    uv = Path(sys.executable).with_name("uv")
    found = subprocess.run(
        [uv, "python", "find", "--no-python-downloads", versions.LAMBDA_PYTHON],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "VIRTUAL_ENV": ""},
    )
    return Path(found.stdout.strip() if found.returncode == 0 else sys.executable)


def python_version(interpreter: Path) -> str:
    """Return an interpreter's version, such as 3.13."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _this_platform() -> str:
    """Return uv's name of this machine's platform."""
    return "aarch64-apple-darwin" if sys.platform == "darwin" else f"{platform.machine()}-manylinux_2_28"


if __name__ == "__main__":
    print(f"bundle: {bundle_megabytes():.1f} MB of at most {MAX_MEGABYTES:.0f}")
    seconds, version = cold_import_seconds(), python_version(function_python())
    print(f"cold import: {seconds:.2f} s of at most {MAX_SECONDS} (Python {version}, {platform.machine()})")
