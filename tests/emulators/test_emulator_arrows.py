"""Arrows between deployed services: each is allowed at both ends, or reported by its name and the policy."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aws_parts import CODE, Aws, zipped

from emulators.aws.account import ACCOUNT
from emulators.aws.arrows import Deployed, problems
from emulators.aws.deployed import deployed_resources
from emulators.aws.iam_policies import Permission
from emulators.aws.resource_policies import Caller, refusal, unconditioned

VERSION = "2012-10-17"
OWN = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
Template = dict[str, Any]


def of(*services: str, action: Any, condition: Any = None, resource: Any = "*") -> dict[str, Any]:
    """Return a statement that allows services an action."""
    statement = {"Effect": "Allow", "Action": action, "Resource": resource, "Sid": services[0]}
    statement["Principal"] = {"Service": [f"{name}.amazonaws.com" for name in services]}
    return statement | ({"Condition": condition} if condition else {})


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": VERSION, "Statement": list(statements)}


def get(logical_id: str, attribute: str = "Arn") -> dict[str, Any]:
    return {"Fn::GetAtt": [logical_id, attribute]}


def role(service: str, *statements: dict[str, Any], condition: Any = None) -> dict[str, Any]:
    trust = of(service, action="sts:AssumeRole", condition=condition)
    del trust["Resource"]
    inline = [{"PolicyName": "inline", "PolicyDocument": policy(*statements)}] if statements else []
    return {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": policy(trust), "Policies": inline}}


def allowed(action: Any, resource: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def whole_template() -> Template:
    """Return one arrow of each kind, all allowed."""
    key_use = ["kms:Decrypt", "kms:GenerateDataKey*"]
    logs = {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:*"}}
    group = {"aws:SourceArn": f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule-group/default"}
    of_topic = {"ArnEquals": {"aws:SourceArn": {"Ref": "Topic"}}}
    resources = {
        "Key": (
            "AWS::KMS::Key",
            {
                "KeyPolicy": policy(
                    {"Effect": "Allow", "Action": "kms:*", "Resource": "*", "Principal": {"AWS": ROOT}},
                    of("cloudwatch", "budgets", "sns", action=key_use, condition=OWN),
                    of("events", action=key_use),
                    of("logs.us-east-1", action=[*key_use, "kms:Encrypt", "kms:ReEncrypt*"], condition=logs),
                )
            },
        ),
        "Topic": ("AWS::SNS::Topic", {"KmsMasterKeyId": get("Key")}),
        "TopicPolicy": (
            "AWS::SNS::TopicPolicy",
            {
                "Topics": [{"Ref": "Topic"}],
                "PolicyDocument": policy(
                    of("cloudwatch", "budgets", action="sns:Publish", condition=OWN, resource={"Ref": "Topic"}),
                    of("events", action="sns:Publish", resource={"Ref": "Topic"}),
                ),
            },
        ),
        "Queue": ("AWS::SQS::Queue", {"KmsMasterKeyId": get("Key")}),
        "QueuePolicy": (
            "AWS::SQS::QueuePolicy",
            {
                "Queues": [{"Ref": "Queue"}],
                "PolicyDocument": policy(
                    of("sns", action="sqs:SendMessage", condition=of_topic, resource=get("Queue")),
                    {
                        **{"Effect": "Deny", "Action": "sqs:*", "Resource": get("Queue"), "Principal": {"AWS": "*"}},
                        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                    },
                ),
            },
        ),
        "FunctionRole": role(
            "lambda",
            allowed("sqs:SendMessage", get("Queue")),
            allowed(["kms:Decrypt", "kms:GenerateDataKey"], get("Key")),
        ),
        "Function": (
            "AWS::Lambda::Function",
            {
                **{"Runtime": "python3.13", "Handler": "h.handler", "Timeout": 60, "Role": get("FunctionRole")},
                "Code": {"S3Bucket": CODE, "S3Key": "arrows.zip"},
                "DeadLetterConfig": {"TargetArn": get("Queue")},
            },
        ),
        "Permission": (
            "AWS::Lambda::Permission",
            {
                **{"Action": "lambda:InvokeFunction", "FunctionName": get("Function")},
                **{"Principal": "sns.amazonaws.com", "SourceArn": {"Ref": "Topic"}},
            },
        ),
        "ToQueue": (
            "AWS::SNS::Subscription",
            {"TopicArn": {"Ref": "Topic"}, "Protocol": "sqs", "Endpoint": get("Queue"), "RawMessageDelivery": True},
        ),
        "ToFunction": (
            "AWS::SNS::Subscription",
            {"TopicArn": {"Ref": "Topic"}, "Protocol": "lambda", "Endpoint": get("Function")},
        ),
        "Alarm": (
            "AWS::CloudWatch::Alarm",
            {
                **{"AlarmName": "arrows", "AlarmActions": [{"Ref": "Topic"}], "Threshold": 0},
                **{"ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 1},
            },
        ),
        "Rule": (
            "AWS::Events::Rule",
            {"EventPattern": {"source": ["aws.glue"]}, "Targets": [{"Id": "t", "Arn": {"Ref": "Topic"}}]},
        ),
        "Budget": (
            "AWS::Budgets::Budget",
            {
                "Budget": {
                    **{"BudgetName": "arrows", "BudgetType": "COST", "TimeUnit": "MONTHLY"},
                    "BudgetLimit": {"Amount": 1, "Unit": "USD"},
                },
                "NotificationsWithSubscribers": [
                    {"Subscribers": [{"SubscriptionType": "SNS", "Address": {"Ref": "Topic"}}]}
                ],
            },
        ),
        "SchedulerRole": role(
            "scheduler",
            allowed("lambda:InvokeFunction", get("Function")),
            allowed("sqs:SendMessage", get("Queue")),
            allowed(["kms:Decrypt", "kms:GenerateDataKey"], get("Key")),
            condition={"StringEquals": {"aws:SourceAccount": ACCOUNT, **group}},
        ),
        "Schedule": (
            "AWS::Scheduler::Schedule",
            {
                "Target": {
                    **{"Arn": get("Function"), "RoleArn": get("SchedulerRole")},
                    "DeadLetterConfig": {"Arn": get("Queue")},
                }
            },
        ),
        "Log": ("AWS::Logs::LogGroup", {"LogGroupName": "/arrows", "KmsKeyId": get("Key")}),
        "AccessLogs": ("AWS::S3::Bucket", {}),
        "AccessPolicy": (
            "AWS::S3::BucketPolicy",
            {
                "Bucket": {"Ref": "AccessLogs"},
                "PolicyDocument": policy(
                    of(
                        "logging.s3",
                        action="s3:PutObject",
                        condition={"ArnLike": {"aws:SourceArn": get("Bucket")}},
                        resource={"Fn::Join": ["", [get("AccessLogs"), "/access/*"]]},
                    )
                ),
            },
        ),
        "Bucket": (
            "AWS::S3::Bucket",
            {
                "LoggingConfiguration": {
                    "DestinationBucketName": {"Ref": "AccessLogs"},
                    "LogFilePrefix": "access/",
                }
            },
        ),
    }
    return {
        "Resources": {
            name: item if isinstance(item, dict) else {"Type": item[0], "Properties": item[1]}
            for name, item in resources.items()
        }
    }


@pytest.fixture(scope="module")
def deploy(aws: Aws) -> Iterator[Callable[[Template], list[str]]]:
    """Return a function that deploys a template and returns the problems of its arrows."""
    aws.put("arrows.zip", zipped({"h.py": "def handler(event, context):\n    pass\n"}))
    stacks = aws.client("cloudformation")
    stacks.create_stack(StackName="arrows", TemplateBody=json.dumps(whole_template()))

    def update(template: Template) -> list[str]:
        stacks.update_stack(StackName="arrows", TemplateBody=json.dumps(template))
        (stack,) = stacks.describe_stacks(StackName="arrows")["Stacks"]
        assert stack["StackStatus"] == "UPDATE_COMPLETE"
        return problems(item for item in deployed_resources(aws.url) if item.stack == "arrows")

    yield update
    stacks.delete_stack(StackName="arrows")


def test_every_arrow_is_allowed(deploy: Callable[[Template], list[str]], aws: Aws) -> None:
    assert deploy(whole_template()) == []
    found = [item for item in deployed_resources(aws.url) if item.stack == "arrows"]
    arrows = {(item.source.split()[0], item.target.split()[0]) for item in Deployed(found).arrows()}
    assert arrows == {
        *(("Alarm", to) for to in ("Topic", "Key")),
        *(("Rule", to) for to in ("Topic", "Key")),
        *(("Budget", to) for to in ("Topic", "Key")),
        *(("Topic", to) for to in ("Queue", "Key", "Function")),
        *(("Schedule", to) for to in ("Role", "Function", "Queue", "Key")),
        *(("Function", to) for to in ("Role", "Queue", "Key")),
        *(("LogGroup", "Key"), ("Bucket", "Bucket")),
    }


def statements(template: Template, logical_id: str) -> list[dict[str, Any]]:
    """Return the statements of a resource's policy, to change them."""
    given = template["Resources"][logical_id]["Properties"]
    if "Policies" in given:
        return given["Policies"][0]["PolicyDocument"]["Statement"]
    return given.get("PolicyDocument", given.get("KeyPolicy"))["Statement"]


