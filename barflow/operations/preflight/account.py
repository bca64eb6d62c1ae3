"""The AWS account of the caller's profile: its number, its region, and what is deployed in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from barflow.errors import aws_error_code
from barflow.operations.checks import Check, missing_permission

LOG_IN = "aws sso login, or set AWS_PROFILE to a profile that works (aws sts get-caller-identity shows its account)"


@dataclass
class Account:
    """An account, its partition and a region, with clients of the caller's profile."""

    number: str
    partition: str
    region: str
    make_client: Callable[[str], Any]
    _clients: dict[str, Any] = field(default_factory=dict)
    _resources: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)

    def places(self) -> dict[str, str]:
        """Return the parts of an ARN: partition, region and account."""
        return {"partition": self.partition, "region": self.region, "account": self.number}

    def client(self, service: str) -> Any:
        """Return the client of a service."""
        if service not in self._clients:
            self._clients[service] = self.make_client(service)
        return self._clients[service]

    def stack_resources(self, stack: str) -> dict[str, tuple[str, str]]:
        """Return the type and physical id of each resource of a stack, by logical id. Empty if there is no stack.

        Resources that were not created, or that the stack left behind (DELETE_SKIPPED), are not among them.
        """
        if stack not in self._resources:
            pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
            found = answer_or_none(lambda: [item for page in pages for item in page["StackResourceSummaries"]], STACK)
            self._resources[stack] = {
                item["LogicalResourceId"]: (item["ResourceType"], item.get("PhysicalResourceId", ""))
                for item in found or ()
                if not item["ResourceStatus"].startswith(("DELETE_", "CREATE_FAILED"))
            }
        return self._resources[stack]

    def not_deployed(self, resources: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those of the resources, given as (stack, logical id), that their stacks do not have yet."""
        return [(stack, name) for stack, name in resources if name not in self.stack_resources(stack)]


# CloudFormation's code for a stack that does not exist. It is also its code for other wrong requests.
STACK = ("ValidationError",)


def answer_or_none(ask: Callable[[], Any], codes: Iterable[str]) -> Any:
    """Return the answer of a call, or None if it raises a ClientError with one of the codes."""
    from botocore.exceptions import ClientError

    try:
        return ask()
    except ClientError as error:
        if aws_error_code(error) in codes:
            return None
        raise


def find_account(number: str | None, region: str | None) -> tuple[Check, Account | None]:
    """Return the check of the caller's credentials and region, and the account, or None if the check failed.

    ``number`` and ``region`` come from the environment's settings. If they are None, the caller's profile decides.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    name = "credentials"
    try:
        session = boto3.Session(region_name=region)
        if not session.region_name:
            return Check(name, False, "no region", "export AWS_REGION=us-east-1"), None
        config = Config(connect_timeout=10, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 5})
        account = Account("", "", session.region_name, lambda service: session.client(service, config=config))
        caller = account.client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        return Check(
            name, False, f"AWS does not accept the credentials ({aws_error_code(error)}: {error})", LOG_IN
        ), None
    account.number, account.partition = str(caller["Account"]), str(caller["Arn"]).split(":")[1]
    found = f"{caller['Arn']} in {account.region}"
    if number not in (None, account.number):
        fix = f"export AWS_PROFILE=PROFILE_OF_{number}"
        return Check(name, False, f"{found}, and the environment is deployed to account {number}", fix), None
    return Check(name, True, found), account


def unanswered(name: str, essential: bool, error: Exception) -> Check:
    """Return the check whose call AWS did not answer. It fails if it is essential, else it is a note."""
    permission = missing_permission(error)
    if permission is None:
        reason = str(error).splitlines()[0]
        return Check(name, not essential, f"not checked: {reason}", "run the command again")
    fix = f"allow {permission} to your role; docs/deploy.md lists the permissions of preflight"
    return Check(name, not essential, f"not checked: {permission} is denied", fix)
