"""Text that people and their tools write into settings and secrets."""

from __future__ import annotations


def clean(text: str) -> str:
    """Return the text without surrounding white space.

    Raises ValueError, without the text, for a character that does not show, or for quotes around the whole text.
    """
    text = text.strip()
    for place, char in enumerate(text, start=1):
        if not char.isprintable():
            raise ValueError(f"must hold only visible characters; character {place} is U+{ord(char):04X}")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ValueError("must be without the quotes around it")
    return text
