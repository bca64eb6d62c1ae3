"""Stacks in the AWS emulator: rollback, names that are taken, exports in use, replacement, and two environments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from aws_parts import CODE, Aws, allow, zipped
from botocore.exceptions import ClientError

from emulators.aws.account import ACCOUNT
from emulators.aws.faults import Fault

Resources = Mapping[str, Any]
ASSUMED = {"Version": "2012-10-17", "Statement": []}


def template(resources: Resources, **outputs: Any) -> str:
    return json.dumps({"Resources": resources} | ({"Outputs": outputs} if outputs else {}))


def queue(**more: Any) -> dict[str, Any]:
    return {"Type": "AWS::SQS::Queue", "Properties": {}, **more}


def named(kind: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Type": kind, "Properties": properties, **more}


def create(aws: Aws, name: str, resources: Resources, **outputs: Any) -> str:
    """Create a stack, and return its state."""
    aws.client("cloudformation").create_stack(StackName=name, TemplateBody=template(resources, **outputs))
    return state(aws, name)


def update(aws: Aws, name: str, resources: Resources, **outputs: Any) -> str:
    """Update a stack, and return its state."""
    aws.client("cloudformation").update_stack(StackName=name, TemplateBody=template(resources, **outputs))
    return state(aws, name)


def state(aws: Aws, name: str) -> str:
    (stack,) = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    return str(stack["StackStatus"])


def delete(aws: Aws, name: str) -> None:
    aws.client("cloudformation").delete_stack(StackName=name)


def reasons(aws: Aws, name: str) -> str:
    """Return the reasons of a stack's events."""
    events = aws.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    return "\n".join(f"{item['LogicalResourceId']}: {item.get('ResourceStatusReason', '')}" for item in events)


def physical(aws: Aws, name: str) -> dict[str, str]:
    """Return the physical ids of a stack's resources, by logical id."""
    found = aws.client("cloudformation").describe_stack_resources(StackName=name)["StackResources"]
    return {item["LogicalResourceId"]: item["PhysicalResourceId"] for item in found}


def log_groups(aws: Aws, prefix: str) -> list[str]:
    found = aws.client("logs").describe_log_groups(logGroupNamePrefix=prefix)["logGroups"]
    return [item["logGroupName"] for item in found]


def log_group(name: str, **more: Any) -> dict[str, Any]:
    return named("AWS::Logs::LogGroup", {"LogGroupName": name}, **more)


def test_a_failed_creation_is_rolled_back_and_can_be_tried_again(aws: Aws) -> None:
    resources = {"Log": log_group("/retry"), "Fails": queue(DependsOn="Log")}
    aws.runtime.inject(Fault.RESOURCE_FAILS, "Fails")
    assert create(aws, "retry", resources) == "ROLLBACK_COMPLETE"
    assert "Fails: Resource creation cancelled" in reasons(aws, "retry")
    assert log_groups(aws, "/retry") == []
    assert physical(aws, "retry") == {}
    with pytest.raises(ClientError, match="already exists"):
        create(aws, "retry", resources)
    with pytest.raises(ClientError, match="ROLLBACK_COMPLETE state and can not be updated"):
        update(aws, "retry", resources)
    delete(aws, "retry")
    assert create(aws, "retry", resources) == "CREATE_COMPLETE"
    assert log_groups(aws, "/retry") == ["/retry"]


@pytest.mark.parametrize(
    ("policy", "again"),
    [("Retain", "ROLLBACK_COMPLETE"), ("RetainExceptOnCreate", "CREATE_COMPLETE"), ("Delete", "CREATE_COMPLETE")],
)
def test_a_rolled_back_creation_keeps_what_is_retained_and_its_name(aws: Aws, policy: str, again: str) -> None:
    stack = f"policy-{policy}"
    resources = {"Log": log_group(f"/{stack}", DeletionPolicy=policy), "Fails": queue(DependsOn="Log")}
    aws.runtime.inject(Fault.RESOURCE_FAILS, "AWS::SQS::Queue")
    assert create(aws, stack, resources) == "ROLLBACK_COMPLETE"
    delete(aws, stack)
    assert create(aws, stack, resources) == again
    if policy == "Retain":
        assert "Resource of type 'AWS::Logs::LogGroup' with identifier" in reasons(aws, stack)
        assert f'"/properties/LogGroupName":"/{stack}"' in reasons(aws, stack)


