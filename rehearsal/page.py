"""The rehearsal's page in Markdown: what the rehearsal proves, what in it is real, and the table of its last run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

TEMPLATE = Path(__file__).with_name("rehearsal.md.j2")


@dataclass(frozen=True)
class Step:
    """A step that succeeded: its name, its duration in seconds, and what it found."""

    name: str
    seconds: float
    found: str


def render_page(env: str, steps: Sequence[Step]) -> str:
    """Return the page for a rehearsal of an environment."""
    # Markdown for a file of the repository, not HTML.
    templates = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    templates.filters |= {"cell": _cell, "indented": _indented}
    return templates.from_string(TEMPLATE.read_text()).render(env=env, steps=steps, cores=os.cpu_count())


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|")


def _indented(text: str) -> str:
    return ("&nbsp;&nbsp;" if text.startswith("  ") else "") + _cell(text)
