"""What AWS says about an account, where moto does not: quotas, cost tags, what RDS offers, service-linked roles.

The emulated account has AWS's default quotas, and more vCPUs, which an account gets after some use.
"""

from __future__ import annotations

import json
from typing import Any

from moto.athena.models import AthenaBackend
from moto.awslambda.models import lambda_backends
from moto.ce.responses import CostExplorerResponse
from moto.cloudformation.models import cloudformation_backends
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult, PaginatedResult
from moto.glue.exceptions import EntityNotFoundException
from moto.glue.responses import GlueResponse
from moto.iam.models import IAMBackend, Role
from moto.rds.responses import RDSResponse
from moto.servicequotas.models import ServiceQuotasBackend
from moto.servicequotas.responses import ServiceQuotasResponse

from config.aws import facts
from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.patches import Function, add, wrap
from emulators.aws.rest_apis import Parameters, operation

# By service and code (AWS General Reference, "Service endpoints and quotas").
DEFAULT_QUOTAS = {
    ("ec2", "L-1216C47A"): 5.0,  # vCPUs of running on-demand Standard instances
    ("ec2", "L-34B43A08"): 5.0,  # vCPUs of Standard Spot instance requests
    ("ec2", "L-0263D0A3"): 5.0,  # Elastic IP addresses
    ("lambda", "L-B99A9384"): 1000.0,  # concurrent executions
    ("vpc", "L-F678F1CE"): 5.0,  # VPCs
}
QUOTAS = DEFAULT_QUOTAS | {("ec2", "L-1216C47A"): 64.0, ("ec2", "L-34B43A08"): 64.0}
# The tags that are active for cost allocation.
ACTIVE_TAGS: set[str] = set()
# The names of service-linked roles, which moto derives from the service.
LINKED_ROLES = {
    "elasticmapreduce.amazonaws.com": "AWSServiceRoleForEMRCleanup",
    "spot.amazonaws.com": "AWSServiceRoleForEC2Spot",
}


@wrap(ServiceQuotasBackend, "get_service_quota")
def _quota(original: Function, backend: ServiceQuotasBackend, service_code: str, quota_code: str) -> dict[str, Any]:
    """Return a quota of the account."""
    value = QUOTAS.get((service_code, quota_code))
    if value is None:
        return dict(original(backend, service_code=service_code, quota_code=quota_code))
    return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": value, "Adjustable": True}


@add(ServiceQuotasResponse, "get_aws_default_service_quota")
def _default_quota(response: ServiceQuotasResponse) -> str:
    """Return AWS's default of a quota."""
    asked = json.loads(response.body)
    value = DEFAULT_QUOTAS[asked["ServiceCode"], asked["QuotaCode"]]
    return json.dumps({"Quota": {**asked, "Value": value, "Adjustable": True}})


@add(ServiceQuotasResponse, "request_service_quota_increase")
def _raise_quota(response: ServiceQuotasResponse) -> str:
    """Raise a quota at once."""
    asked = json.loads(response.body)
    QUOTAS[asked["ServiceCode"], asked["QuotaCode"]] = float(asked["DesiredValue"])
    return json.dumps({"RequestedQuota": asked | {"Status": "APPROVED"}})


@operation("lambda", "GetAccountSettings", "GET", "/2016-08-19/account-settings")
def account_settings(parameters: Parameters) -> dict[str, Any]:
    """Return the concurrency of the account, and what no function has reserved."""
    total = int(QUOTAS["lambda", "L-B99A9384"])
    functions = lambda_backends[ACCOUNT][REGION].list_functions()
    reserved = sum(int(item.reserved_concurrency or 0) for item in functions)
    return {"AccountLimit": {"ConcurrentExecutions": total, "UnreservedConcurrentExecutions": total - reserved}}


@add(CostExplorerResponse, "list_cost_allocation_tags")
def _cost_tags(response: CostExplorerResponse) -> str:
    """Return the active tags of those that are asked for."""
    asked = json.loads(response.body).get("TagKeys", [])
    tags = [{"TagKey": key, "Type": "UserDefined", "Status": "Active"} for key in asked if key in ACTIVE_TAGS]
    return json.dumps({"CostAllocationTags": tags})


@add(CostExplorerResponse, "update_cost_allocation_tags_status")
def _update_cost_tags(response: CostExplorerResponse) -> str:
    """Activate and deactivate tags."""
    for item in json.loads(response.body)["CostAllocationTagsStatus"]:
        change = ACTIVE_TAGS.add if item["Status"] == "Active" else ACTIVE_TAGS.discard
        change(item["TagKey"])
    return json.dumps({"Errors": []})


@wrap(RDSResponse, "describe_orderable_db_instance_options")
def _orderable(original: Function, response: RDSResponse) -> ActionResult:
    """Return what RDS for PostgreSQL offers, by the facts in config/aws."""
    asked, known = response.params, facts.rds()
    if asked.get("Engine") != "postgres":
        result: ActionResult = original(response)
        return result
    options = [
        {"Engine": "postgres", "EngineVersion": version, "DBInstanceClass": f"{family}.{size}"}
        for version in known.engine_versions
        if version not in known.deprecated_versions and "." in version
        for family, sizes in known.classes.items()
        for size in sizes
    ]
    wanted = {name: asked[name] for name in ("EngineVersion", "DBInstanceClass") if asked.get(name)}
    found = [item for item in options if all(item[name] == value for name, value in wanted.items())]
    return PaginatedResult({"OrderableDBInstanceOptions": found})


@wrap(IAMBackend, "create_role")
def _create_role(original: Function, backend: IAMBackend, role_name: str, *arguments: Any, **named: Any) -> Role:
    """Create a role; a service-linked one with the name that AWS gives it."""
    role: Role = original(backend, LINKED_ROLES.get(named.get("linked_service", ""), role_name), *arguments, **named)
    return role


@add(GlueResponse, "get_data_quality_ruleset")
def _ruleset(response: GlueResponse) -> ActionResult:
    """Return a ruleset that a stack has."""
    name = response._get_param("Name")
    for stack in cloudformation_backends[ACCOUNT][REGION].stacks.values():
        for logical_id, body in stack.template_dict.get("Resources", {}).items():
            is_ruleset = body["Type"] == "AWS::Glue::DataQualityRuleset"
            if is_ruleset and stack.resource_map[logical_id].physical_resource_id == name:
                return ActionResult({"Name": name})
    raise EntityNotFoundException(f"Ruleset {name} not found")


@wrap(AthenaBackend, "get_work_group")
def _work_group(original: Function, backend: AthenaBackend, name: str) -> Any:
    """Return a workgroup. Raise AWS's error for a name that does not exist."""
    found = original(backend, name)
    if found is None:
        raise JsonRESTError("InvalidRequestException", f"WorkGroup {name} is not found.")
    return found