def find(template: Template, logical_id: str, service: str) -> dict[str, Any]:
    """Return the statement for a service."""
    name = f"{service}.amazonaws.com"
    (found,) = [item for item in statements(template, logical_id) if name in item["Principal"].get("Service", ())]
    return found


def drop(logical_id: str, service: str) -> Callable[[Template], None]:
    return lambda template: find(template, logical_id, service)["Principal"]["Service"].remove(
        f"{service}.amazonaws.com"
    )


def set_condition(logical_id: str, service: str, condition: Any) -> Callable[[Template], None]:
    return lambda template: find(template, logical_id, service).update(Condition=condition)


def remove_statement(logical_id: str, number: int) -> Callable[[Template], None]:
    return lambda template: statements(template, logical_id).pop(number)


def remove_resource(logical_id: str) -> Callable[[Template], None]:
    return lambda template: template["Resources"].pop(logical_id)


def retarget(template: Template) -> None:
    """Give the rule a target with a role that may publish but not use the topic's key."""
    template["Resources"]["RuleRole"] = role("events", allowed("sns:Publish", {"Ref": "Topic"}))
    template["Resources"]["Rule"]["Properties"]["Targets"][0]["RoleArn"] = get("RuleRole")


def add_dead_letter_queue(template: Template) -> None:
    """Give the rule's target a dead-letter queue, which does not allow EventBridge."""
    template["Resources"]["Rule"]["Properties"]["Targets"][0]["DeadLetterConfig"] = {"Arn": get("Queue")}


