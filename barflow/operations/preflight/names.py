"""Names that the templates fix: none may belong to a resource outside the environment's stacks.

A creation that was rolled back, a deleted environment with retained data, or another deployment can hold such names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from barflow.operations.checks import Check
from barflow.operations.preflight.account import Account, answer_or_none
from barflow.operations.preflight.needs import FixedName, Needs

PENDING = "pending"
RESTORE = "aws secretsmanager restore-secret --secret-id {name}, then npx cdk import {stack} -c env={env}"
DELETE_NOW = "aws secretsmanager delete-secret --force-delete-without-recovery --secret-id {name}"


@dataclass(frozen=True)
class Kind:
    """How to find a resource of one CloudFormation type by its name, and the command that deletes it.

    ``exists`` returns something true if the account has the resource. ``absent`` are the codes of AWS's errors for a
    name that does not exist.
    """

    word: str
    exists: Callable[[Account, str], object]
    delete: str
    absent: tuple[str, ...] = ()


def taken(kind: str, needs: Needs, account: Account) -> Iterator[Check]:
    """Check all names of one type. Yield one failed check per name that is taken, or one check for all names."""
    names = [item for item in needs.names if item.kind == kind]
    checks = [check for item in names if not _is_deployed(item, account) if (check := _check(item, needs, account))]
    yield from checks
    if not checks:
        yield Check(f"names: {KINDS[kind].word}s", True, f"{len(names)} free, or of this environment")


def _is_deployed(item: FixedName, account: Account) -> bool:
    """Return whether the resource of that name is the one in the environment's stack."""
    _, physical_id = account.stack_resources(item.stack).get(item.logical_id, ("", ""))
    return item.name in physical_id


def _check(item: FixedName, needs: Needs, account: Account) -> Check | None:
    """Return the failed check of a name that is taken, or None."""
    kind = KINDS[item.kind]
    found = answer_or_none(lambda: kind.exists(account, item.name), kind.absent)
    if not found:
        return None
    values = {"name": item.name, "stack": item.stack, "env": needs.env, **account.places()}
    if found == PENDING:
        state = "is scheduled for deletion, and its name is reserved until then"
        fix = f"keep it: {RESTORE}; or free the name: {DELETE_NOW}"
    else:
        state = f"exists, and {item.stack} does not have it"
        fix = f"keep it: npx cdk import {{stack}} -c env={{env}}; or delete it: {kind.delete}"
    return Check(f"names: {kind.word} {item.name}", False, state, fix.format(**values))


def _secret(account: Account, name: str) -> str:
    """Return PENDING for a secret that is scheduled for deletion, else its ARN."""
    found = account.client("secretsmanager").describe_secret(SecretId=name)
    return PENDING if found.get("DeletedDate") else str(found["ARN"])


def _topic(account: Account, name: str) -> object:
    arn = "arn:{partition}:sns:{region}:{account}:".format(**account.places())
    return account.client("sns").get_topic_attributes(TopicArn=f"{arn}{name}")


def _log_group(account: Account, name: str) -> object:
    found = account.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return any(item["logGroupName"] == name for item in found)


def _parameter(account: Account, name: str) -> object:
    wanted = [{"Key": "Name", "Option": "Equals", "Values": [name]}]
    return account.client("ssm").describe_parameters(ParameterFilters=wanted)["Parameters"]


def _alarm(account: Account, name: str) -> object:
    found = account.client("cloudwatch").describe_alarms(AlarmNames=[name])
    return found["MetricAlarms"] or found.get("CompositeAlarms")


def _dashboard(account: Account, name: str) -> object:
    found = account.client("cloudwatch").list_dashboards(DashboardNamePrefix=name)["DashboardEntries"]
    return any(item["DashboardName"] == name for item in found)


def _ruleset(account: Account, name: str) -> object:
    return account.client("glue").get_data_quality_ruleset(Name=name)


KINDS: dict[str, Kind] = {
    "AWS::SecretsManager::Secret": Kind("secret", _secret, DELETE_NOW, ("ResourceNotFoundException",)),
    "AWS::SSM::Parameter": Kind("parameter", _parameter, "aws ssm delete-parameter --name {name}"),
    "AWS::SNS::Topic": Kind(
        "topic",
        _topic,
        "aws sns delete-topic --topic-arn arn:{partition}:sns:{region}:{account}:{name}",
        ("NotFound", "NotFoundException"),
    ),
    "AWS::SQS::Queue": Kind(
        "queue",
        lambda account, name: account.client("sqs").get_queue_url(QueueName=name),
        "aws sqs delete-queue --queue-url $(aws sqs get-queue-url --queue-name {name} --output text)",
        ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"),
    ),
    "AWS::Lambda::Function": Kind(
        "function",
        lambda account, name: account.client("lambda").get_function_configuration(FunctionName=name),
        "aws lambda delete-function --function-name {name}",
        ("ResourceNotFoundException",),
    ),
    "AWS::Logs::LogGroup": Kind("log group", _log_group, "aws logs delete-log-group --log-group-name {name}"),
    "AWS::CloudWatch::Alarm": Kind("alarm", _alarm, "aws cloudwatch delete-alarms --alarm-names {name}"),
    "AWS::CloudWatch::Dashboard": Kind(
        "dashboard", _dashboard, "aws cloudwatch delete-dashboards --dashboard-names {name}"
    ),
    "AWS::Glue::Database": Kind(
        "Glue database",
        lambda account, name: account.client("glue").get_database(Name=name),
        "aws glue delete-database --name {name}",
        ("EntityNotFoundException",),
    ),
    "AWS::Glue::DataQualityRuleset": Kind(
        "Glue ruleset", _ruleset, "aws glue delete-data-quality-ruleset --name {name}", ("EntityNotFoundException",)
    ),
    "AWS::Glue::SecurityConfiguration": Kind(
        "Glue security configuration",
        lambda account, name: account.client("glue").get_security_configuration(Name=name),
        "aws glue delete-security-configuration --name {name}",
        ("EntityNotFoundException",),
    ),
    "AWS::EMR::SecurityConfiguration": Kind(
        "EMR security configuration",
        lambda account, name: account.client("emr").describe_security_configuration(Name=name),
        "aws emr delete-security-configuration --name {name}",
        ("InvalidRequestException",),
    ),
    "AWS::Athena::WorkGroup": Kind(
        "Athena workgroup",
        lambda account, name: account.client("athena").get_work_group(WorkGroup=name),
        "aws athena delete-work-group --recursive-delete-option --work-group {name}",
        ("InvalidRequestException",),
    ),
    "AWS::Budgets::Budget": Kind(
        "budget",
        lambda account, name: account.client("budgets").describe_budget(AccountId=account.number, BudgetName=name),
        "aws budgets delete-budget --account-id {account} --budget-name {name}",
        ("NotFoundException",),
    ),
}
