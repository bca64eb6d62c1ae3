"""Each attack of docs/guarantees.md has an outcome and a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "docs" / "guarantees.md").read_text().partition("\n## Attacks\n")[2]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in SECTION.splitlines() if line.startswith("|")]
AREA = re.compile(r"\*\*.+\*\*")
ATTACKS = [row for row in ROWS[2:] if not AREA.fullmatch(row[0])]


def test_attacks_are_found_in_areas() -> None:
    assert len(ATTACKS) >= 20
    assert len(ROWS) - 2 - len(ATTACKS) >= 6
    assert ROWS[0] == ["attack", "outcome", "test"]


@pytest.mark.parametrize("row", ATTACKS, ids=lambda row: row[0][:60])
def test_an_attack_has_an_outcome_and_tests_that_exist(row: list[str]) -> None:
    _, outcome, tests = row
    assert outcome
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
    assert named
    assert tests == ", ".join(f"`{path}::{name}`" for path, name in named)
    for path, name in named:
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"
