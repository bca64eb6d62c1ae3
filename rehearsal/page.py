"""What does the rehearsal's page say? What it proves, what is real in it, and its last table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

TEMPLATE = Path(__file__).with_name("rehearsal.md.j2")


@dataclass(frozen=True)
class Done:
    """A step that went well: its name, its seconds, what it found."""

    name: str
    seconds: float
    found: str


def page(env: str, done: Sequence[Done]) -> str:
    """The page, in Markdown."""
    # Markdown for a file of the repository, not HTML.
    templates = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    templates.filters |= {"cell": _cell, "indented": _indented}
    return templates.from_string(TEMPLATE.read_text()).render(env=env, done=done, cores=os.cpu_count())


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|")


def _indented(text: str) -> str:
    return ("&nbsp;&nbsp;" if text.startswith("  ") else "") + _cell(text)
