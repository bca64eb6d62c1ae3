"""References between the resources of a template, and the properties whose change replaces a resource."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from importlib.resources import files
from typing import Any

from emulators.aws.account import REGION

Bodies = Mapping[str, Any]
# A name in Fn::Sub, such as ${Queue} or ${Queue.Arn}.
SUBSTITUTED = re.compile(r"\$\{([A-Za-z0-9]+)[.}]")
SCHEMAS = files("cfnlint") / "data" / "schemas"


def references(value: Any) -> Iterator[str]:
    """Yield the logical ids that a part of a template refers to, by Ref, Fn::GetAtt, Fn::Sub or DependsOn."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "Ref":
                yield item
            elif key == "Fn::GetAtt":
                yield item[0] if isinstance(item, list) else item.split(".")[0]
            elif key == "Fn::Sub":
                yield from SUBSTITUTED.findall(item if isinstance(item, str) else item[0])
                yield from references(item)
            elif key == "DependsOn":
                yield from [item] if isinstance(item, str) else item
            else:
                yield from references(item)


def in_order(bodies: Bodies, names: Iterable[str]) -> list[str]:
    """Return these logical ids, each after those that it refers to, directly or through other resources."""
    wanted = set(names)
    graph = {name: {found for found in references(body) if found in bodies} - {name} for name, body in bodies.items()}
    return [name for name in TopologicalSorter(graph).static_order() if name in wanted]


def is_replaced(before: Mapping[str, Any], after: Mapping[str, Any], changed: set[str]) -> bool:
    """Return whether an update replaces a resource: its type or a property that only a creation sets has changed.

    ``changed`` holds the parameters and resources whose value has changed.
    """
    if before["Type"] != after["Type"]:
        return True
    for path in create_only(after["Type"]):
        old, new = (_at(body.get("Properties", {}), path) for body in (before, after))
        if old != new or changed & set(references(new)):
            return True
    return False


@cache
def create_only(kind: str) -> tuple[tuple[str, ...], ...]:
    """Return the paths of the properties that CloudFormation sets only on creation, from the type's own schema."""
    types = json.loads((SCHEMAS / "providers" / f"{REGION}.json").read_text(encoding="utf-8"))
    if kind not in types:
        return ()
    schema = json.loads((SCHEMAS / "resources" / f"{types[kind]}.json").read_text(encoding="utf-8"))
    return tuple(tuple(path.split("/")[2:]) for path in schema.get("createOnlyProperties", ()))


def _at(value: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a path. Return the whole list or function that the path passes through."""
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return value if not isinstance(value, dict) or any(key.startswith("Fn::") for key in value) else None
        value = value[part]
    return value
