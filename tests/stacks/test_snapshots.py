"""The committed templates are those that the code synthesizes. A review compares a change with them."""

from __future__ import annotations

import json

import pytest
from deployments import Synthesize

from config.environments import ENVIRONMENTS
from tools.review import ROOT, SNAPSHOTS, compare, normalised


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_committed_templates_are_those_of_the_code(name: str, synthesize: Synthesize) -> None:
    deployment = synthesize(ENVIRONMENTS[name]())
    folder = ROOT / SNAPSHOTS / name
    committed = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    now = {f"Barflow-{name}-{part}": normalised(template) for part, template in deployment.templates.items()}
    assert set(committed) == set(now)
    changes = [change for stack in committed for change in compare(stack, committed[stack], now[stack])]
    hint = f"run `make diff ENV={name}`, then `.venv/bin/python tools/review.py {name} --update`"
    assert not changes, f"{hint}: {changes[:3]}"
