"""Every action, resource type and condition key of every policy is in AWS's Service Authorization Reference."""

from __future__ import annotations

from typing import Any

import pytest
from deployments import Deployment

from tools.iam_reference import Templates, main, overlap, policy_problems, problems, read

BUCKET, KEY = "arn:aws:s3:::lake", "arn:aws:kms:us-east-1:123456789012:key/1"
TABLE = "arn:aws:glue:us-east-1:123456789012:table/db/bars"


def statement(action: Any, resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource} | more


def test_every_policy_of_every_environment_is_in_the_reference(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert problems(read(deployment.assembly)) == []


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        (statement("s3:GetObjekt", f"{BUCKET}/*"), {"there is no action s3:GetObjekt"}),
        (statement("nosuch:Thing"), {"there is no action nosuch:Thing"}),
        (statement("s3:Nothing*"), {"there is no action s3:Nothing*"}),
        (
            statement("s3:ListBucket", f"{BUCKET}/*"),
            {
                "s3:ListBucket has no resource such as arn:aws:s3:::lake/*; it has accesspoint, bucket",
                "no action of the statement has a resource such as arn:aws:s3:::lake/*",
            },
        ),
        (
            statement("elasticmapreduce:RunJobFlow", "arn:aws:elasticmapreduce:us-east-1:123456789012:cluster/*"),
            {
                "elasticmapreduce:RunJobFlow has no resource such as "
                "arn:aws:elasticmapreduce:us-east-1:123456789012:cluster/*; it has *",
                "no action of the statement has a resource such as "
                "arn:aws:elasticmapreduce:us-east-1:123456789012:cluster/*",
            },
        ),
        (
            statement(["s3:GetObject", "s3:PutObject"], [f"{BUCKET}/*", KEY]),
            {f"no action of the statement has a resource such as {KEY}"},
        ),
        (
            statement("glue:GetTable", TABLE),
            {
                "glue:GetTable needs a rootcatalog, and no statement has one",
                "glue:GetTable needs a database, and no statement has one",
            },
        ),
        (
            statement("s3:GetObject", f"{BUCKET}/*", Condition={"StringEquals": {"s3:prefix": "bars"}}),
            {"s3:GetObject does not support the condition key s3:prefix (StringEquals)"},
        ),
        (
            statement("s3:GetObject", f"{BUCKET}/*", Condition={"StringEquals": {"aws:RequestTag/env": "dev"}}),
            {"s3:GetObject does not support the condition key aws:RequestTag/env (StringEquals)"},
        ),
        (
            statement("s3:GetObject", f"{BUCKET}/*", Condition={"StringEquals": {"aws:SourceAcount": "1"}}),
            {"there is no condition key aws:SourceAcount"},
        ),
        (
            statement("kms:DescribeKey", KEY, Condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": "*"}}),
            {"kms:DescribeKey does not support the condition key kms:EncryptionContext:aws:logs:arn (ArnLike)"},
        ),
        (
            statement(
                "kms:Decrypt",
                Principal={"Service": ["cloudwatch.amazonaws.com", "events.amazonaws.com"]},
                Condition={"StringEquals": {"aws:SourceAccount": "123456789012"}},
            ),
            {"kms:Decrypt for events.amazonaws.com does not support the condition key aws:SourceAccount"},
        ),
    ],
)
def test_what_the_reference_does_not_have_is_found(planted: dict[str, Any], expected: set[str]) -> None:
    assert set(policy_problems({"Statement": [planted]})) == expected


@pytest.mark.parametrize(
    "correct",
    [
        [statement("s3:GetObject*", f"{BUCKET}/*")],
        [
            statement(
                "elasticmapreduce:RunJobFlow", Condition={"StringEquals": {"elasticmapreduce:RequestTag/a:b": "c"}}
            )
        ],
        [statement("kms:GenerateDataKey", KEY, Condition={"StringEquals": {"kms:ViaService": "s3.amazonaws.com"}})],
        # A resource that a second statement adds completes the first.
        [
            statement("glue:GetTable", TABLE),
            statement("glue:GetTable", [TABLE.replace("table/db/bars", name) for name in ("catalog", "database/db")]),
        ],
        [
            statement(
                "sts:AssumeRoleWithWebIdentity",
                Condition={"StringEquals": {"token.actions.githubusercontent.com:sub": "repo:a/b:environment:dev"}},
            )
        ],
        [statement("*", Effect="Deny", Condition={"Bool": {"aws:SecureTransport": "false"}})],
    ],
)
def test_a_correct_policy_has_no_problem(correct: list[dict[str, Any]]) -> None:
    assert policy_problems({"Statement": correct}) == []


def test_references_are_followed_through_exports_to_the_resource() -> None:
    exporting = {
        "Resources": {"Lake": {"Type": "AWS::S3::Bucket"}},
        "Outputs": {"O": {"Value": {"Fn::GetAtt": ["Lake", "Arn"]}, "Export": {"Name": "Storage:Lake"}}},
    }
    objects = {"Fn::Join": ["", [{"Fn::ImportValue": "Storage:Lake"}, "/*"]]}
    document = {"Statement": [statement("s3:ListBucket", objects)]}
    importing = {"Resources": {"P": {"Type": "AWS::IAM::Policy", "Properties": {"PolicyDocument": document}}}}
    found = problems(Templates({"Storage.template.json": exporting, "Host.template.json": importing}))
    assert (
        "Host/P PolicyDocument: s3:ListBucket has no resource such as arn:aws:s3:::NAME/*; it has accesspoint, bucket"
        in found
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("a*c", "ab*", True), ("a*c", "b*", False), ("*:x/*", "arn:*", True), ("a", "a", True), ("a", "ab", False)],
)
def test_two_patterns_overlap_where_one_text_matches_both(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is expected


def test_the_tool_exits_1_on_a_problem(dev_deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(dev_deployment.assembly)]) == 0
    assert capsys.readouterr().out == "every action, resource and condition key exists\n"
