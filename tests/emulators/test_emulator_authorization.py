"""Authorization by the AWS emulator: a role's policies allow or deny each API call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aws_parts import CODE, Aws, allow, zipped
from botocore.exceptions import ClientError

from emulators.aws.account import ACCOUNT, REGION

VERSION = "2012-10-17"


def denied(call: Any, **given: Any) -> str:
    """Return the error code and message of a call that is denied."""
    with pytest.raises(ClientError) as error:
        call(**given)
    return f"{error.value.response['Error']['Code']}: {error.value.response['Error']['Message']}"


def test_a_role_reads_only_the_objects_that_its_policy_allows(aws: Aws) -> None:
    aws.create_role("reader", allow("s3:GetObject", f"arn:aws:s3:::{CODE}/mine/*"))
    aws.put("mine/file", "mine")
    aws.put("other/file", "theirs")
    s3 = aws.client("s3", "reader")
    assert s3.get_object(Bucket=CODE, Key="mine/file")["Body"].read() == b"mine"
    for call, given in (
        (s3.get_object, {"Key": "other/file"}),
        (s3.put_object, {"Key": "mine/file", "Body": b"x"}),
        (s3.delete_object, {"Key": "mine/file"}),
        (s3.list_objects_v2, {}),
    ):
        assert "AccessDenied" in denied(call, Bucket=CODE, **given)
    assert aws.client("s3").get_object(Bucket=CODE, Key="mine/file")["Body"].read() == b"mine"


def test_a_deletion_needs_permission_for_each_object_and_a_copy_for_its_source(aws: Aws) -> None:
    aws.create_role("keeper", allow(["s3:PutObject", "s3:DeleteObject", "s3:GetObject"], f"arn:aws:s3:::{CODE}/kept/*"))
    for name in ("kept/one", "kept/t&wo", "hidden/three"):
        aws.put(name, name)
    s3 = aws.client("s3", "keeper")
    some, all_ = ([{"Key": name} for name in names] for names in (("kept/one",), ("kept/t&wo", "hidden/three")))
    assert "hidden/three" in denied(s3.delete_objects, Bucket=CODE, Delete={"Objects": all_})
    assert s3.delete_objects(Bucket=CODE, Delete={"Objects": some})["Deleted"] == some
    aws.create_role("of-one", allow("s3:DeleteObject", f"arn:aws:s3:::{CODE}/kept/t&wo"))
    aws.client("s3", "of-one").delete_objects(Bucket=CODE, Delete={"Objects": all_[:1]})
    aws.put("kept/t&wo", "again")
    copied = {"Bucket": CODE, "Key": "hidden/three"}
    assert "s3:GetObject" in denied(s3.copy_object, Bucket=CODE, Key="kept/copy", CopySource=copied)
    s3.copy_object(Bucket=CODE, Key="kept/copy", CopySource={"Bucket": CODE, "Key": "kept/t&wo"})
    assert "s3:ListAllMyBuckets" in denied(s3.list_buckets)


def test_an_encrypted_secret_needs_its_key(aws: Aws) -> None:
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    store = aws.client("secretsmanager")
    secret = store.create_secret(Name="locked", SecretString="kept", KmsKeyId=key)["ARN"]
    read = allow("secretsmanager:GetSecretValue", secret)
    by = {f"secretsmanager.{REGION}.amazonaws.com": "opener", f"s3.{REGION}.amazonaws.com": "by-another-way"}
    aws.create_role("keyless", read)
    for service, name in by.items():
        aws.create_role(name, read, allow("kms:Decrypt", key, StringEquals={"kms:ViaService": service}))
    for name in ("keyless", "by-another-way"):
        assert "kms:Decrypt on resource" in denied(
            aws.client("secretsmanager", name).get_secret_value, SecretId="locked"
        )
    found = aws.client("secretsmanager", "opener").get_secret_value(SecretId="locked")
    assert found["SecretString"] == "kept"


def test_the_objects_of_an_encrypted_bucket_need_its_key(aws: Aws) -> None:
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    owner = aws.client("s3")
    owner.create_bucket(Bucket="locked")
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    owner.put_bucket_encryption(
        Bucket="locked",
        ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": default}]},
    )
    objects = allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::locked/*")
    aws.create_role("writer-without-key", objects)
    aws.create_role("writer-with-key", objects, allow(["kms:Decrypt", "kms:GenerateDataKey"], key))
    aws.client("s3", "writer-with-key").put_object(Bucket="locked", Key="file", Body=b"x")
    without = aws.client("s3", "writer-without-key")
    assert "AccessDenied" in denied(without.put_object, Bucket="locked", Key="file", Body=b"x")
    assert "AccessDenied" in denied(without.get_object, Bucket="locked", Key="file")


def test_a_new_cluster_needs_permission_to_pass_its_roles(aws: Aws) -> None:
    tags = [{"Key": "barflow:env", "Value": "dev"}]
    request = {"Name": "n", "ReleaseLabel": "emr-7.13.0", "ServiceRole": "r", "JobFlowRole": "r", "Tags": tags}
    request["Instances"] = {"KeepJobFlowAliveWhenNoSteps": True}
    tagged = {"elasticmapreduce:RequestTag/barflow:env": "dev"}
    start = allow(["elasticmapreduce:RunJobFlow", "elasticmapreduce:AddTags"], StringEquals=tagged)
    pass_on = allow("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/r")
    aws.create_role("starter", start)
    aws.create_role("starter-of-others", start, pass_on | {"Resource": f"arn:aws:iam::{ACCOUNT}:role/another"})
    aws.create_role("starter-of-this", start, pass_on)
    for name in ("starter", "starter-of-others"):
        assert "iam:PassRole" in denied(aws.client("emr", name).run_job_flow, **request)
    emr = aws.client("emr", "starter-of-this")
    cluster = emr.run_job_flow(**request)["JobFlowId"]
    assert "RunJobFlow" in denied(emr.run_job_flow, **{**request, "Tags": []})
    assert "TerminateJobFlows" in denied(emr.terminate_job_flows, JobFlowIds=[cluster])
    aws.client("emr").terminate_job_flows(JobFlowIds=[cluster])


def test_a_function_has_the_permissions_of_its_role(aws: Aws) -> None:
    handler = (
        "import boto3\n"
        "def handler(event, context):\n"
        "    return boto3.client('ssm').get_parameter(Name=event['name'])['Parameter']['Value']\n"
    )
    for name in ("/mine", "/other"):
        aws.client("ssm").put_parameter(Name=name, Type="String", Value=f"of {name}")
    role = aws.create_role("of-function", allow("ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/mine"))
    functions = aws.client("lambda")
    functions.create_function(
        FunctionName="reads", Runtime="python3.13", Role=role, Handler="h.handler", Timeout=60,
        Code={"ZipFile": zipped({"h.py": handler})},
    )  # fmt: skip
    answers = [
        json.loads(functions.invoke(FunctionName="reads", Payload=json.dumps({"name": name}))["Payload"].read())
        for name in ("/mine", "/other")
    ]
    assert answers[0] == "of /mine"
    assert "not authorized to perform: ssm:GetParameter on resource" in answers[1]["errorMessage"]


def test_an_attached_policy_counts_like_an_inline_one(aws: Aws) -> None:
    aws.create_role("attached-to", allow("ssm:GetParameter"))
    document = json.dumps({"Version": VERSION, "Statement": [allow("elasticmapreduce:ListClusters")]})
    policy = aws.client("iam").create_policy(PolicyName="lists", PolicyDocument=document)["Policy"]["Arn"]
    emr = aws.client("emr", "attached-to")
    assert "ListClusters" in denied(emr.list_clusters)
    aws.client("iam").attach_role_policy(RoleName="attached-to", PolicyArn=policy)
    assert "Clusters" in emr.list_clusters()


def test_a_deployed_subscription_filters_messages(aws: Aws) -> None:
    own = {"ArnEquals": {"aws:SourceArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:subscribed"}}
    to_queue = allow("sqs:SendMessage", **own) | {"Principal": {"Service": "sns.amazonaws.com"}}
    policy = json.dumps({"Version": VERSION, "Statement": [to_queue]})
    queue = aws.client("sqs").create_queue(QueueName="subscribed", Attributes={"Policy": policy})["QueueUrl"]
    topic = aws.client("sns").create_topic(Name="subscribed")["TopicArn"]
    properties = {
        **{"TopicArn": topic, "Protocol": "sqs", "Endpoint": f"arn:aws:sqs:{REGION}:{ACCOUNT}:subscribed"},
        **{"RawMessageDelivery": True, "FilterPolicy": {"symbol": ["TSLA"]}},
    }
    template = {"Resources": {"Sub": {"Type": "AWS::SNS::Subscription", "Properties": properties}}}
    aws.client("cloudformation").create_stack(StackName="subscribed", TemplateBody=json.dumps(template))
    for symbol in ("AAPL", "TSLA"):
        named = {"symbol": {"DataType": "String", "StringValue": symbol}}
        aws.client("sns").publish(TopicArn=topic, Message=symbol, MessageAttributes=named)
    got = aws.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert [item["Body"] for item in got] == ["TSLA"]
    aws.client("cloudformation").delete_stack(StackName="subscribed")
    assert aws.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] == []


def test_a_call_without_listed_permissions_is_denied_to_every_role(aws: Aws) -> None:
    message = denied(aws.client("sqs", "r").list_queues)
    assert "AccessDenied" in message
    assert "emulators/aws/permissions.py does not list the permissions of sqs:ListQueues" in message
    assert aws.client("sqs").list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_denied_calls_are_recorded(aws: Aws) -> None:
    aws.create_role("nobody", allow("rds:StartDBInstance"))
    message = denied(aws.client("rds", "nobody").describe_db_instances, DBInstanceIdentifier="warehouse")
    assert f"rds:DescribeDBInstances on resource: arn:aws:rds:{REGION}:{ACCOUNT}:db:warehouse" in message
    assert message.split(": ", 1)[1] in aws.runtime.denied_calls


def test_a_role_gets_its_policy_before_the_function_that_depends_on_it(aws: Aws) -> None:
    """The first resource of the template refers to the function, which depends on the policy."""
    trust = {
        "Version": VERSION,
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda"}}],
    }
    aws.client("ssm").put_parameter(Name="/at-start", Type="String", Value="there")
    handler = "import boto3\ndef handler(event, context):\n    boto3.client('ssm').get_parameter(Name='/at-start')\n"
    aws.put("at-start.zip", zipped({"h.py": handler}))
    template = {
        "Resources": {
            "Run": {"Type": "Custom::Trigger", "Properties": {"ServiceToken": "t", "HandlerArn": {"Ref": "Version"}}},
            "Version": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}},
            "Function": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    **{"Runtime": "python3.13", "Handler": "h.handler", "Timeout": 60},
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Code": {"S3Bucket": CODE, "S3Key": "at-start.zip"},
                },
                "DependsOn": ["Policy", "Role"],
            },
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust}},
            "Policy": {
                "Type": "AWS::IAM::Policy",
                "Properties": {
                    "PolicyName": "permissions",
                    "PolicyDocument": {"Version": VERSION, "Statement": [allow("ssm:GetParameter")]},
                    "Roles": [{"Ref": "Role"}],
                },
            },
        }
    }
    stacks = aws.client("cloudformation")
    stacks.create_stack(StackName="at-start", TemplateBody=json.dumps(template))
    assert stacks.describe_stacks(StackName="at-start")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
