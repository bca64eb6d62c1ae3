"""Symbols: the one check of every symbol that enters, from settings, options, files, rules and the page's API."""

from __future__ import annotations

import re
from pathlib import Path

from barflow.errors import BadInputError

# Letters and digits of ASCII, in parts with one separator between them. A symbol is part of paths and of messages.
PATTERN = r"^[A-Z0-9]+([.:/-][A-Z0-9]+)*$"
MAX_LENGTH = 24
EXPECTED = "letters, digits and single . - : / between them, at most 24 characters, such as AAPL or BRK.B"


def is_symbol(text: str) -> bool:
    """Return whether the text is a symbol, in upper or lower case."""
    # Before upper(): it makes ASCII letters of some others.
    return len(text) <= MAX_LENGTH and text.isascii() and re.fullmatch(PATTERN[1:-1], text.upper()) is not None


def check_symbol(text: str) -> str:
    """Return the symbol in upper case. Raise BadInputError if the text is no symbol."""
    if not is_symbol(text):
        raise BadInputError(f"{text[: 2 * MAX_LENGTH]!a} is not a symbol: use {EXPECTED}")
    return text.upper()


def same_symbol(one: str, other: str) -> bool:
    """Return whether two spellings name the same share: ``AAPL:NASDAQ`` and ``aapl``, ``BRK-B`` and ``BRK.B``."""
    return one_spelling(one).partition(":")[0] == one_spelling(other).partition(":")[0]


def one_spelling(symbol: str) -> str:
    """Return the same text for every spelling of a share: vendors write its class after a dot, a dash or a slash."""
    return symbol.strip().upper().replace("-", ".").replace("/", ".")


def parse_symbols(text: str) -> tuple[str, ...]:
    """Return the symbols of a comma-separated text: upper case, in order, without duplicates.

    ``"aapl, MSFT"`` gives ``("AAPL", "MSFT")``. Of several spellings of one share, the first one stays. Raises
    BadInputError for an empty list or an invalid symbol.
    """
    spellings: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        spellings.setdefault(one_spelling(part), check_symbol(part))
    symbols = tuple(spellings.values())
    if not symbols:
        raise BadInputError(
            "no symbols given: name at least one, such as --symbols AAPL,MSFT or BARFLOW_SYMBOLS=AAPL,MSFT"
        )
    return symbols


def read_watch_list(file: Path) -> tuple[str, ...]:
    """Return the symbols of a text file: one per line, ``#`` starts a comment. Upper case, in order, each once.

    Raises BadInputError that names the file and the line.
    """
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise BadInputError(f"watch list {file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise BadInputError(f"watch list {file} is not UTF-8 text. Save the file as UTF-8.") from None
    spellings: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if text := line.partition("#")[0].strip():
            try:
                spellings.setdefault(one_spelling(text), check_symbol(text))
            except BadInputError as error:
                raise BadInputError(f"watch list {file}, line {number}: {error}") from None
    if not spellings:
        raise BadInputError(f"watch list {file} has no symbols: write one per line, such as AAPL")
    return tuple(spellings.values())