OTHER = {"StringEquals": {"aws:SourceAccount": "999999999999"}}


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (drop("TopicPolicy", "cloudwatch"), ["Alarm arrows -> Topic", "cloudwatch.amazonaws.com needs sns:Publish"]),
        (drop("TopicPolicy", "budgets"), ["Budget arrows -> Topic", "the resource policy does not allow it"]),
        (drop("TopicPolicy", "events"), ["Rule", "events.amazonaws.com needs sns:Publish"]),
        (set_condition("TopicPolicy", "events", OWN), ["Rule", "sns:Publish and sends no condition key"]),
        (set_condition("Key", "events", OWN), ["Rule", "-> Key", "kms:Decrypt and sends no condition key"]),
        (drop("Key", "cloudwatch"), ["Alarm arrows -> Key", "kms:GenerateDataKey"]),
        (drop("Key", "sns"), ["Topic", "-> Key", "sns.amazonaws.com needs kms:Decrypt"]),
        (set_condition("Key", "logs.us-east-1", OWN), ["LogGroup arrows -> Key", "kms:EncryptionContext:aws:logs:arn"]),
        (set_condition("QueuePolicy", "sns", OTHER), ["Topic", "-> Queue", "sqs:SendMessage"]),
        (remove_resource("QueuePolicy"), ["Topic", "-> Queue", "the resource has no policy"]),
        (remove_resource("Permission"), ["Topic", "-> Function", "lambda:InvokeFunction"]),
        (remove_statement("SchedulerRole", 0), ["Schedule", "-> Function", "the role's policies do not allow it"]),
        (remove_statement("SchedulerRole", 1), ["Schedule", "-> Queue", "sqs:SendMessage"]),
        (remove_statement("FunctionRole", 0), ["Function", "-> Queue", "the role's policies do not allow it"]),
        (remove_statement("FunctionRole", 1), ["Function", "-> Key", "kms:Decrypt"]),
        (remove_statement("Key", 0), ["Schedule", "-> Key", "the key policy does not allow it"]),
        (remove_resource("AccessPolicy"), ["Bucket", "logging.s3.amazonaws.com needs s3:PutObject"]),
        (add_dead_letter_queue, ["Rule", "-> Queue", "events.amazonaws.com needs sqs:SendMessage"]),
        (retarget, ["Rule", "-> Key", "RuleRole", "the role's policies do not allow it"]),
    ],
)
def test_a_denied_arrow_is_named(
    deploy: Callable[[Template], list[str]], plant: Callable[[Template], None], found: list[str]
) -> None:
    template = copy.deepcopy(whole_template())
    plant(template)
    lines = deploy(template)
    assert any(all(text in line for text in found) for line in lines), lines


