"""Evaluation of resource policies: topics, queues, functions, buckets, keys, and the trust policies of roles.

A service's call is allowed if the policy of the resource allows it. A call of a role of the same account is allowed if
its own policies or the resource's allow it and none denies it. A key is different: its policy alone decides, unless it
allows the account and so leaves the decision to the policies of the account's roles.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from emulators.aws.account import ACCOUNT
from emulators.aws.iam_policies import Permission, Statement, is_allowed, is_denied

REQUESTS = Path(__file__).with_name("service_requests.json")
ACCOUNT_ROOT = f"arn:aws:iam::{ACCOUNT}:root"
# If the service sends keys of the source, a statement for it must have one of these in its conditions.
SOURCE_KEYS = ("aws:source", "kms:encryptioncontext:", "kms:calleraccount", "kms:viaservice")
# Every call between services is encrypted.
TLS = {"aws:SecureTransport": ("true",), "s3:TlsVersion": ("1.3",)}


@dataclass(frozen=True)
class Caller:
    """The caller: a service by its principal, such as events.amazonaws.com, or a role by its ARN.

    ``statements`` are the statements of the role's own policies.
    """

    principal: str
    statements: tuple[Statement, ...] = field(default=(), repr=False)

    @property
    def is_role(self) -> bool:
        """Return whether the caller is a role."""
        return self.principal.startswith("arn:")


def statements_for(document: Mapping[str, Any], caller: Caller) -> list[Statement]:
    """Return the statements of a resource policy that apply to the caller."""
    return [item for item in _statements(document) if caller.principal in _principals(item) or _everyone(item, caller)]


def refusal(caller: Caller, permission: Permission, document: Mapping[str, Any] | None) -> str | None:
    """Return why a call is denied, or None if it is allowed. ``document`` is the policy of the resource, if any."""
    asked = Permission(permission.action, permission.resource, {**TLS, **permission.context})
    of_resource = statements_for(document, caller) if document else []
    if is_denied([*of_resource, *caller.statements], asked):
        return "a policy denies it"
    if is_allowed(of_resource, asked):
        return None
    if not caller.is_role:
        return "the resource policy does not allow it" if document else "the resource has no policy"
    if asked.action.startswith("kms:") and not _leaves_it_to_the_account(document, asked):
        return "the key policy does not allow it"
    return None if is_allowed(caller.statements, asked) else "the role's policies do not allow it"


def sent_keys(service: str, action: str) -> tuple[str, ...]:
    """Return the condition keys that a service sends with an action."""
    name = "logs" if service.startswith("logs.") else service
    return next((keys for known, actions, keys in _requests() if known == name and action in actions), ())


def unconditioned(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield each service that a statement allows without a condition on the source, although the service sends one."""
    for statement in _statements(document):
        keys = [key.lower() for test in statement.get("Condition", {}).values() for key in test]
        if statement["Effect"] != "Allow" or any(key.startswith(SOURCE_KEYS) for key in keys):
            continue
        for service in _named(statement, "Service"):
            if any(sent_keys(service, action) for action in _matching_actions(statement)):
                yield service


def _matching_actions(statement: Statement) -> list[str]:
    """Return the listed actions that a statement allows on some resource."""
    anything = {**statement, "Resource": "*", "Condition": {}}
    return [action for _, actions, _ in _requests() for action in actions if is_allowed([anything], Permission(action))]


@cache
def _requests() -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    calls = json.loads(REQUESTS.read_text(encoding="utf-8"))["calls"]
    return tuple((call["service"], tuple(call["actions"]), tuple(call["keys"])) for call in calls)


def _statements(document: Mapping[str, Any]) -> Iterable[Statement]:
    found = document["Statement"]
    # The trust policy of a role has no Resource.
    return [{"Resource": "*", **item} for item in (found if isinstance(found, list) else [found])]


def _principals(statement: Statement) -> set[str]:
    """Return the principals of a statement. Raise ValueError for NotPrincipal, which is not supported."""
    if "NotPrincipal" in statement:
        raise ValueError("NotPrincipal is not supported: add it to resource_policies")
    principal = statement.get("Principal", {})
    if isinstance(principal, str):
        return {principal}
    return {name for kind in principal for name in _named(statement, kind)}


def _named(statement: Statement, kind: str) -> list[str]:
    principal = statement.get("Principal", {})
    found = principal.get(kind, []) if isinstance(principal, dict) else []
    return [found] if isinstance(found, str) else list(found)


def _everyone(statement: Statement, caller: Caller) -> bool:
    """Return whether a statement applies to everyone. A Deny for the account applies to each of its roles."""
    principals = _principals(statement)
    own = caller.is_role and statement["Effect"] == "Deny" and bool(principals & {ACCOUNT_ROOT, ACCOUNT})
    return "*" in principals or own


def _leaves_it_to_the_account(document: Mapping[str, Any] | None, permission: Permission) -> bool:
    """Return whether a key's policy allows the account, and so leaves the decision to the policies of its roles."""
    root = [item for item in _statements(document or {"Statement": []}) if _principals(item) & {ACCOUNT_ROOT, ACCOUNT}]
    return is_allowed(root, permission)
