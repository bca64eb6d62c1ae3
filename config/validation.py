"""Base model of all settings. It checks each setting and explains a wrong one in one line."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

T = TypeVar("T")


class ConfigError(ValueError):
    """One or more wrong settings. The message has a line per problem: the setting, its value and what is allowed."""


class Config(BaseModel):
    """Checked settings that never change.

    The title of a subclass is its place in the environment. The description of a field says what is allowed, or the
    unit of a number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, **values: Any) -> None:
        """Raise ConfigError for settings that are not allowed."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = [_explain(type(self), found) for found in error.errors()]
            raise ConfigError("\n".join(problems)) from None


def _once(values: tuple[T, ...]) -> tuple[T, ...]:
    repeated = [str(value) for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise ValueError(f"must have each only once, and {', '.join(repeated)} is repeated")
    return values


def _not_empty(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError("must have at least one")
    return values


# Tuples without repeated values.
Once = Annotated[tuple[T, ...], AfterValidator(_once)]
OnceNotEmpty = Annotated[tuple[T, ...], AfterValidator(_once), AfterValidator(_not_empty)]


def _explain(model: type[Config], error: ErrorDetails) -> str:
    """Return one line that names the setting, its value and what is allowed."""
    kind = error["type"]
    cause = error["ctx"]["error"] if kind == "value_error" else ""
    if isinstance(cause, ConfigError):  # settings within these settings
        return str(cause)
    reason = str(cause)
    if not error["loc"]:  # a rule about several settings: its own message names them
        return reason or error["msg"]
    setting, title = str(error["loc"][0]), model.model_config.get("title")
    name = f"{title}.{setting}" if title else setting
    if kind == "extra_forbidden":
        return f"{name} is not a setting: the settings are {', '.join(model.model_fields)}"
    if kind == "literal_error":
        reason = f"must be {error['ctx']['expected']}"
    reason = reason or _allowed(model.model_fields[setting]) or error["msg"].replace("Input should be", "must be")
    return f"{name} is missing: {reason}" if kind == "missing" else f"{name} is {error['input']!r}: {reason}"


def _allowed(field: FieldInfo) -> str:
    """Return what a field allows, or an empty string when the field does not say."""
    low, high = (
        next((getattr(bound, name) for bound in field.metadata if hasattr(bound, name)), None) for name in ("ge", "le")
    )
    words = ["a number" if field.annotation is float else "a whole number"] if low is not None else []
    if low is not None:
        words.append(f"from {low:,}" if high is None else f"from {low:,} to {high:,}")
    if field.description:
        words.append(field.description)
    return f"must be {' '.join(words)}" if words else ""
