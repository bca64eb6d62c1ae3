"""Symbols: the one check of every symbol that enters, from settings, options, files, rules and the page's API."""

from __future__ import annotations

import re

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


def parse_symbols(text: str) -> tuple[str, ...]:
    """Return the symbols of a comma-separated text: upper case, in order, without duplicates.

    ``"aapl, MSFT"`` gives ``("AAPL", "MSFT")``. Raises BadInputError for an empty list or an invalid symbol.
    """
    symbols = tuple(dict.fromkeys(check_symbol(part.strip()) for part in text.split(",") if part.strip()))
    if not symbols:
        raise BadInputError(
            "no symbols given: name at least one, such as --symbols AAPL,MSFT or BARFLOW_SYMBOLS=AAPL,MSFT"
        )
    return symbols
