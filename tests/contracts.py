"""Runtime contracts for tests: those of the snapshot templates, with placeholders for deployment tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from barflow.contract import RuntimeContract, parse

REGION = "us-east-1"
SNAPSHOTS = Path(__file__).parent / "snapshots"


@cache
def _template(env: str) -> str:
    text = (SNAPSHOTS / env / f"Barflow-{env}-Orchestration.json").read_text()
    resources = [item.get("Properties", {}) for item in json.loads(text)["Resources"].values()]
    (parameter,) = [item for item in resources if item.get("Name") == f"/barflow/{env}/runtime"]
    parts = parameter["Value"]["Fn::Join"][1]
    return "".join(part if isinstance(part, str) else "token" for part in parts)


def contract_of(env: str, **changes: Mapping[str, Any]) -> RuntimeContract:
    """Return the contract of an environment. ``airflow={"port": 1}`` changes that field of that section."""
    made = parse(_template(env))
    fields = {name: getattr(made, name).model_copy(update=dict(values)) for name, values in changes.items()}
    return made.model_copy(update={"region": REGION, **fields})
