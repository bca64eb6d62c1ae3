"""Quotas: Lambda's concurrent executions, vCPUs, Elastic IP addresses and VPCs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from barflow.operations.checks import Check
from barflow.operations.clusters import ENVIRONMENT_TAG
from barflow.operations.preflight.account import Account, answer_or_none
from barflow.operations.preflight.needs import Needs

# Lambda keeps this many concurrent executions for functions without a reservation (Lambda Developer Guide, "Configuring
# reserved concurrency"). A new account may have a quota of 10, so that nothing can be reserved.
UNRESERVED = 100
# The instance families of EC2's Standard quotas.
STANDARD = "acdhimrtz"


@dataclass(frozen=True)
class Quota:
    """A quota of Service Quotas: its service, its code, and what it limits."""

    service: str
    code: str
    limits: str

    def value(self, account: Account) -> float:
        """Return the quota of the account, or AWS's default if the account has no value of its own."""
        client, which = account.client("service-quotas"), {"ServiceCode": self.service, "QuotaCode": self.code}
        found = answer_or_none(lambda: client.get_service_quota(**which), ["NoSuchResourceException"])
        return float((found or client.get_aws_default_service_quota(**which))["Quota"]["Value"])

    def raise_to(self, value: float) -> str:
        """Return the command that requests a higher quota."""
        return (
            f"aws service-quotas request-service-quota-increase --service-code {self.service} "
            f"--quota-code {self.code} --desired-value {value:.0f}"
        )

    def check(self, account: Account, needed: int, used: int, basis: str) -> Check:
        """Return the check that the quota has room for what is in use already and what the deployment needs."""
        value = self.value(account)
        found = f"needs {needed} {basis}, {used} in use already, the quota is {value:.0f}"
        ok = needed + used <= value
        return Check(f"quota: {self.limits}", ok, found, "" if ok else self.raise_to(needed + used))


CONCURRENCY = Quota("lambda", "L-B99A9384", "Lambda concurrent executions")
ON_DEMAND = Quota("ec2", "L-1216C47A", "vCPUs on demand")
SPOT = Quota("ec2", "L-34B43A08", "vCPUs of Spot")
ELASTIC_IPS = Quota("ec2", "L-0263D0A3", "Elastic IP addresses")
VPCS = Quota("vpc", "L-F678F1CE", "VPCs")


def concurrency(needs: Needs, account: Account) -> Iterator[Check]:
    """Check that the functions' reservations leave the unreserved executions that Lambda requires."""
    limit = account.client("lambda").get_account_settings()["AccountLimit"]
    asked = sum(needs.reserved[resource] for resource in account.not_deployed(needs.reserved))
    total, unreserved = limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]
    ok = asked == 0 or unreserved - asked >= UNRESERVED
    fix = (
        f"{CONCURRENCY.raise_to(total + asked + UNRESERVED - unreserved)}, or set "
        "reserve_concurrency=False in config/environments.py until then"
    )
    yield Check(
        f"quota: {CONCURRENCY.limits}",
        ok,
        f"reserves {asked}, {unreserved} of {total} are unreserved, and Lambda keeps {UNRESERVED} of them",
        "" if ok else fix,
    )


def vcpus(needs: Needs, account: Account) -> Iterator[Check]:
    """Check the vCPUs of the host, of a second host during its replacement, and of a cluster."""
    if special := sorted(item for item in {*needs.on_demand, *needs.spot} if item[0] not in STANDARD):
        yield Check("quota: vCPUs", True, f"not checked for {', '.join(special)}: EC2 has other quotas for this family")
    others = [item for item in _running(account) if not _is_ours(item, needs.env)]
    types = {*needs.on_demand, *needs.spot, *(item["InstanceType"] for item in others)}
    sizes = _vcpus(account, sorted(types))
    for quota, asked, is_spot in ((ON_DEMAND, needs.on_demand, False), (SPOT, needs.spot, True)):
        counts = {item: count for item, count in asked.items() if item[0] in STANDARD}
        if counts:
            mine = [item["InstanceType"] for item in others if (item.get("InstanceLifecycle") == "spot") == is_spot]
            used = sum(sizes[item] for item in mine if item[0] in STANDARD)
            needed = sum(sizes[item] * count for item, count in counts.items())
            basis = ", ".join(f"{count} {item}" for item, count in counts.items())
            yield quota.check(account, needed, used, f"({basis})")


def elastic_ips(needs: Needs, account: Account) -> Iterator[Check]:
    """Check the addresses of the NAT gateways."""
    used = account.client("ec2").describe_addresses()["Addresses"]
    yield ELASTIC_IPS.check(account, len(account.not_deployed(needs.elastic_ips)), len(used), "more")


def vpcs(needs: Needs, account: Account) -> Iterator[Check]:
    """Check the number of VPCs."""
    pages = account.client("ec2").get_paginator("describe_vpcs").paginate()
    used = [item for page in pages for item in page["Vpcs"]]
    yield VPCS.check(account, len(account.not_deployed(needs.vpcs)), len(used), "more")


def _running(account: Account) -> list[Mapping[str, Any]]:
    states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    pages = account.client("ec2").get_paginator("describe_instances").paginate(Filters=states)
    return [item for page in pages for group in page["Reservations"] for item in group["Instances"]]


def _is_ours(instance: Mapping[str, Any], env: str) -> bool:
    """Return whether an instance is a host or a cluster's node of the environment."""
    return {"Key": ENVIRONMENT_TAG, "Value": env} in instance.get("Tags", ())


def _vcpus(account: Account, types: list[str]) -> dict[str, int]:
    """Return the vCPUs of each instance type."""
    found: dict[str, int] = {}
    pages = account.client("ec2").get_paginator("describe_instance_types")
    for start in range(0, len(types), 100):  # EC2 takes at most 100 types in a call
        for page in pages.paginate(InstanceTypes=types[start : start + 100]):
            found |= {item["InstanceType"]: item["VCpuInfo"]["DefaultVCpus"] for item in page["InstanceTypes"]}
    return found
