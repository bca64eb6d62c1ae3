"""A page that a program writes says what the program would write today, apart from what it measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.__main__ import CHAPTERS
from rehearsal.page import TEMPLATE

ROOT = Path(__file__).parents[2]


def words(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_performance_explains_each_measurement_as_its_benchmark_does(chapter: str) -> None:
    meaning = CHAPTERS[chapter].__globals__["MEANING"]
    assert words(meaning) in words((ROOT / "docs" / "performance.md").read_text())


def test_the_rehearsal_is_described_as_its_program_does() -> None:
    fixed = [part for part in re.split(r"\{\{.*?\}\}|\{%.*?%\}", TEMPLATE.read_text()) if len(part) > 20]
    page = words((ROOT / "docs" / "rehearsal.md").read_text())
    assert len(fixed) >= 2
    assert [part for part in fixed if words(part) not in page] == []
