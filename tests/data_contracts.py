"""Helpers of the tests of datacontract.yaml: run tools/check_contract.py in the environment of datacontract-cli."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / "build" / "contract" / "bin" / "python"
PROGRAM = ROOT / "tools" / "check_contract.py"


def in_environment(*arguments: object, stdin: str = "", **settings: object) -> subprocess.CompletedProcess[str]:
    """Run Python in the environment of datacontract-cli, and return how it ended."""
    assert PYTHON.exists(), "run make build/contract/.ready"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {name: str(value) for name, value in settings.items()}
    command = [str(PYTHON), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True)


def check(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run tools/check_contract.py and return how it ended."""
    return in_environment(PROGRAM, *arguments, **settings)


def written(folder: Path, name: str, contract: Mapping[str, Any]) -> Path:
    """Write a contract into a folder and return its path."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(contract, sort_keys=False))
    return path
