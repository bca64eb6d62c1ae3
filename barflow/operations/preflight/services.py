"""Checks of what the account, its region and its services must have before a deployment."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from barflow.operations.checks import Check
from barflow.operations.preflight.account import STACK, Account, answer_or_none
from barflow.operations.preflight.needs import Needs
from barflow.operations.warehouse_crawl import install_command, is_driver_installed
from barflow.warehouse.authorities import authorities

SPOT_ROLE, SPOT_SERVICE = "AWSServiceRoleForEC2Spot", "spot.amazonaws.com"
SETTINGS = "config/environments.py"
YEAR = timedelta(days=365)
# A stack in one of these states cannot be updated.
BLOCKED = {
    "DELETE_FAILED": "npx cdk destroy {stack} -c env={env}",
    "ROLLBACK_FAILED": "aws cloudformation delete-stack --stack-name {stack}",
    "UPDATE_ROLLBACK_FAILED": "aws cloudformation continue-update-rollback --stack-name {stack}",
    # `cdk deploy` deletes a stack that was rolled back, unless it is protected.
    "ROLLBACK_COMPLETE with termination protection": (
        "aws cloudformation update-termination-protection --no-enable-termination-protection --stack-name {stack}"
    ),
}
WAIT = "wait until it has ended: aws cloudformation describe-stacks --stack-name {stack} --query 'Stacks[].StackStatus'"


def region(needs: Needs, account: Account) -> Iterator[Check]:
    """Check that the region has the resource types and instance families, according to AWS's published lists."""
    found = "; ".join(needs.region_problems) or f"{account.region} has every resource type and instance family"
    fix = f"choose other types, or another region (account and region in {SETTINGS}, or AWS_REGION)"
    yield Check("region", not needs.region_problems, found, fix if needs.region_problems else "")


def zones(needs: Needs, account: Account) -> Iterator[Check]:
    """Check the number of availability zones, and the zones that the settings name."""
    wanted = [{"Name": "zone-type", "Values": ["availability-zone"]}, {"Name": "state", "Values": ["available"]}]
    zones = account.client("ec2").describe_availability_zones(Filters=wanted)["AvailabilityZones"]
    names = sorted(item["ZoneName"] for item in zones)
    missing = sorted(set(needs.zone_names) - set(names))
    ok = len(zones) >= needs.zones and not missing
    asked = f"the VPC needs {', '.join(needs.zone_names) or needs.zones}"
    fix = f"change network.zones or network.zone_names in {SETTINGS}"
    yield Check("availability zones", ok, f"{account.region} has {', '.join(names)}; {asked}", "" if ok else fix)


def bootstrap(needs: Needs, account: Account) -> Iterator[Check]:
    """Check the version of the CDK bootstrap stack."""
    parameter = needs.bootstrap_parameter
    found = answer_or_none(lambda: account.client("ssm").get_parameter(Name=parameter), ["ParameterNotFound"])
    version = int(found["Parameter"]["Value"]) if found else 0
    ok = version >= needs.bootstrap_version
    state = f"version {version}" if version else f"{account.region} is not bootstrapped"
    fix = f"npx cdk bootstrap aws://{account.number}/{account.region}"
    yield Check("CDK bootstrap", ok, f"{state}, needs {needs.bootstrap_version}", "" if ok else fix)


def stacks(needs: Needs, account: Account) -> Iterator[Check]:
    """Check that no stack is in a state in which it cannot be deployed."""
    states = {stack: state for stack in needs.stacks if (state := _state(account, stack))}
    blocked = {stack: state for stack, state in states.items() if _is_blocked(state)}
    for stack, state in blocked.items():
        fix = BLOCKED.get(state, WAIT).format(stack=stack, env=needs.env)
        yield Check(f"stack {stack}", False, f"it is in {state}", fix)
    if not blocked:
        yield Check("stacks", True, f"{len(states)} of {len(needs.stacks)} are deployed, and none is blocked")


def _is_blocked(state: str) -> bool:
    """Return whether a stack in this state cannot be updated. In REVIEW_IN_PROGRESS it has nothing yet."""
    return state in BLOCKED or (state.endswith("_IN_PROGRESS") and state != "REVIEW_IN_PROGRESS")


def _state(account: Account, stack: str) -> str:
    """Return the state of a stack as BLOCKED spells it, or an empty text if there is no such stack."""
    client = account.client("cloudformation")
    answer = answer_or_none(lambda: client.describe_stacks(StackName=stack), STACK)
    if answer is None:
        return ""
    found = answer["Stacks"][0]
    state = str(found["StackStatus"])
    protected = state == "ROLLBACK_COMPLETE" and found.get("EnableTerminationProtection")
    return f"{state} with termination protection" if protected else state


def service_linked_roles(needs: Needs, account: Account) -> Iterator[Check]:
    """Check the service-linked role of Spot. EMR and RDS create theirs; EC2 creates it only in its console."""
    if not needs.spot:
        return
    client = account.client("iam")
    ok = answer_or_none(lambda: client.get_role(RoleName=SPOT_ROLE), ["NoSuchEntity"]) is not None
    found = f"{SPOT_ROLE} exists" if ok else f"there is no {SPOT_ROLE}, and EMR cannot create it for its Spot nodes"
    fix = f"aws iam create-service-linked-role --aws-service-name {SPOT_SERVICE}"
    yield Check("service-linked roles", ok, found, "" if ok else fix)


