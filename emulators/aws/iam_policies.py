"""Evaluation of identity-based policies by IAM's rules: a Deny wins, otherwise one Allow is needed.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

Statement = Mapping[str, Any]
Values = tuple[str, ...]


@dataclass(frozen=True)
class Permission:
    """An action on a resource that an API call needs.

    ``resource`` is an ARN, or ``*`` if the action has none. ``context`` holds the condition keys of the request, each
    with its values.
    """

    action: str
    resource: str = "*"
    context: Mapping[str, Values] = field(default_factory=dict)


def is_allowed(statements: Iterable[Statement], permission: Permission) -> bool:
    """Return whether the statements allow it. Raise ValueError for a condition operator that is not supported."""
    effects = {statement["Effect"] for statement in statements if _applies(statement, permission)}
    return effects == {"Allow"}


def is_denied(statements: Iterable[Statement], permission: Permission) -> bool:
    """Return whether a statement denies it explicitly."""
    return any(statement["Effect"] == "Deny" and _applies(statement, permission) for statement in statements)


def _applies(statement: Statement, permission: Permission) -> bool:
    return (
        _matches(statement, "Action", permission.action, re.IGNORECASE)
        and _matches(statement, "Resource", permission.resource)
        and all(
            _holds(operator, key, _values(wanted), permission.context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _matches(statement: Statement, element: str, name: str, flags: int = 0) -> bool:
    """Return whether the element matches the name, or its NotElement does not."""
    if element in statement:
        return _is_like(name, _values(statement[element]), flags)
    return not _is_like(name, _values(statement[f"Not{element}"]), flags)


def _holds(operator: str, key: str, wanted: Values, context: Mapping[str, Values]) -> bool:
    """Return whether one key of a condition holds.

    A key that the request does not have fails the condition, unless the operator says otherwise.
    """
    quantifier, _, plain = operator.rpartition(":")
    given = next((values for name, values in context.items() if name.lower() == key.lower()), None)
    if plain == "Null":
        return (given is None) == (wanted == ("true",))
    if given is None:
        return quantifier == "ForAllValues" or plain.endswith("IfExists") or "Not" in plain
    name = plain.removesuffix("IfExists")
    test, negated = OPERATORS.get(name.replace("Not", "")), "Not" in name
    if test is None:
        raise ValueError(f"the condition operator {operator} on {key} is not supported: add it to OPERATORS")
    results = (test(value, wanted) != negated for value in given)
    return all(results) if quantifier == "ForAllValues" or negated else any(results)


def _equals(value: str, wanted: Values) -> bool:
    return value in wanted


def _equals_ignoring_case(value: str, wanted: Values) -> bool:
    return value.lower() in {item.lower() for item in wanted}


def _is_like(value: str, wanted: Values, flags: int = 0) -> bool:
    return any(_pattern(item, flags).fullmatch(value) for item in wanted)


@cache
def _pattern(text: str, flags: int) -> re.Pattern[str]:
    """Compile a policy's pattern: ``*`` is any characters, slashes and colons too, ``?`` is one character."""
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), flags | re.DOTALL)


def _values(given: Any) -> Values:
    """Return one value or several as text; JSON's true is IAM's ``true``."""
    found = given if isinstance(given, list) else [given]
    return tuple(str(item).lower() if isinstance(item, bool) else str(item) for item in found)


def _is_less(value: str, wanted: Values) -> bool:
    return any(float(value) < float(item) for item in wanted)


OPERATORS: Mapping[str, Callable[[str, Values], bool]] = {
    "StringEquals": _equals,
    "StringEqualsIgnoreCase": _equals_ignoring_case,
    "StringLike": _is_like,
    "ArnEquals": _is_like,
    "ArnLike": _is_like,
    "Bool": _equals_ignoring_case,
    "NumericLessThan": _is_less,
}
