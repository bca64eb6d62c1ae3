"""The calls of preflight need the permissions of its documented policy, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

from account_needs import needs
from aws_parts import Aws, allow

from barflow.operations.checks import Check
from barflow.operations.preflight.account import Account
from barflow.operations.preflight.run import run
from emulators.aws.account import ACCOUNT, REGION

POLICY = Path(__file__).parents[2] / "docs" / "preflight-policy.json"
DENIED = re.compile(r"not checked: (\S+) is denied")


def documented() -> list[str]:
    (statement,) = json.loads(POLICY.read_text())["Statement"]
    return list(statement["Action"])


def checks(aws: Aws, role: str, *actions: str) -> list[Check]:
    """Return the checks of an operator whose role allows only these actions."""
    aws.create_role(role, allow([*actions]))
    return list(run(needs(), Account(ACCOUNT, "aws", REGION, lambda service: aws.client(service, role))))


def test_the_documented_policy_allows_every_call(aws: Aws) -> None:
    assert [check for check in checks(aws, "operator", *documented()) if DENIED.match(check.found)] == []


def test_allowing_each_permission_that_a_check_names_ends_with_the_documented_policy(aws: Aws) -> None:
    allowed: set[str] = {"sts:GetCallerIdentity"}
    for number in range(10):
        denied = {found[1] for check in checks(aws, f"new-{number}", *allowed) if (found := DENIED.match(check.found))}
        if not denied:
            break
        allowed |= denied
    # The default of a quota is asked for only without a value of the account's own, the driver only after a deployment.
    not_asked = {"servicequotas:GetAWSDefaultServiceQuota", "s3:ListBucket"}
    assert allowed - {"sts:GetCallerIdentity"} == set(documented()) - not_asked