@pytest.mark.parametrize(("policy", "left"), [("Retain", 1), ("RetainExceptOnCreate", 1), ("Delete", 0)])
def test_a_deleted_stack_and_a_removed_resource_leave_what_is_retained(aws: Aws, policy: str, left: int) -> None:
    for stack in ("deleted", "removed"):
        name = f"{stack}-{policy}"
        resources = {"Log": log_group(f"/{name}", DeletionPolicy=policy), "Other": queue()}
        create(aws, name, resources)
        if stack == "deleted":
            delete(aws, name)
        else:
            assert update(aws, name, {"Other": resources["Other"]}) == "UPDATE_COMPLETE"
        assert len(log_groups(aws, f"/{name}")) == left


SECRET = {"Name": "named/secret", "GenerateSecretString": {"PasswordLength": 20}}
ALARM = {"AlarmName": "named", "ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 1, "Threshold": 0}
LIMIT = {"Amount": 1, "Unit": "USD"}
BUDGET = {"BudgetName": "named", "BudgetType": "COST", "TimeUnit": "MONTHLY", "BudgetLimit": LIMIT}
NAMED = {
    "Workgroup": named("AWS::Athena::WorkGroup", {"Name": "named"}),
    "Budget": named("AWS::Budgets::Budget", {"Budget": BUDGET}),
    "Alarm": named("AWS::CloudWatch::Alarm", ALARM),
    "Dashboard": named("AWS::CloudWatch::Dashboard", {"DashboardName": "named", "DashboardBody": "{}"}),
    "Security": named("AWS::EMR::SecurityConfiguration", {"Name": "named", "SecurityConfiguration": {}}),
    "Rule": named("AWS::Events::Rule", {"Name": "named", "EventPattern": {"source": ["aws.glue"]}}),
    "Ruleset": named("AWS::Glue::DataQualityRuleset", {"Name": "named", "Ruleset": "Rules = [RowCount > 0]"}),
    "Database": named("AWS::Glue::Database", {"CatalogId": ACCOUNT, "DatabaseInput": {"Name": "named"}}),
    "GlueSecurity": named("AWS::Glue::SecurityConfiguration", {"Name": "named", "EncryptionConfiguration": {}}),
    "Role": named("AWS::IAM::Role", {"RoleName": "named", "AssumeRolePolicyDocument": ASSUMED}),
    "Function": named(
        "AWS::Lambda::Function",
        {
            **{"FunctionName": "named", "Runtime": "python3.13", "Handler": "h.handler"},
            **{"Role": f"arn:aws:iam::{ACCOUNT}:role/r", "Code": {"S3Bucket": CODE, "S3Key": "named.zip"}},
        },
    ),
    "Log": log_group("/named"),
    "Topic": named("AWS::SNS::Topic", {"TopicName": "named"}),
    "Queue": named("AWS::SQS::Queue", {"QueueName": "named"}),
    "Parameter": named("AWS::SSM::Parameter", {"Name": "/named", "Type": "String", "Value": "x"}),
    "Schedule": named("AWS::Scheduler::Schedule", {"Name": "named"}),
    "Secret": named("AWS::SecretsManager::Secret", SECRET),
}


def test_a_fixed_name_is_taken_once_and_free_after_its_deletion(aws: Aws) -> None:
    aws.put("named.zip", zipped({"h.py": "def handler(event, context): pass"}))
    assert create(aws, "names", NAMED) == "CREATE_COMPLETE"
    for logical_id, body in NAMED.items():
        stack = f"second-{logical_id}"
        assert create(aws, stack, {logical_id: body}) == "ROLLBACK_COMPLETE", logical_id
        assert f"Resource of type '{body['Type']}' with identifier" in reasons(aws, stack)
    delete(aws, "names")
    assert create(aws, "names", NAMED) == "CREATE_COMPLETE"
    delete(aws, "names")


def test_a_name_that_a_call_has_taken_is_taken(aws: Aws) -> None:
    aws.client("logs").create_log_group(logGroupName="/by-a-call")
    assert create(aws, "by-a-call", {"Log": log_group("/by-a-call")}) == "ROLLBACK_COMPLETE"


def test_an_export_in_use_is_neither_changed_nor_removed(aws: Aws) -> None:
    exported = {"Value": {"Ref": "Host"}, "Export": {"Name": "users:Host"}}
    first = {"Host": log_group("/host-1"), "Other": queue()}
    assert create(aws, "owner", first, Host=exported) == "CREATE_COMPLETE"
    assert create(aws, "user", {"Log": log_group({"Fn::Join": ["", [{"Fn::ImportValue": "users:Host"}, "-user"]]})})
    assert log_groups(aws, "/host-1") == ["/host-1", "/host-1-user"]

    changed = {"New": log_group("/host-2"), "Other": queue()}
    another = exported | {"Value": {"Ref": "New"}}
    assert update(aws, "owner", changed, Host=another) == "UPDATE_ROLLBACK_COMPLETE"
    assert "Export users:Host cannot be updated as it is in use by user" in reasons(aws, "owner")
    assert log_groups(aws, "/host-") == ["/host-1", "/host-1-user"]
    assert update(aws, "owner", first) == "UPDATE_ROLLBACK_COMPLETE"
    assert "Export users:Host cannot be deleted as it is in use by user" in reasons(aws, "owner")
    delete(aws, "owner")
    assert state(aws, "owner") == "UPDATE_ROLLBACK_COMPLETE"

    assert update(aws, "user", {"Log": queue()}) == "UPDATE_COMPLETE"
    assert update(aws, "owner", changed, Host=another) == "UPDATE_COMPLETE"
    assert log_groups(aws, "/host-") == ["/host-2"]
    assert create(aws, "user-2", {"Log": log_group({"Fn::ImportValue": "users:Host"})}) == "ROLLBACK_COMPLETE"
    delete(aws, "owner")
    delete(aws, "user")


def test_a_failed_update_restores_the_former_template(aws: Aws) -> None:
    former = {"Kept": named("AWS::SSM::Parameter", {"Name": "/kept", "Type": "String", "Value": "1"})}
    create(aws, "restored", former | {"Gone": log_group("/gone")})
    before = physical(aws, "restored")
    changed = {
        "Kept": named("AWS::SSM::Parameter", {"Name": "/kept", "Type": "String", "Value": "2"}),
        "Added": log_group("/added", DependsOn="Kept"),
        "Fails": queue(DependsOn="Added"),
    }
    aws.runtime.inject(Fault.RESOURCE_FAILS, "Fails")
    assert update(aws, "restored", changed) == "UPDATE_ROLLBACK_COMPLETE"
    assert physical(aws, "restored") == before
    assert aws.client("ssm").get_parameter(Name="/kept")["Parameter"]["Value"] == "1"
    assert log_groups(aws, "/gone") == ["/gone"]
    assert log_groups(aws, "/added") == []
    body = aws.client("cloudformation").get_template(StackName="restored")["TemplateBody"]
    assert "Gone" in json.dumps(body)
    assert update(aws, "restored", changed) == "UPDATE_COMPLETE"
    assert log_groups(aws, "/gone") == []
    assert aws.client("ssm").get_parameter(Name="/kept")["Parameter"]["Value"] == "2"


def test_a_replaced_resource_has_a_new_id_and_what_refers_to_it_follows(aws: Aws) -> None:
    def resources(address: str) -> Resources:
        return {
            "Network": named("AWS::EC2::VPC", {"CidrBlock": address}),
            "Group": named("AWS::EC2::SecurityGroup", {"GroupDescription": "g", "VpcId": {"Ref": "Network"}}),
            "Note": named("AWS::SSM::Parameter", {"Name": "/note", "Type": "String", "Value": {"Ref": "Network"}}),
        }

    create(aws, "replaced", resources("10.1.0.0/16"))
    before = physical(aws, "replaced")
    assert update(aws, "replaced", resources("10.2.0.0/16")) == "UPDATE_COMPLETE"
    after = physical(aws, "replaced")
    assert after["Network"] != before["Network"]
    assert after["Group"] != before["Group"]
    assert aws.client("ssm").get_parameter(Name="/note")["Parameter"]["Value"] == after["Network"]
    ids = {item["VpcId"] for item in aws.client("ec2").describe_vpcs()["Vpcs"]}
    assert after["Network"] in ids
    assert before["Network"] not in ids


def test_a_changed_ssm_parameter_is_an_update_of_the_same_template(aws: Aws) -> None:
    def put(value: str) -> None:
        aws.client("ssm").put_parameter(Name="/host/id", Type="String", Value=value, Overwrite=True)

    given = {"Host": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/host/id"}}
    note = named("AWS::SSM::Parameter", {"Name": "/host/note", "Type": "String", "Value": {"Ref": "Host"}})
    body = json.dumps({"Parameters": given, "Resources": {"Note": note}})
    stacks, previous = aws.client("cloudformation"), [{"ParameterKey": "Host", "UsePreviousValue": True}]
    put("i-1")
    stacks.create_stack(StackName="same", TemplateBody=body)
    with pytest.raises(ClientError, match="No updates are to be performed"):
        stacks.update_stack(StackName="same", TemplateBody=body, Parameters=previous)
    put("i-2")
    stacks.update_stack(StackName="same", TemplateBody=body, Parameters=previous)
    assert aws.client("ssm").get_parameter(Name="/host/note")["Parameter"]["Value"] == "i-2"


def test_a_named_resource_with_another_logical_id_collides_with_itself(aws: Aws) -> None:
    create(aws, "renamed", {"One": log_group("/renamed")})
    assert update(aws, "renamed", {"Two": log_group("/renamed")}) == "UPDATE_ROLLBACK_COMPLETE"
    assert log_groups(aws, "/renamed") == ["/renamed"]


def test_an_updated_function_runs_again_on_deployment(aws: Aws) -> None:
    aws.create_role("writer-of-mark", allow("ssm:PutParameter"))

    def resources(number: int) -> Resources:
        handler = f"import os\ndef handler(event, context):\n    open(os.environ['MARK'], 'a').write('{number}')\n"
        aws.put(f"release-{number}.zip", zipped({"h.py": handler}))
        return {
            "Run": named("Custom::Trigger", {"ServiceToken": "t", "HandlerArn": {"Ref": f"Version{number}"}}),
            f"Version{number}": named("AWS::Lambda::Version", {"FunctionName": {"Ref": "Function"}}),
            "Function": named(
                "AWS::Lambda::Function",
                {
                    **{"Runtime": "python3.13", "Handler": "h.handler", "Timeout": 60},
                    "Role": f"arn:aws:iam::{ACCOUNT}:role/writer-of-mark",
                    "Code": {"S3Bucket": CODE, "S3Key": f"release-{number}.zip"},
                    "Environment": {"Variables": {"MARK": str(aws.runtime.folder / "mark")}},
                },
            ),
        }

    assert create(aws, "released", resources(1)) == "CREATE_COMPLETE"
    assert update(aws, "released", resources(2)) == "UPDATE_COMPLETE"
    assert (aws.runtime.folder / "mark").read_text() == "12"
    assert update(aws, "released", resources(1)) == "UPDATE_COMPLETE"
    assert (aws.runtime.folder / "mark").read_text() == "121"
