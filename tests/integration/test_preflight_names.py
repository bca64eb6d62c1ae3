"""Preflight finds each name that a deployment needs and that something else in the account has."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from account_needs import NAMES, SECRET, STACK, Ask, failure, needs

import emulators.aws.access_analyzer  # ValidatePolicy
import emulators.aws.resource_types  # noqa: F401  rulesets
from barflow.operations.preflight.account import Account
from barflow.operations.preflight.names import KINDS
from barflow.operations.preflight.run import answers
from emulators.aws.account import ACCOUNT, REGION


def create(aws: Callable[[str], Any], kind: str, name: str) -> None:
    """Create a resource of a type outside every stack."""
    encryption = {"S3Encryption": [{"S3EncryptionMode": "DISABLED"}]}
    budget = {"BudgetName": name, "BudgetLimit": {"Amount": "1", "Unit": "USD"}, "TimeUnit": "MONTHLY"}
    alarm = {"MetricName": "m", "Namespace": "n", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1.0}
    service, call, arguments = {
        "AWS::SecretsManager::Secret": ("secretsmanager", "create_secret", {"Name": name, "SecretString": "x"}),
        "AWS::SSM::Parameter": ("ssm", "put_parameter", {"Name": name, "Value": "x", "Type": "String"}),
        "AWS::SNS::Topic": ("sns", "create_topic", {"Name": name, "Attributes": {"FifoTopic": "true"}}),
        "AWS::SQS::Queue": ("sqs", "create_queue", {"QueueName": name, "Attributes": {"FifoQueue": "true"}}),
        "AWS::Logs::LogGroup": ("logs", "create_log_group", {"logGroupName": name}),
        "AWS::CloudWatch::Alarm": (
            "cloudwatch",
            "put_metric_alarm",
            {"AlarmName": name, "ComparisonOperator": "LessThanThreshold", "Statistic": "Sum", **alarm},
        ),
        "AWS::CloudWatch::Dashboard": (
            "cloudwatch",
            "put_dashboard",
            {"DashboardName": name, "DashboardBody": '{"widgets": []}'},
        ),
        "AWS::Glue::Database": ("glue", "create_database", {"DatabaseInput": {"Name": name}}),
        "AWS::Glue::SecurityConfiguration": (
            "glue",
            "create_security_configuration",
            {"Name": name, "EncryptionConfiguration": encryption},
        ),
        "AWS::EMR::SecurityConfiguration": (
            "emr",
            "create_security_configuration",
            {"Name": name, "SecurityConfiguration": "{}"},
        ),
        "AWS::Athena::WorkGroup": ("athena", "create_work_group", {"Name": name}),
        "AWS::Budgets::Budget": (
            "budgets",
            "create_budget",
            {"AccountId": ACCOUNT, "Budget": {**budget, "BudgetType": "COST"}},
        ),
    }[kind]
    getattr(aws(service), call)(**arguments)


def create_function(aws: Callable[[str], Any], name: str) -> None:
    """Create a function with its role."""
    role = aws("iam").create_role(RoleName="function", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("handler.py", "")
    aws("lambda").create_function(
        FunctionName=name, Role=role, Runtime="python3.13", Handler="handler.run", Code={"ZipFile": code.getvalue()}
    )


def create_ruleset(aws: Callable[[str], Any], name: str) -> None:
    """Create a ruleset in a stack of another application: moto has no call for it."""
    body = {"Type": "AWS::Glue::DataQualityRuleset", "Properties": {"Name": name, "Ruleset": "Rules = []"}}
    aws("cloudformation").create_stack(StackName="other", TemplateBody=json.dumps({"Resources": {"Rules": body}}))


@pytest.mark.parametrize("item", NAMES, ids=lambda item: item.kind)
def test_a_name_that_is_taken_is_found(aws: Callable[[str], Any], ask: Ask, item: Any) -> None:
    word = KINDS[item.kind].word
    special = {"AWS::Glue::DataQualityRuleset": create_ruleset, "AWS::Lambda::Function": create_function}
    if item.kind in special:
        special[item.kind](aws, item.name)
    else:
        create(aws, item.kind, item.name)
    check = failure(ask(needs(), f"names: {word}s"))
    assert (check.name, check.found) == (f"names: {word} {item.name}", f"exists, and {STACK} does not have it")
    assert f"npx cdk import {STACK} -c env=dev" in check.fix
    assert item.name in check.fix.split("delete it: ")[1]


def test_a_secret_that_is_scheduled_for_deletion_is_found(aws: Callable[[str], Any], ask: Ask) -> None:
    create(aws, SECRET.kind, SECRET.name)
    aws("secretsmanager").delete_secret(SecretId=SECRET.name)
    check = failure(ask(needs(), "names: secrets"))
    assert check.found.startswith("is scheduled for deletion")
    assert "restore-secret" in check.fix
    assert "--force-delete-without-recovery" in check.fix


def test_the_name_of_a_resource_in_the_environments_stack_is_free(aws: Callable[[str], Any], ask: Ask) -> None:
    (parameter,) = (item for item in NAMES if item.kind == "AWS::SSM::Parameter")
    body = {"Type": parameter.kind, "Properties": {"Name": parameter.name, "Type": "String", "Value": "x"}}
    aws("cloudformation").create_stack(
        StackName=STACK, TemplateBody=json.dumps({"Resources": {parameter.logical_id: body}})
    )
    checks = ask(needs(), "names: parameters", "stacks")
    assert checks["names: parameters"].ok
    assert checks["stacks"].found == "1 of 1 are deployed, and none is blocked"
    of_another = replace(parameter, logical_id="Another")
    assert failure(ask(needs(names=(of_another,)), "names: parameters")).name == f"names: parameter {parameter.name}"


@pytest.mark.parametrize(("status", "free"), [("CREATE_COMPLETE", True), ("DELETE_SKIPPED", False)])
def test_a_secret_that_a_rolled_back_stack_left_behind_is_found(
    aws: Callable[[str], Any], status: str, free: bool
) -> None:
    create(aws, SECRET.kind, SECRET.name)
    arn = aws("secretsmanager").describe_secret(SecretId=SECRET.name)["ARN"]
    left = {"LogicalResourceId": "Slack", "ResourceType": SECRET.kind, "PhysicalResourceId": arn}
    pages = [{"StackResourceSummaries": [left | {"ResourceStatus": status}]}]
    listed = SimpleNamespace(paginate=lambda StackName: pages)
    stacks = SimpleNamespace(get_paginator=lambda name: listed)
    account = Account(ACCOUNT, "aws", REGION, lambda name: stacks if name == "cloudformation" else aws(name))
    (check,) = answers("names: secrets", needs(), account)
    assert check.ok == free
