"""How a wrong setting is refused: one error that names the field, what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, ip_network


class ConfigError(ValueError):
    """A setting of an environment is wrong. The message names the field and what is allowed."""


def refuse(field: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{field} is {value!r}: {allowed}")


def between(field: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raises ConfigError unless low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise refuse(field, value, f"allowed is a number from {low:g} to {high:g}{' ' + unit if unit else ''}")


def one_of(field: str, value: object, allowed: Sequence[object]) -> None:
    """Raises ConfigError unless the value is one of the allowed."""
    if value not in allowed:
        raise refuse(field, value, "allowed is " + ", ".join(map(str, allowed)))


def network(field: str, value: str) -> IPv4Network:
    """An IPv4 network such as 10.20.0.0/16. Raises ConfigError for anything else, host bits included."""
    try:
        found = ip_network(value)
    except ValueError as error:
        raise refuse(field, value, f"allowed is an IPv4 network such as 10.20.0.0/16 ({error})") from None
    if not isinstance(found, IPv4Network):
        raise refuse(field, value, "allowed is an IPv4 network such as 10.20.0.0/16")
    return found


def each_once(field: str, values: Iterable[object]) -> None:
    """Raises ConfigError when a value is given twice."""
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise refuse(field, value, "each may be given once")
        seen.add(value)
