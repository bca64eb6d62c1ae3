"""The permissions of a role in a template, as a flat set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployments import as_list


@dataclass(frozen=True)
class Permission:
    """One allowed action on one resource, under a condition. The condition, and a resource's tokens, are JSON."""

    action: str
    resource: str
    condition: str


def permissions(template: Mapping[str, Any], role: str) -> set[Permission]:
    """Return what a template's policies allow the role whose logical id starts with ``role``."""
    found = set()
    for resource in template["Resources"].values():
        if resource["Type"] not in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            continue
        properties = resource["Properties"]
        if any(str(item.get("Ref", "")).startswith(role) for item in properties.get("Roles", [])):
            found |= set(_allowed(properties["PolicyDocument"]))
    return found


def _allowed(document: Mapping[str, Any]) -> Iterator[Permission]:
    for statement in document["Statement"]:
        if statement["Effect"] != "Allow":
            continue
        condition = json.dumps(statement.get("Condition", {}), sort_keys=True)
        for action in as_list(statement["Action"]):
            for resource in as_list(statement["Resource"]):
                text = resource if isinstance(resource, str) else json.dumps(resource, sort_keys=True)
                yield Permission(action, text, condition)
