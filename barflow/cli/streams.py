"""Output streams that cannot encode every character: a terminal or a pipe in another encoding than UTF-8."""

from __future__ import annotations

import codecs
import io
import sys

ERRORS = "barflow.plain"
# What replaces the characters of barflow's own messages. Rich draws its tables in ASCII by itself.
PLAIN = {"✓": "ok", "✗": "X", "…": "...", "–": "-", "—": "-", "×": "x", "→": "->", "·": "-", "−": "-", "°": " deg"}


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    shown = (PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in wrong)
    return "".join(shown), error.end


def accept_every_character() -> None:
    """Have stdout and stderr write a plain form of each character that their encoding lacks."""
    codecs.register_error(ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)
