"""Text from outside: clean settings, remove secrets, show control characters, escape it for Slack.

Text of settings, of Twelve Data, of a database, of a file or of an error passes through here before it is used, logged,
printed or posted. The module imports the standard library only, so that the notify function can contain it.
"""

from __future__ import annotations

import re

REDACTED = "…"

# A quotation mark as text, escaped in JSON within JSON, percent-encoded (also twice), or as in HTML.
_QUOTE = r"(?:\\*[\"'`]|%(?:25)*2[27]|&quot;|&\#39;)"
_SPACE = r"(?:\s|\\+[nrt]|%(?:25)*(?:20|0[9AD])|\+){0,40}+"
_EQUALS = r"(?:[=:]>?|%(?:25)*3[AD])"
_NAME = (
    r"(?:pass(?:word|wd|phrase)|(?<![a-z])(?:pwd?|pass)(?![a-z])|signature|(?<!arn:)(?<!:)secret(?!smanager\b)|token"
    r"|(?:api|access|private|signing|account)[ _.-]?key|credential|webhook|authorization|cookie)"
)
# Words that follow the name of a setting in our own messages.
_PROSE = r"(?!(?:must|field|input|value|string)\b(?!['\"]))"
_SCHEME = r"(?:(?:api[_-]?key|bearer|basic|digest|token)\b(?:[ \t]|%(?:25)*20|\+)+)"
_RULES = (
    # A private key, complete or cut off.
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    # Tokens that are known by their form: Slack, AWS, webhook secrets, JSON web tokens.
    re.compile(
        r"()(?:\bxox[a-z]?[.-][\w.-]+|\bxapp-[\w-]+|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bwhsec_[\w+/=-]+|\beyJ[\w.-]{16,})"
    ),
    re.compile(r"(hooks\.slack(?:-gov)?\.com)(?:/|\\+/|%(?:25)*2F)[^\s\"'<>]*", re.IGNORECASE),
    # The user of a URL or DSN, up to the last @ since a password may contain one. Our own examples stay.
    re.compile(
        r"((?<![\w+.-])[a-z][a-z0-9+.-]{0,30}(?::(?:\\*/){2}|%(?:25)*3A(?:%(?:25)*2F){2}))"
        r"(?!USER(?::PASSWORD)?@)[^\s\"'<>]{1,1000}(?=@|%(?:25)*40)",
        re.IGNORECASE,
    ),
    # "name": "value" and name='value', complete or cut off.
    re.compile(
        rf"({_NAME}[\w.-]{{0,40}}+{_QUOTE}?+(?:{_SPACE}{_EQUALS}{_SPACE}|>|\s){_PROSE}(?:\w{{1,9}}(?=[\"'(])\(?)?"
        rf"(?P<mark>(?P<slash>\\+[\"'])|{_QUOTE}))"
        r"(?(slash)(?:(?!(?<!\\)(?P=mark)).)*|(?:\\.|%(?:25)*5C(?:%(?:25)*[0-9A-F]{2}|.)|(?!(?P=mark)).)*)",
        re.IGNORECASE | re.DOTALL,
    ),
    # name=value, <name>value</name>, and a header with its scheme.
    re.compile(
        rf"({_NAME}[\w.-]{{0,40}}+{_QUOTE}?+(?:{_SPACE}{_EQUALS}{_SPACE}|>){_PROSE}(?:[|>][+-]?\s+)?)"
        rf"(?!{_QUOTE}){_SCHEME}?[^\s<]+",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(--[\w-]{{0,40}}{_NAME}[\w-]{{0,40}}\s+)(?![-\"'])\S+",
        re.IGNORECASE,
    ),
    re.compile(
        r"(\b(?:apikey|bearer|basic)(?:[ \t]|%(?:25)*20|\+){1,9})(?=[^\s]*[\d_=+/-]|[^\s]{16})[^\s\"'<>,;]+",
        re.IGNORECASE,
    ),
)


def redacted(text: str) -> str:
    """Return the text without anything that looks like a secret, such as a password, a key or a Slack address.

    When in doubt, it removes more. Cut a text after the redaction: half of a secret may not look like one.
    """
    for rule in _RULES:
        text = rule.sub(lambda found: f"{found[1]}{REDACTED}", text)
    return text


def visible(text: str, keep: str = "") -> str:
    r"""Return the text with every control character shown as an escape, except those in ``keep``.

    These are the C0 and C1 characters (so escape sequences of terminals, too), directional overrides, line separators,
    characters without width, and halves of surrogate pairs: ``\x1b``, ``\u202e``.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def slack_escaped(text: object, limit: int = 1500, *, lines: bool = False) -> str:
    """Return a value as plain text for a Slack message: without secrets, not read as markup, of limited length.

    It is in one line unless ``lines`` keeps its lines. Slack reads ``<!channel>`` and ``<url|text>`` in every text.
    Backticks stay where they enclose code within a line, since others could reach over what follows.
    """
    parts = [" ".join(line.split()) for line in redacted(str(text)).splitlines()]
    shown = visible(("\n" if lines else " ").join(parts), keep="\n" if lines else "").strip()
    if len(shown) > limit:
        shown = shown[: limit - 1] + "…"
    if "``" in shown or any(line.count("`") % 2 for line in shown.split("\n")):
        shown = shown.replace("`", "'")
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


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


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 symbol`` or ``1,200 bars``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
