"""References in a template, the order that they give, and the changes that replace a resource."""

from __future__ import annotations

from typing import Any

import pytest

from emulators.aws.template_references import in_order, is_replaced, references


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"Ref": "A"}, ["A"]),
        ({"Fn::GetAtt": ["A", "Arn"]}, ["A"]),
        ({"Fn::GetAtt": "A.Arn"}, ["A"]),
        ({"Fn::Sub": "x-${A}-${B.Arn}-${!C}"}, ["A", "B"]),
        ({"Fn::Sub": ["${A}${D}", {"D": {"Ref": "B"}}]}, ["A", "D", "B"]),
        ({"DependsOn": "A", "Properties": {"Names": [{"Ref": "B"}]}}, ["A", "B"]),
        ({"Fn::ImportValue": "A"}, []),
    ],
)
def test_references_are_found(value: Any, found: list[str]) -> None:
    assert list(references(value)) == found


def test_resources_are_ordered_by_what_they_refer_to() -> None:
    bodies = {"C": {"Ref": "B"}, "B": {"DependsOn": ["A"]}, "A": {"Ref": "AWS::Region"}, "D": {}}
    order = in_order(bodies, bodies)
    assert order.index("A") < order.index("B") < order.index("C")
    assert in_order(bodies, ["C", "A"]) == ["A", "C"]


def instance(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::EC2::Instance", "Properties": properties}


@pytest.mark.parametrize(
    ("before", "after", "replaced"),
    [
        (instance(ImageId="ami-1"), instance(ImageId="ami-2"), True),
        (instance(ImageId={"Ref": "Image"}), instance(ImageId={"Ref": "Image"}), True),
        (instance(ImageId={"Ref": "Kept"}), instance(ImageId={"Ref": "Kept"}), False),
        (instance(InstanceType="t4g.small"), instance(InstanceType="t4g.medium"), False),
        (instance(UserData={"Ref": "Image"}), instance(UserData="other"), False),
        (instance(), {"Type": "AWS::EC2::VPC", "Properties": {}}, True),
        ({"Type": "Custom::Own", "Properties": {"A": 1}}, {"Type": "Custom::Own", "Properties": {"A": 2}}, False),
        (
            {"Type": "AWS::Glue::Database", "Properties": {"DatabaseInput": {"Name": "a"}}},
            {"Type": "AWS::Glue::Database", "Properties": {"DatabaseInput": {"Name": "a", "Description": "d"}}},
            False,
        ),
    ],
)
def test_a_changed_property_that_only_a_creation_sets_replaces_a_resource(
    before: dict[str, Any], after: dict[str, Any], replaced: bool
) -> None:
    assert is_replaced(before, after, {"Image"}) is replaced
