"""JSON schemas as Markdown: the fields of a body, and the settings of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.markdown_text import anchor, prose, table

# What the types and formats of a JSON schema are called on the pages.
NAMES = {
    "string": "text",
    "password": "text (secret)",
    "boolean": "true or false",
    "date-time": "time, UTC",
    "null": "null",
    "integer": "integer",
    "number": "number",
    "date": "date",
    "path": "path",
    "uri": "URL",
}

# What the web framework calls a body of its own.
FRAMEWORK = {"HTTPValidationError": "list of errors"}


def fields(schema: Mapping[str, Any], known: Sequence[str] = ()) -> str:
    """Return the fields of a body that the reader receives."""
    rows = ((f"`{name}`", type_of(field, known), meaning(field)) for name, field in schema["properties"].items())
    return table(("field", "type", "meaning"), rows)


def inputs(schema: Mapping[str, Any], about: str = "meaning") -> str:
    """Return the fields that the reader gives, with their defaults. ``about`` heads their descriptions."""
    required = schema.get("required", [])
    rows = [
        (f"`{name}`", type_of(field), "required" if name in required else default_of(field), meaning(field))
        for name, field in schema["properties"].items()
    ]
    heads = ("setting", "type", "default", about)
    width = len(heads) if any(row[-1] for row in rows) else len(heads) - 1
    return table(heads[:width], (row[:width] for row in rows))


def meaning(schema: Mapping[str, Any]) -> str:
    """Return a field's description as a sentence without its full stop."""
    text = prose(schema.get("description"))
    return text[:1].upper() + text[1:]


def default_of(schema: Mapping[str, Any]) -> str:
    """Return the default of a field, or nothing."""
    value = schema.get("default")
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return "" if value in (None, "") else f"`{value}`"


def type_of(schema: Mapping[str, Any], known: Sequence[str] = ()) -> str:
    """Return a JSON schema's type in words, with a link where it is a body of the page."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{anchor(name)})" if name in known else FRAMEWORK.get(name, name)
    if "anyOf" in schema:
        # An input that may be left out has null as its default: that is not a value to give.
        kinds = [it for it in schema["anyOf"] if it != {"type": "null"} or schema.get("default", "") is not None]
        return " or ".join(type_of(item, known) for item in kinds)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'], known)}"
    kind = NAMES.get(schema.get("format") or schema.get("type", ""), schema.get("type", "any"))
    bounds = [
        f"{word} {schema[key]:,}"
        for key, word in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
        if key in schema
    ]
    return " ".join([kind, *bounds])
