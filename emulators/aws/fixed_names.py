"""Fixed names of resources: a second resource of the same name cannot be created.

A name is unique in an account and region. Resources that an API call created or a deleted stack retained count, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moto.athena.models import athena_backends
from moto.awslambda.models import lambda_backends
from moto.budgets.models import budgets_backends
from moto.cloudformation import parsing
from moto.cloudwatch.models import cloudwatch_backends
from moto.emr.models import emr_backends
from moto.events.models import events_backends
from moto.glue.models import glue_backends
from moto.iam.models import iam_backends
from moto.logs.models import logs_backends
from moto.rds.models import rds_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends
from moto.ssm.models import ssm_backends

from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.dqdl import RULESETS
from emulators.aws.patches import Function, wrap
from emulators.aws.resource_types import RECORDED

Exists = Callable[[str], bool]


class AlreadyExistsError(Exception):
    """Another resource has the name."""


def _in(backends: Any, stored_in: str, region: str = REGION) -> Exists:
    """Return a function that looks for a name in this dictionary of a backend."""
    return lambda name: name in getattr(backends[ACCOUNT][region], stored_in)


def _role_exists(name: str) -> bool:
    return name in {role.name for role in iam_backends[ACCOUNT]["aws"].roles.values()}


def _policy_exists(name: str) -> bool:
    return name in {policy.name for policy in iam_backends[ACCOUNT]["aws"].managed_policies.values()}


def _topic_exists(name: str) -> bool:
    return f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}" in sns_backends[ACCOUNT][REGION].topics


def _function_exists(name: str) -> bool:
    return any(function.function_name == name for function in lambda_backends[ACCOUNT][REGION].list_functions())


def _recorded(kind: str) -> Exists:
    return lambda name: (kind, name) in RECORDED


def _alarm_exists(name: str) -> bool:
    return name in cloudwatch_backends[ACCOUNT][REGION].alarms


def _budget_exists(name: str) -> bool:
    return name in budgets_backends[ACCOUNT]["aws"].budgets[ACCOUNT]


# The property with the name, and the function that returns whether a resource of that name exists.
NAMES: Mapping[str, tuple[str, Exists]] = {
    "AWS::Athena::WorkGroup": ("Name", _in(athena_backends, "work_groups")),
    "AWS::Budgets::Budget": ("Budget/BudgetName", _budget_exists),
    "AWS::CloudWatch::Alarm": ("AlarmName", _alarm_exists),
    "AWS::CloudWatch::Dashboard": ("DashboardName", _in(cloudwatch_backends, "dashboards")),
    "AWS::EMR::SecurityConfiguration": ("Name", _in(emr_backends, "security_configurations")),
    "AWS::Events::Rule": ("Name", lambda name: name in events_backends[ACCOUNT][REGION].event_buses["default"].rules),
    "AWS::Glue::Connection": ("ConnectionInput/Name", _in(glue_backends, "connections")),
    "AWS::Glue::Crawler": ("Name", _in(glue_backends, "crawlers")),
    "AWS::Glue::DataQualityRuleset": ("Name", lambda name: name in RULESETS),
    "AWS::Glue::Database": ("DatabaseInput/Name", _in(glue_backends, "databases")),
    "AWS::Glue::Job": ("Name", _in(glue_backends, "jobs")),
    "AWS::Glue::SecurityConfiguration": ("Name", _in(glue_backends, "security_configurations")),
    "AWS::IAM::ManagedPolicy": ("ManagedPolicyName", _policy_exists),
    "AWS::IAM::Role": ("RoleName", _role_exists),
    "AWS::Lambda::Function": ("FunctionName", _function_exists),
    "AWS::Logs::LogGroup": ("LogGroupName", _in(logs_backends, "groups")),
    "AWS::RDS::DBInstance": ("DBInstanceIdentifier", _in(rds_backends, "databases")),
    "AWS::RDS::DBSubnetGroup": ("DBSubnetGroupName", _in(rds_backends, "subnet_groups")),
    "AWS::SNS::Topic": ("TopicName", _topic_exists),
    "AWS::SQS::Queue": ("QueueName", _in(sqs_backends, "queues")),
    "AWS::SSM::Parameter": ("Name", lambda name: bool(ssm_backends[ACCOUNT][REGION].get_parameters([name]))),
    "AWS::Scheduler::Schedule": ("Name", _recorded("AWS::Scheduler::Schedule")),
    "AWS::SecretsManager::Secret": (
        "Name",
        lambda name: secretsmanager_backends[ACCOUNT][REGION].secrets.get(name) is not None,
    ),
}


@wrap(parsing, "parse_and_create_resource")
def _require_free_name(original: Function, logical_id: str, body: Any, resources: Any, **where: str) -> Any:
    """Create a resource only if its fixed name is free. Raise AlreadyExistsError with CloudFormation's reason."""
    kind = body["Type"]
    if kind in NAMES:
        path, exists = NAMES[kind]
        name: Any = body.get("Properties", {})
        for part in path.split("/"):
            name = name.get(part) if isinstance(name, dict) else None
        name = parsing.clean_json(name, resources)
        if name and exists(str(name)):
            raise AlreadyExistsError(
                f"Resource handler returned message: \"Resource of type '{kind}' with identifier "
                f'\'{{"/properties/{path}":"{name}"}}\' already exists." (HandlerErrorCode: AlreadyExists)'
            )
    return original(logical_id, body, resources, **where)
