"""Which deployment do programs under test belong to? Its contract as the template has it, a word for each token."""

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
    (parameter,) = [item for item in json.loads(text)["Resources"].values() if item["Type"] == "AWS::SSM::Parameter"]
    parts = parameter["Properties"]["Value"]["Fn::Join"][1]
    return "".join(part if isinstance(part, str) else "token" for part in parts)


def contract_of(env: str, **changes: Mapping[str, Any]) -> RuntimeContract:
    """The contract of an environment; ``airflow={"port": 1}`` changes that field of that section."""
    made = parse(_template(env))
    fields = {name: getattr(made, name).model_copy(update=dict(values)) for name, values in changes.items()}
    return made.model_copy(update={"region": REGION, **fields})
