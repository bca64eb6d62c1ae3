"""The policies of the templates, validated by IAM Access Analyzer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from barflow.operations.checks import Check
from barflow.operations.preflight.account import Account
from barflow.operations.preflight.needs import Needs, Policy

FAILS, SHOWN = "ERROR", ("SECURITY_WARNING", "WARNING")


def policies(needs: Needs, account: Account) -> Iterator[Check]:
    """Validate every policy once. An error fails, a warning is a note, a suggestion is not shown."""
    client = account.client("accessanalyzer")
    different = {(item.kind, item.attached_to, item.document): item for item in needs.policies}
    errors = 0
    for policy in different.values():
        for finding in _findings(client, policy):
            failed = finding["findingType"] == FAILS
            if failed or finding["findingType"] in SHOWN:
                errors += failed
                found = f"{finding['issueCode']}: {finding['findingDetails']}"
                yield Check(
                    f"policy {policy.place}", not failed, found, f"change it in stacks/: {finding['learnMoreLink']}"
                )
    if not errors:
        yield Check("policies", True, f"Access Analyzer finds no error in {len(different)} policies")


def _findings(client: Any, policy: Policy) -> Iterator[dict[str, Any]]:
    asked = {"policyDocument": policy.document, "policyType": policy.kind}
    if policy.attached_to:
        asked["validatePolicyResourceType"] = policy.attached_to
    for page in client.get_paginator("validate_policy").paginate(**asked):
        yield from page["findings"]
