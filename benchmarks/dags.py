"""The time in which Airflow parses each DAG file with its imports, as the DAG processor does."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from barflow.errors import BarflowError
from benchmarks.figures import Chapter, Figure
from benchmarks.stores import Bench

DAGS = Path(__file__).parents[1] / "orchestration" / "dags"
MAX_SECONDS = 1.0
MEANING = """
Each DAG file of a deployment is parsed in a new process that has imported Airflow, like the children of the DAG
processor. The time includes the imports of the operators. The limit is this project's own.
"""
TIMED = """
import json, sys, time
from airflow.dag_processing.dagbag import DagBag
sys.path.insert(0, sys.argv[1])
began = time.perf_counter()
bag = DagBag(sys.argv[2])
print(json.dumps([time.perf_counter() - began, len(bag.dags), bag.import_errors]))
"""


def measure(bench: Bench) -> Chapter:
    """Measure the parsing of each DAG file."""
    bench.log("parsing the DAG files")
    figures = [
        Figure(f"parse {path.name}", seconds(path), "s", "the limit", MAX_SECONDS, 1.0)
        for path in sorted(DAGS.glob("*.py"))
        if not path.name.startswith("barflow_")
    ]
    return Chapter("The DAGs", MEANING, figures, [])


def seconds(path: Path, runs: int = 5) -> float:
    """Return the median of so many runs. Raise BarflowError when Airflow is not installed or rejects the file."""
    timed: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "BARFLOW_ENV": "dev",
        }
        for _ in range(runs):
            command = [sys.executable, "-c", TIMED, str(DAGS), str(path)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BarflowError(f"{path.name} cannot be parsed here: is Airflow installed (`make .venv/.airflow`)?")
            took, dags, errors = json.loads(done.stdout.splitlines()[-1])
            if errors or not dags:
                raise BarflowError(f"Airflow finds no DAG in {path.name}. {errors}")
            timed.append(took)
    return statistics.median(timed)
