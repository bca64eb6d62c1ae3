"""Are policies judged as IAM judges them?"""

from __future__ import annotations

from typing import Any

import pytest

from emulators.aws.iam_policies import Call, allowed

OBJECT = "arn:aws:s3:::lake/bars/symbol=AAPL/part.parquet"


def statement(effect: str = "Allow", action: Any = "s3:GetObject", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


@pytest.mark.parametrize(
    ("given", "answer"),
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
def test_an_action_on_a_resource(given: list[dict[str, Any]], answer: bool) -> None:
    assert allowed(given, Call("s3:GetObject", OBJECT)) is answer


@pytest.mark.parametrize(
    ("condition", "answer"),
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
def test_a_condition(condition: dict[str, Any], answer: bool) -> None:
    context = {
        "kms:ViaService": ("s3.amazonaws.com",),
        "aws:TagKeys": ("a", "b"),
        "aws:SecureTransport": ("true",),
        "source": ("arn:aws:lambda:us-east-1:1:function:x",),
    }
    call = Call("s3:GetObject", OBJECT, context)
    assert allowed([statement(Condition=condition)], call) is answer


def test_a_condition_that_is_not_known_is_not_passed_over() -> None:
    given = [statement(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})]
    with pytest.raises(ValueError, match="IpAddress on aws:SourceIp is not known here"):
        allowed(given, Call("s3:GetObject", OBJECT, {"aws:SourceIp": ("10.0.0.1",)}))