@pytest.mark.parametrize(
    ("logical_id", "service"),
    [("TopicPolicy", "cloudwatch"), ("QueuePolicy", "sns"), ("Key", "logs.us-east-1"), ("AccessPolicy", "logging.s3")],
)
def test_a_service_that_is_allowed_without_a_condition_is_named(
    deploy: Callable[[Template], list[str]], logical_id: str, service: str
) -> None:
    template = copy.deepcopy(whole_template())
    del find(template, logical_id, service)["Condition"]
    lines = deploy(template)
    assert any(f"allows {service}.amazonaws.com without a condition on the source" in line for line in lines), lines


def test_a_service_that_sends_no_source_needs_no_condition() -> None:
    assert list(unconditioned(policy(of("events", action="sns:Publish")))) == []
    assert list(unconditioned(policy(of("events", action="sqs:SendMessage")))) == ["events.amazonaws.com"]


def test_an_arrow_to_an_unknown_service_or_resource_is_not_overlooked(deploy: Callable[[Template], list[str]]) -> None:
    for target, found in (("arn:aws:states:::x", "does not know states"), ("arn:aws:sns:::x", "no stack has")):
        template = whole_template()
        template["Resources"]["Alarm"]["Properties"]["AlarmActions"] = [target]
        with pytest.raises(ValueError, match=found):
            deploy(template)


def test_a_message_is_delivered_only_where_the_policies_allow_it(
    deploy: Callable[[Template], list[str]], aws: Aws
) -> None:
    def received(template: Template) -> int:
        deploy(template)
        found = {item.logical_id: item.physical_id for item in deployed_resources(aws.url) if item.stack == "arrows"}
        aws.client("sns").publish(TopicArn=found["Topic"], Message="x")
        url = aws.client("sqs").get_queue_url(QueueName=found["Queue"].rsplit("/", 1)[-1])["QueueUrl"]
        return len(aws.client("sqs").receive_message(QueueUrl=url).get("Messages", []))

    assert received(whole_template()) == 1
    plants = (drop("Key", "sns"), set_condition("QueuePolicy", "sns", OTHER), remove_resource("QueuePolicy"))
    for plant in plants:
        template = copy.deepcopy(whole_template())
        plant(template)
        dropped = len(aws.runtime.denied_calls)
        assert received(template) == 0
        assert "to deliver a message" in aws.runtime.denied_calls[dropped]


@pytest.mark.parametrize(
    ("statement", "denied"),
    [
        ({"Principal": {"Service": "s.amazonaws.com"}}, False),
        ({"Principal": {"Service": ["x.amazonaws.com", "s.amazonaws.com"]}}, False),
        ({"Principal": "*"}, False),
        ({"Principal": {"AWS": "*"}}, False),
        ({"Principal": {"AWS": ROOT}}, True),
        ({"Principal": {"Service": "x.amazonaws.com"}}, True),
        ({"Principal": "*", "Effect": "Deny"}, True),
        ({"Principal": {"Service": "s.amazonaws.com"}, "Resource": "arn:other"}, True),
    ],
)
def test_a_service_is_allowed_by_a_statement_that_names_it(statement: dict[str, Any], denied: bool) -> None:
    document = policy({"Effect": "Allow", "Action": "sns:Publish", "Resource": "*", **statement})
    assert (refusal(Caller("s.amazonaws.com"), Permission("sns:Publish", "arn:topic"), document) is not None) is denied


def test_a_role_is_allowed_by_its_own_policy_or_the_resources_and_denied_by_either() -> None:
    arn = f"arn:aws:iam::{ACCOUNT}:role/r"
    own = Caller(arn, (allowed("sqs:*", "*"),))
    call = Permission("sqs:SendMessage", "arn:queue")
    deny = {"Effect": "Deny", "Action": "sqs:*", "Resource": "*", "Principal": {"AWS": ROOT}}
    by_name = policy(allowed("sqs:*", "*") | {"Principal": {"AWS": arn}})
    assert refusal(own, call, None) is None
    assert refusal(own, call, policy(deny)) == "a policy denies it"
    assert refusal(Caller(arn), call, by_name) is None
    assert refusal(Caller(arn), call, None) == "the role's policies do not allow it"
    key = Permission("kms:Decrypt", "arn:key")
    all_keys = Caller(arn, (allowed("kms:*", "*"),))
    assert refusal(all_keys, key, policy()) == "the key policy does not allow it"
    assert refusal(all_keys, key, policy(allowed("kms:*", "*") | {"Principal": {"AWS": ROOT}})) is None
