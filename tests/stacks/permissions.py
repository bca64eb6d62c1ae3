"""What does a role allow? Its statements as a flat list, for tests that say what must be in it and what must not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aws_cdk import aws_iam as iam


@dataclass(frozen=True)
class Right:
    """One action on one resource, under a condition (JSON, sorted). A resource's tokens are JSON as well."""

    action: str
    resource: str
    condition: str


def rights(template: Mapping[str, Any], role: str) -> set[Right]:
    """The rights that a template's policies give to the role whose logical id starts so."""
    found = set()
    for resource in template["Resources"].values():
        if resource["Type"] != "AWS::IAM::Policy":
            continue
        properties = resource["Properties"]
        if any(str(item.get("Ref", "")).startswith(role) for item in properties["Roles"]):
            found |= set(_flat(properties["PolicyDocument"]))
    return found


def rights_of(role: iam.Role) -> set[Right]:
    """The rights of a role that is still being built, from its own policy."""
    policy = role.node.find_child("DefaultPolicy")
    assert isinstance(policy, iam.Policy)
    return set(_flat(policy.stack.resolve(policy.document)))


def _flat(document: Mapping[str, Any]) -> Iterator[Right]:
    for statement in document["Statement"]:
        if statement["Effect"] != "Allow":
            continue
        condition = json.dumps(statement.get("Condition", {}), sort_keys=True)
        for action in _list(statement["Action"]):
            for resource in _list(statement["Resource"]):
                text = resource if isinstance(resource, str) else json.dumps(resource, sort_keys=True)
                yield Right(action, text, condition)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
