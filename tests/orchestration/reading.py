"""Read the DAGs as Airflow's DAG processor does: in a forked process with an environment's variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

DAGS = Path(__file__).parents[2] / "orchestration" / "dags"
Structure = dict[str, Any]

# Airflow is imported once, and a forked child parses the DAGs of each environment.
READ = """
import json, os, sys
from multiprocessing import get_context
sys.path.insert(0, sys.argv[1])
from airflow.dag_processing.dagbag import DagBag
EVENTS = ("socket.connect", "subprocess.Popen")
def callbacks(task):
    found = task.on_failure_callback or ()
    return [item.__name__ for item in (found if isinstance(found, (list, tuple)) else [found])]
def about(task):
    return {
        "kind": type(task).__name__, "owner": task.owner, "retries": task.retries, "pool": task.pool,
        "backoff": bool(task.retry_exponential_backoff), "delay": task.retry_delay.total_seconds(),
        "timeout": task.execution_timeout and task.execution_timeout.total_seconds(), "callbacks": callbacks(task),
        "after": sorted(task.upstream_task_ids), "teardown": task.is_teardown, "setup": task.is_setup,
        "fails_run": bool(getattr(task, "on_failure_fail_dagrun", False)), "trigger_rule": task.trigger_rule.value,
        "command": getattr(task, "command", None), "payload": getattr(task, "payload", None),
        "parent": getattr(task, "lineage_parent", None), "given": [*getattr(task, "op_args", ())],
        "connection": getattr(task, "ssh_conn_id", None), "mode": getattr(task, "mode", None),
        "wait": getattr(task, "timeout", None), "interval": getattr(task, "poke_interval", None),
    }
def read(variables):
    os.environ.update(variables)
    opened = []
    sys.addaudithook(lambda event, given: event in EVENTS and opened.append(f"{event} {given[:2]}"))
    bag = DagBag(sys.argv[1])
    dags = {
        name: {
            "tasks": {task.task_id: about(task) for task in dag.tasks},
            "schedules": [item.expression for item in getattr(dag.timetable, "timetables", [])],
            "tags": sorted(dag.tags), "doc": dag.doc_md, "active": dag.max_active_runs, "catchup": dag.catchup,
            "params": {name: dag.params.get_param(name).schema for name in dag.params},
            "defaults": dict(dag.params.dump()),
        }
        for name, dag in bag.dags.items()
    }
    return json.dumps({"errors": bag.import_errors, "dags": dags, "opened": opened}, default=str)
environments = json.loads(sys.argv[2])
with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    found = pool.map(read, environments.values(), chunksize=1)
print(json.dumps(dict(zip(environments, map(json.loads, found)))))
"""


def read_dags(home: Path, environments: dict[str, dict[str, str]]) -> dict[str, Structure]:
    """Return the DAGs of each environment: import errors, what parsing opened, tasks, schedules and forms."""
    variables = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(DAGS), json.dumps(environments)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Structure] = json.loads(done.stdout.splitlines()[-1])
    return found
