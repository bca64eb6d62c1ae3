"""The review finds the dangerous changes of templates, and accepts the others."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tools.review import ACCESS, DATA, NETWORK, OTHER, Change, compare, create_only, normalised, unacknowledged

BUCKET = {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": {"BucketName": "lake"}}
ROLE = {
    "Type": "AWS::IAM::Policy",
    "Properties": {
        "PolicyDocument": {
            "Statement": [
                {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": {"Fn::Sub": "arn:lake/*"}},
                {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"},
            ]
        }
    },
}
GROUP = {
    "Type": "AWS::EC2::SecurityGroup",
    "Properties": {
        "GroupDescription": "database",
        "SecurityGroupIngress": [{"CidrIp": "10.0.0.0/16", "FromPort": 5432, "ToPort": 5432, "IpProtocol": "tcp"}],
    },
}


def template(**resources: Any) -> dict[str, Any]:
    return {"Resources": copy.deepcopy(resources)}


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str]]:
    return [(change.kind, change.what) for change in compare("S", old, new)]


def test_the_same_template_has_no_change() -> None:
    assert changes(template(A=BUCKET, B=ROLE), template(B=ROLE, A=BUCKET)) == []


def test_a_deleted_bucket_endangers_data() -> None:
    [(kind, what)] = changes(template(A=BUCKET), template())
    assert kind == DATA
    assert "deleted" in what


def test_a_create_only_property_replaces_the_bucket() -> None:
    renamed = copy.deepcopy(BUCKET)
    renamed["Properties"]["BucketName"] = "other"
    [(kind, what)] = changes(template(A=BUCKET), template(A=renamed))
    assert kind == DATA
    assert "BucketName" in what


def test_create_only_properties_come_from_the_schema_of_cloudformation() -> None:
    assert {"KmsKeyId", "DBSubnetGroupName", "StorageEncrypted"} <= set(create_only("AWS::RDS::DBInstance"))


@pytest.mark.parametrize("policy", ["Retain", "RetainExceptOnCreate", "Snapshot"])
def test_a_weaker_deletion_policy_endangers_data(policy: str) -> None:
    kept, weaker = {**BUCKET, "DeletionPolicy": policy}, {**BUCKET, "DeletionPolicy": "Delete"}
    assert changes(template(A=kept), template(A=weaker)) == [(DATA, f"DeletionPolicy was {policy} and is Delete")]


def test_a_changed_lifecycle_is_an_ordinary_change() -> None:
    other = copy.deepcopy(BUCKET)
    other["Properties"]["LifecycleConfiguration"] = {"Rules": []}
    assert changes(template(A=BUCKET), template(A=other)) == [(OTHER, "changed: LifecycleConfiguration")]


def test_an_added_action_is_wider_access() -> None:
    wider = copy.deepcopy(ROLE)
    wider["Properties"]["PolicyDocument"]["Statement"][0]["Action"].append("s3:PutObject")
    [(kind, what)] = changes(template(A=ROLE), template(A=wider))
    assert kind == ACCESS
    assert "s3:PutObject" in what


def test_a_removed_condition_is_wider_access() -> None:
    conditioned = copy.deepcopy(ROLE)
    conditioned["Properties"]["PolicyDocument"]["Statement"][0]["Condition"] = {"Bool": {"aws:SecureTransport": "true"}}
    assert [kind for kind, _ in changes(template(A=conditioned), template(A=ROLE))] == [ACCESS]


def test_a_removed_denial_is_wider_access() -> None:
    wider = copy.deepcopy(ROLE)
    del wider["Properties"]["PolicyDocument"]["Statement"][1]
    [(kind, what)] = changes(template(A=ROLE), template(A=wider))
    assert kind == ACCESS
    assert "no longer denies s3:DeleteObject" in what


def test_an_added_managed_policy_is_wider_access() -> None:
    role = {"Type": "AWS::IAM::Role", "Properties": {"ManagedPolicyArns": []}}
    wider = {"Type": "AWS::IAM::Role", "Properties": {"ManagedPolicyArns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"]}}
    [(kind, what)] = changes(template(A=role), template(A=wider))
    assert kind == ACCESS
    assert "ReadOnlyAccess" in what


def test_less_access_is_an_ordinary_change() -> None:
    narrower = copy.deepcopy(ROLE)
    narrower["Properties"]["PolicyDocument"]["Statement"] = ROLE["Properties"]["PolicyDocument"]["Statement"][1:]
    assert [kind for kind, _ in changes(template(A=ROLE), template(A=narrower))] == [OTHER]


def test_an_added_rule_is_a_wider_network_and_a_description_is_not() -> None:
    wider, described = copy.deepcopy(GROUP), copy.deepcopy(GROUP)
    wider["Properties"]["SecurityGroupIngress"].append({"CidrIp": "0.0.0.0/0", "FromPort": 22, "IpProtocol": "tcp"})
    described["Properties"]["SecurityGroupIngress"][0]["Description"] = "from the VPC"
    assert [kind for kind, _ in changes(template(A=GROUP), template(A=wider))] == [NETWORK]
    assert [kind for kind, _ in changes(template(A=GROUP), template(A=described))] == [OTHER]


def test_another_hash_of_an_asset_is_no_change() -> None:
    one, two = ({"Resources": {"F": {"Type": "AWS::Lambda::Function", "Key": f"{mark * 64}.zip"}}} for mark in "ab")
    assert normalised(one) == normalised(two)
    assert json.dumps(normalised(one)).count("HASH") == 1


@pytest.mark.parametrize(("kind", "start", "left"), [(ACCESS, "S/A", 0), (DATA, "S/A", 1), (ACCESS, "S/B", 1)])
def test_an_acknowledgement_covers_only_its_kind_and_resource(kind: str, start: str, left: int) -> None:
    change = Change(ACCESS, "S/A1B2 (AWS::IAM::Policy)", "now allows s3:PutObject on lake")
    entry = {"kind": kind, "resource": start, "reason": "because"}
    assert len(unacknowledged([change], [entry])) == left


def test_ordinary_changes_need_no_acknowledgement() -> None:
    assert unacknowledged([Change(OTHER, "S/A", "changed"), Change(NETWORK, "S/A", "wider")], []) == []
