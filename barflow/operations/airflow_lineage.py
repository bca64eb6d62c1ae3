"""Airflow's own lineage: the options of its OpenLineage provider, for the host and for a laptop.

Airflow reports its DAG runs and tasks, and each hop names its task as the parent of its run. Only the hops name
datasets. The transport is in a file, because it can hold the API key.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from barflow.pipeline.lineage import REQUEST_SECONDS, job_namespace

FILE = "openlineage.json"
# Neither source code nor what operators find out about datasets.
POLICY = [{"scope": {}, "controls": {"extract_operator_metadata": False}}]


def lineage_options(env: str, url: str | None, folder: Path) -> dict[str, str]:
    """Return the environment variables of Airflow's processes for their lineage, none without a URL.

    ``folder`` has the file with the transport. BARFLOW_OPENLINEAGE_URL makes the DAGs hand a parent to each hop.
    """
    if not url:
        return {}
    options = {
        "NAMESPACE": job_namespace(env),
        "CONFIG_PATH": str(folder / FILE),
        # In a thread, a backend that does not answer cannot leave a task in the state `running`.
        "EXECUTE_IN_THREAD": "True",
        "EXECUTION_TIMEOUT": "5",
        "EMISSION_POLICY": json.dumps(POLICY),
    }
    return {
        "BARFLOW_OPENLINEAGE_URL": url,
        **{f"AIRFLOW__OPENLINEAGE__{name}": value for name, value in options.items()},
    }


def transport_file(url: str, key: str | None) -> str:
    """Return the text of the file with the transport: the URL or file of BARFLOW_OPENLINEAGE_URL, and the API key."""
    if not url.startswith("http"):
        return json.dumps({"transport": {"type": "file", "log_file_path": url, "append": True}})
    base = url.rstrip("/") + "/"  # else the client drops the last part of a path
    transport: dict[str, Any] = {"type": "http", "url": base, "timeout": REQUEST_SECONDS, "retry": {"total": 0}}
    if key:
        transport["auth"] = {"type": "api_key", "apiKey": key}
    return json.dumps({"transport": transport})
