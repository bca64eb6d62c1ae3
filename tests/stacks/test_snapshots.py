"""Are the committed templates those that the code makes? A review compares with them, so they must be true."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from deployments import Deployment

from config.environment import Environment
from config.environments import ENVIRONMENTS
from tools.review import ROOT, SNAPSHOTS, compare, normalised


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_baseline_is_what_the_code_makes(name: str, synthesize: Callable[[Environment], Deployment]) -> None:
    import json

    made = synthesize(ENVIRONMENTS[name]())
    folder = ROOT / SNAPSHOTS / name
    held = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    now = {f"Barflow-{name}-{part}": normalised(template) for part, template in made.templates.items()}
    assert set(held) == set(now)
    changes = [change for stack in held for change in compare(stack, held[stack], now[stack])]
    hint = f"run `make diff ENV={name}`, then `.venv/bin/python tools/review.py {name} --update`"
    assert not changes, f"{hint}: {changes[:3]}"
