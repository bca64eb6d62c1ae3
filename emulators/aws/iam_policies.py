"""Do policies allow a call? By IAM's rules for the policies of an identity: a Deny wins, else one Allow is needed.

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
class Call:
    """What a policy is asked for. ``resource`` is an ARN, or ``*`` where the action has none.

    ``context`` has the condition keys that the call brings, each with its values.
    """

    action: str
    resource: str = "*"
    context: Mapping[str, Values] = field(default_factory=dict)


def allowed(statements: Iterable[Statement], call: Call) -> bool:
    """Raises ValueError for a condition's operator that is not known here, rather than to pass over it."""
    effects = {statement["Effect"] for statement in statements if _is_about(statement, call)}
    return effects == {"Allow"}


def _is_about(statement: Statement, call: Call) -> bool:
    return (
        _named(statement, "Action", call.action, re.IGNORECASE)
        and _named(statement, "Resource", call.resource)
        and all(
            _holds(operator, key, _values(wanted), call.context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _named(statement: Statement, element: str, name: str, flags: int = 0) -> bool:
    """Whether the element names it, or its NotElement does not."""
    if element in statement:
        return _like(name, _values(statement[element]), flags)
    return not _like(name, _values(statement[f"Not{element}"]), flags)


def _holds(operator: str, key: str, wanted: Values, context: Mapping[str, Values]) -> bool:
    """One key of a condition. A key that the call does not bring fails it, unless the operator says otherwise."""
    quantifier, _, plain = operator.rpartition(":")
    given = next((values for name, values in context.items() if name.lower() == key.lower()), None)
    if plain == "Null":
        return (given is None) == (wanted == ("true",))
    if given is None:
        return quantifier == "ForAllValues" or plain.endswith("IfExists") or "Not" in plain
    name = plain.removesuffix("IfExists")
    test, negated = OPERATORS.get(name.replace("Not", "")), "Not" in name
    if test is None:
        raise ValueError(f"the condition {operator} on {key} is not known here")
    found = (test(value, wanted) != negated for value in given)
    return all(found) if quantifier == "ForAllValues" or negated else any(found)


def _equal(value: str, wanted: Values) -> bool:
    return value in wanted


def _equal_in_any_case(value: str, wanted: Values) -> bool:
    return value.lower() in {item.lower() for item in wanted}


def _like(value: str, wanted: Values, flags: int = 0) -> bool:
    return any(_pattern(item, flags).fullmatch(value) for item in wanted)


@cache
def _pattern(text: str, flags: int) -> re.Pattern[str]:
    """``*`` is any characters, slashes and colons too, ``?`` is one."""
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), flags | re.DOTALL)


def _values(given: Any) -> Values:
    """One value or several, as text: JSON's true is IAM's ``true``."""
    found = given if isinstance(given, list) else [given]
    return tuple(str(item).lower() if isinstance(item, bool) else str(item) for item in found)


OPERATORS: Mapping[str, Callable[[str, Values], bool]] = {
    "StringEquals": _equal,
    "StringEqualsIgnoreCase": _equal_in_any_case,
    "StringLike": _like,
    "ArnEquals": _like,
    "ArnLike": _like,
    "Bool": _equal_in_any_case,
}
