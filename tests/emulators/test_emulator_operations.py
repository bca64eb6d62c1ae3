"""What operators use: alarms notify their topics, functions have metrics, and commands run on an instance."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aws_parts import Aws, allow, wait_for, zipped
from botocore.exceptions import ClientError

ROLE = "arn:aws:iam::123456789012:role/r"
PRINTS_A_METRIC = """
import json
def handler(event, context):
    metrics = [{"Namespace": "Bars", "Dimensions": [["Env"]], "Metrics": [{"Name": "Stored", "Unit": "Count"}]}]
    print(json.dumps({"_aws": {"Timestamp": 0, "CloudWatchMetrics": metrics}, "Env": "dev", "Stored": 7}))
    if event.get("fail"):
        raise ValueError("no key")
"""


def template(topic: str) -> str:
    """Return a template with an alarm that notifies the topic in both directions, and a budget."""
    alarm = {
        **{"AlarmName": "late", "AlarmDescription": "Bars are late.", "Namespace": "Bars", "MetricName": "Stored"},
        **{"Threshold": 1, "Period": 60, "Statistic": "Sum", "EvaluationPeriods": 1},
        **{"ComparisonOperator": "LessThanThreshold", "AlarmActions": [topic], "OKActions": [topic]},
    }
    budget = {"BudgetName": "b", "BudgetType": "COST", "TimeUnit": "MONTHLY"}
    limit = {"BudgetLimit": {"Amount": 90, "Unit": "USD"}}
    return json.dumps(
        {
            "Resources": {
                "Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm},
                "Budget": {"Type": "AWS::Budgets::Budget", "Properties": {"Budget": budget | limit}},
            }
        }
    )


def test_an_alarm_of_a_stack_notifies_its_topic_when_its_state_changes(aws: Aws) -> None:
    sns, sqs, cloudwatch = (aws.client(name) for name in ("sns", "sqs", "cloudwatch"))
    topic, queue = sns.create_topic(Name="ops")["TopicArn"], sqs.create_queue(QueueName="ops")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    for resource, action, service in ((topic, "sns:Publish", "cloudwatch"), (arn, "sqs:SendMessage", "sns")):
        who = {"Principal": {"Service": f"{service}.amazonaws.com"}}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allow(action, resource) | who]})
        if service == "sns":
            sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
        else:
            sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    aws.client("cloudformation").create_stack(StackName="alarms", TemplateBody=template(topic))
    for state in ("OK", "ALARM", "ALARM", "OK", "INSUFFICIENT_DATA"):
        cloudwatch.set_alarm_state(AlarmName="late", StateValue=state, StateReason=f"to {state}")
    found = [
        json.loads(item["Body"]) for item in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    ]
    assert [(item["OldStateValue"], item["NewStateValue"], item["NewStateReason"]) for item in found] == [
        ("OK", "ALARM", "to ALARM"),
        ("ALARM", "OK", "to OK"),
    ]
    assert {item["AlarmDescription"] for item in found} == {"Bars are late."}
    budget = aws.client("budgets").describe_budget(AccountId="123456789012", BudgetName="b")["Budget"]
    assert budget["BudgetLimit"]["Amount"] == "90"


def test_an_invocation_has_lambdas_metrics_and_those_that_it_prints(aws: Aws) -> None:
    functions = aws.client("lambda")
    functions.create_function(
        FunctionName="measured", Runtime="python3.13", Role=ROLE, Handler="handler.handler", Timeout=60,
        Code={"ZipFile": zipped({"handler.py": PRINTS_A_METRIC})},
    )  # fmt: skip
    functions.invoke(FunctionName="measured", Payload=b"{}")
    functions.invoke(FunctionName="measured", Payload=b'{"fail": true}')
    of_function = {"Name": "FunctionName", "Value": "measured"}
    assert total(aws, "AWS/Lambda", "Invocations", of_function) == 2
    assert total(aws, "AWS/Lambda", "Errors", of_function) == 1
    assert total(aws, "Bars", "Stored", {"Name": "Env", "Value": "dev"}) == 14


def total(aws: Aws, namespace: str, name: str, dimension: dict[str, str]) -> float:
    """Return the sum of a metric in the last hour."""
    metric = {"Namespace": namespace, "MetricName": name, "Dimensions": [dimension]}
    now = datetime.now(UTC)
    found = aws.client("cloudwatch").get_metric_data(
        MetricDataQueries=[{"Id": "m", "MetricStat": {"Metric": metric, "Period": 3600, "Stat": "Sum"}}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=1),
    )
    return sum(found["MetricDataResults"][0]["Values"])


def test_a_command_runs_with_the_role_of_its_instance_and_returns_its_output(aws: Aws) -> None:
    profile = aws.create_profile("host", allow("sts:GetCallerIdentity"))
    ec2, ssm = aws.client("ec2"), aws.client("ssm")
    (image, *_) = ec2.describe_images()["Images"]
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "barflow:env", "Value": "dev"}]}]
    started = ec2.run_instances(
        ImageId=image["ImageId"], MinCount=1, MaxCount=1, TagSpecifications=tags, IamInstanceProfile={"Name": profile}
    )
    instance = started["Instances"][0]["InstanceId"]
    script = 'echo "$BARFLOW_ENV $AWS_ACCESS_KEY_ID"; echo problem >&2; exit 3'

    def run(role: str | None = None) -> dict[str, Any]:
        sent = aws.client("ssm", role).send_command(
            DocumentName="AWS-RunShellScript", InstanceIds=[instance], Parameters={"commands": [script]}
        )
        given = {"CommandId": sent["Command"]["CommandId"], "InstanceId": instance}
        found = wait_for(lambda: ssm.get_command_invocation(**given), lambda item: item["Status"] != "InProgress")
        return dict(found)

    ended = run()
    assert (ended["Status"], ended["ResponseCode"]) == ("Failed", 3)
    assert ended["StandardOutputContent"] == "dev role-host\n"
    assert ended["StandardErrorContent"] == "problem\n"
    document = "arn:aws:ssm:us-east-1::document/AWS-RunShellScript"
    own = {"StringEquals": {"aws:ResourceTag/barflow:env": "staging"}}
    aws.create_role("other", allow("ssm:SendCommand", document), allow("ssm:SendCommand", "arn:aws:ec2:*", **own))
    with pytest.raises(ClientError, match="not authorized to perform: ssm:SendCommand"):
        run("other")
