"""No pattern of the library takes long for a hostile text: messages of the vendor, of Spark and of files reach them."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time

import pytest

import barflow

PIECES = (
    "a",
    "a.",
    "A",
    "0",
    "0.",
    " ",
    "\n",
    "a\n",
    "-",
    "/",
    "a:",
    "a: ",
    "a=",
    '"',
    "\\",
    "{",
    "Caused by: a.",
    "$a.",
)
LENGTH, SECONDS = 20_000, 1.0


def patterns() -> dict[str, re.Pattern[str]]:
    """Return every compiled pattern of a module of the library by its name."""
    found = {}
    for module in pkgutil.walk_packages(barflow.__path__, "barflow."):
        names = vars(importlib.import_module(module.name))
        found |= {f"{module.name}.{name}": it for name, it in names.items() if isinstance(it, re.Pattern)}
    return {name: pattern for name, pattern in found.items() if isinstance(pattern.pattern, str)}


PATTERNS = patterns()


def test_the_patterns_are_found() -> None:
    assert len(PATTERNS) > 3


@pytest.mark.parametrize("name", PATTERNS)
def test_a_hostile_text_is_searched_quickly(name: str) -> None:
    for piece in PIECES:
        for end in ("", "!"):
            started = time.process_time()
            PATTERNS[name].search(piece * (LENGTH // len(piece)) + end)
            assert time.process_time() - started < SECONDS, (piece, end)
