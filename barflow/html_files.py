"""HTML reports of one file each: a security policy that allows only their own style and script, and the write."""

from __future__ import annotations

import base64
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from barflow.errors import BarflowError


def content_policy(style: str, script: str = "") -> str:
    """Return a content security policy: nothing is loaded, and only this style and script are used."""
    scripts = f"; script-src '{_hash(script)}'" if script else ""
    return f"default-src 'none'; img-src data:; style-src '{_hash(style)}'{scripts}"


def write_html(page: Path, text: str, kept: str, next_step: str) -> None:
    """Write a page, completely or not at all.

    Raises BarflowError if it cannot be written. ``kept`` and ``next_step`` are sentences of its message: what was kept,
    and what to run.
    """
    unfinished = page.with_name(f".{page.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(page)
    except OSError as error:
        with suppress(OSError):  # no folder for it, or a name that is too long
            unfinished.unlink()
        raise BarflowError(f"the report {page} could not be written: {error.strerror}. {kept} {next_step}") from None


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