def emr_types(needs: Needs, account: Account) -> Iterator[Check]:
    """Check that EMR has the instance types of the cluster."""
    offered = set(_offered_by_emr(account.client("emr"), needs.emr_release))
    missing = sorted(set(needs.emr_types) - offered)
    types = ", ".join(missing or sorted(set(needs.emr_types)))
    found = f"{needs.emr_release} has {'no ' if missing else ''}{types} in {account.region}"
    fix = (
        f"choose emr.primary_instance and emr.core_instance in {SETTINGS} from the output of: "
        f"aws emr list-supported-instance-types --release-label {needs.emr_release}"
    )
    yield Check("EMR", not missing, found, fix if missing else "")


def _offered_by_emr(client: Any, release: str) -> Iterator[str]:
    """Yield the instance types of a release."""
    marker: dict[str, str] = {}
    while True:  # botocore has no paginator for this call
        page = client.list_supported_instance_types(ReleaseLabel=release, **marker)
        yield from (item["Type"] for item in page["SupportedInstanceTypes"])
        if not page.get("Marker"):
            return
        marker = {"Marker": page["Marker"]}


def database(needs: Needs, account: Account) -> Iterator[Check]:
    """Check that RDS creates an instance of the class with the version of PostgreSQL."""
    asked = {"Engine": "postgres", "DBInstanceClass": needs.database_class}
    pages = account.client("rds").get_paginator("describe_orderable_db_instance_options").paginate(**asked)
    options = [item for page in pages for item in page["OrderableDBInstanceOptions"]]
    offered = {item["EngineVersion"] for item in options if item["DBInstanceClass"] == needs.database_class}
    version = needs.database_version
    ok = any(item == version or item.startswith(f"{version}.") for item in offered)
    found = f"RDS has {'' if ok else 'no '}{needs.database_class} with PostgreSQL {version} in {account.region}"
    fix = (
        f"choose database.instance_class and database.engine_version in {SETTINGS} from the output of: aws rds "
        "describe-orderable-db-instance-options --engine postgres "
        "--query 'OrderableDBInstanceOptions[].[DBInstanceClass,EngineVersion]'"
    )
    yield Check("RDS", ok, found, "" if ok else fix)


def certificates(needs: Needs, account: Account) -> Iterator[Check]:
    """Check that programs trust a certificate of RDS in this region. Note those that expire within a year."""
    now = datetime.now(UTC)
    known = [item for item in authorities() if item.name.startswith(f"Amazon RDS {account.region} ")]
    valid = [item for item in known if item.valid_until > now]
    soon = [f"{item.name} ({item.valid_until:%Y-%m-%d})" for item in valid if item.valid_until < now + YEAR]
    if not valid:
        found = f"the bundle has no valid certificate of RDS in {account.region}: no program could connect"
    elif soon:
        found = f"these expire within a year: {', '.join(soon)}"
    else:
        found = f"{len(valid)} of {account.region}, valid until {min(item.valid_until for item in valid):%Y-%m-%d}"
    fix = "" if valid and not soon else "refresh the bundle with tools/refresh_rds_authorities.py, then deploy again"
    yield Check("RDS certificates", bool(valid), found, fix)


def budget_tag(needs: Needs, account: Account) -> Iterator[Check]:
    """Note when the budget counts nothing: its tag is not active for cost allocation."""
    tag = needs.budget_tag
    tags = account.client("ce").list_cost_allocation_tags(TagKeys=[tag])["CostAllocationTags"]
    status = next((item["Status"] for item in tags if item["TagKey"] == tag), "")
    if status == "Active":
        yield Check("budget tag", True, f"{tag} is active for cost allocation")
        return
    state = "is not active" if status else "is unknown to Billing until a day after the first deployment"
    fix = (
        "in the account that pays: aws ce update-cost-allocation-tags-status "
        f"--cost-allocation-tags-status TagKey={tag},Status=Active"
    )
    yield Check("budget tag", True, f"{tag} {state}: the budget counts nothing yet", fix)


def secrets(needs: Needs, account: Account) -> Iterator[Check]:
    """Note the secrets that an operator has not set. Only their versions are read, never a value."""
    client = account.client("secretsmanager")
    unset, absent = [], []
    for name in needs.operator_secrets:
        secret = answer_or_none(partial(client.describe_secret, SecretId=name), ["ResourceNotFoundException"])
        if secret is None:
            absent.append(name)
        elif not _was_set(secret):
            unset.append(name)
    fix = f"set them as the runbook describes (Store the secrets): barflow runbook --env {needs.env} --outputs FILE"
    if unset:
        yield Check("secrets", True, f"still placeholders: {', '.join(unset)}", fix)
    elif absent:
        yield Check("secrets", True, f"{len(absent)} to set after the deployment", fix)
    else:
        yield Check("secrets", True, f"{len(needs.operator_secrets)} are set")


def jdbc_driver(needs: Needs, account: Account) -> Iterator[Check]:
    """Note when the JDBC driver of the warehouse's crawler is not in the code bucket."""
    stack, location, sha256 = needs.driver_outputs
    client = account.client("cloudformation")
    answer = answer_or_none(lambda: client.describe_stacks(StackName=stack), STACK)
    values = (
        {item["OutputKey"]: item["OutputValue"] for item in answer["Stacks"][0].get("Outputs", ())} if answer else {}
    )
    if location not in values:
        fix = f"install it as the runbook describes: barflow runbook --env {needs.env} --outputs FILE"
        yield Check("JDBC driver", True, "to install after the deployment, for the warehouse's crawler", fix)
    elif is_driver_installed(account.client("s3"), values[location]):
        yield Check("JDBC driver", True, f"{values[location]} is there")
    else:
        found = f"{values[location]} is not there, and process runs skip the crawl of the warehouse"
        yield Check("JDBC driver", True, found, install_command(values[location], values[sha256]))


def _was_set(secret: Any) -> bool:
    """Return whether a secret has had another value than the one that the deployment generated."""
    return any("AWSPREVIOUS" in stages for stages in secret.get("VersionIdsToStages", {}).values())
