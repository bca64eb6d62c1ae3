"""Evaluation of policies, as IAM evaluates them."""

from __future__ import annotations

from typing import Any

import pytest

from emulators.aws.iam_policies import Permission, is_allowed

OBJECT = "arn:aws:s3:::lake/bars/symbol=AAPL/part.parquet"


def statement(effect: str = "Allow", action: Any = "s3:GetObject", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([], False),
        ([statement()], True),
        ([statement(action="s3:getobject")], True),
        ([statement(action=["s3:PutObject", "s3:Get*"])], True),
        ([statement(action="s3:GetObjec")], False),
        ([statement(action="S3:*")], True),
        ([statement(resource="arn:aws:s3:::lake/bars/*")], True),
        ([statement(resource="arn:aws:s3:::LAKE/*")], False),
        ([statement(resource="arn:aws:s3:::lake/bar?/*")], True),
        ([statement(resource="arn:aws:s3:::lake")], False),
        ([statement(resource=["arn:aws:s3:::other/*", OBJECT])], True),
        ([statement(), statement("Deny", resource="arn:aws:s3:::lake/*")], False),
        ([statement(), statement("Deny", action="s3:PutObject")], True),
        ([{"Effect": "Allow", "NotAction": "s3:PutObject", "Resource": "*"}], True),
        ([{"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}], False),
        ([{"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::lake/*"}], False),
    ],
)
def test_an_action_on_a_resource(statements: list[dict[str, Any]], expected: bool) -> None:
    assert is_allowed(statements, Permission("s3:GetObject", OBJECT)) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"StringEquals": {"kms:ViaService": "s3.amazonaws.com"}}, True),
        ({"StringEquals": {"KMS:viaservice": ["other", "s3.amazonaws.com"]}}, True),
        ({"StringEquals": {"kms:ViaService": "S3.amazonaws.com"}}, False),
        ({"StringEqualsIgnoreCase": {"kms:ViaService": "S3.amazonaws.com"}}, True),
        ({"StringNotEquals": {"kms:ViaService": "s3.amazonaws.com"}}, False),
        ({"StringNotEquals": {"other": "x"}}, True),
        ({"StringLike": {"kms:ViaService": "s3.*"}}, True),
        ({"StringEquals": {"other": "x"}}, False),
        ({"StringEqualsIfExists": {"other": "x"}}, True),
        ({"StringEqualsIfExists": {"kms:ViaService": "x"}}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b", "c"]}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, False),
        ({"ForAllValues:StringEquals": {"other": ["a"]}}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, True),
        ({"Bool": {"aws:SecureTransport": True}}, True),
        ({"Bool": {"aws:SecureTransport": "false"}}, False),
        ({"Null": {"other": "true"}}, True),
        ({"Null": {"kms:ViaService": True}}, False),
        ({"ArnLike": {"source": "arn:aws:lambda:*:function:x"}}, True),
        ({"StringEquals": {"kms:ViaService": "s3.amazonaws.com"}, "Bool": {"aws:SecureTransport": "false"}}, False),
    ],
)
def test_a_condition(condition: dict[str, Any], expected: bool) -> None:
    context = {
        "kms:ViaService": ("s3.amazonaws.com",),
        "aws:TagKeys": ("a", "b"),
        "aws:SecureTransport": ("true",),
        "source": ("arn:aws:lambda:us-east-1:1:function:x",),
    }
    permission = Permission("s3:GetObject", OBJECT, context)
    assert is_allowed([statement(Condition=condition)], permission) is expected


def test_an_unsupported_condition_operator_raises() -> None:
    given = [statement(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})]
    with pytest.raises(ValueError, match="IpAddress on aws:SourceIp is not supported"):
        is_allowed(given, Permission("s3:GetObject", OBJECT, {"aws:SourceIp": ("10.0.0.1",)}))
