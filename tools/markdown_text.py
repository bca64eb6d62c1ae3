"""Markdown text: pages, tables and code blocks of the generated documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markdown.extensions.toc import slugify  # type: ignore[import-untyped]


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def page(title: str, intro: str, *parts: str) -> str:
    """Return a page with its title, an introduction and its parts."""
    return "\n\n".join([f"# {title}", intro, *(part.strip() for part in parts)]) + "\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def anchor(title: str) -> str:
    """Return the address of a heading on its page, as MkDocs makes it."""
    return str(slugify(title, "-"))


def code(*lines: str) -> str:
    """Return a code block."""
    return "```\n" + "\n".join(lines) + "\n```"


def prose(text: str | None) -> str:
    """Return a docstring's text with reStructuredText literals as Markdown code."""
    return re.sub(r"``(.+?)``", r"`\1`", re.sub(r"\n[ \t]+", "\n", text or "")).strip()
