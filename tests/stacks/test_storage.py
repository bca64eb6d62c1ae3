"""Are the buckets closed, kept and aged as they should be, and is the inventory of who may write what the truth?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deployments import Deployment

from stacks.bundles import RELEASE, Bundle
from stacks.storage import ACCESS

BUCKETS = ("Lake", "Code", "Logs")
# By the name that a role has in a template: who it is in ACCESS.
ROLES = {
    **{"NodeRole": "emr", "Loader": "glue", "Reader": "crawler", "HostRole": "host"},
    **{"Publish": "publisher", "Certificate": "certificate", "Graph": "graph", "Sandbox": "sandbox"},
}


def buckets(deployment: Deployment) -> dict[str, dict[str, Any]]:
    found = {}
    for key, resource in deployment.templates["Storage"]["Resources"].items():
        if resource["Type"] == "AWS::S3::Bucket":
            found[next(name for name in BUCKETS if key.startswith(name))] = resource["Properties"]
    return found


def rules(bucket: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}


def test_every_bucket_is_private_encrypted_and_owned_whole(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        found = buckets(deployment)
        assert set(found) == set(BUCKETS)
        for name, bucket in found.items():
            assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
            assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
            (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
            by_key = rule["ServerSideEncryptionByDefault"]
            assert by_key["SSEAlgorithm"] == ("AES256" if name == "Logs" else "aws:kms")
            assert name == "Logs" or "DataKey" in json.dumps(by_key["KMSMasterKeyID"])


def test_every_bucket_refuses_what_comes_without_tls(dev_deployment: Deployment) -> None:
    policies = dev_deployment.resources("Storage", "AWS::S3::BucketPolicy")
    assert len(policies) == len(BUCKETS)
    for policy in policies:
        denied = [item for item in policy["PolicyDocument"]["Statement"] if item["Effect"] == "Deny"]
        conditions = [item["Condition"] for item in denied if item["Action"] == "s3:*"]
        assert {"Bool": {"aws:SecureTransport": "false"}} in conditions
        assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in conditions


def test_the_archive_grows_cold_and_is_never_deleted(prod_deployment: Deployment) -> None:
    archive = rules(buckets(prod_deployment)["Lake"])["archive"]
    keep = prod_deployment.environment.retention
    assert archive["Prefix"] == "bars_5min/"
    assert archive["Transitions"] == [
        {"StorageClass": "STANDARD_IA", "TransitionInDays": keep.archive_infrequent_days},
        {"StorageClass": "GLACIER_IR", "TransitionInDays": keep.archive_glacier_days},
    ]
    assert "ExpirationInDays" not in archive


def test_only_what_can_be_made_again_expires(dev_deployment: Deployment) -> None:
    lake = rules(buckets(dev_deployment)["Lake"])
    expiring = {rule["Prefix"] for rule in lake.values() if "ExpirationInDays" in rule}
    assert expiring == {"_staged/", "queries/"}
    assert not [rule for rule in rules(buckets(dev_deployment)["Code"]).values() if "ExpirationInDays" in rule]


def test_unfinished_uploads_go_and_what_is_replaced_is_kept_for_a_while(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        for name, bucket in buckets(deployment).items():
            assert rules(bucket)["unfinished-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
            if name != "Logs":
                assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
                kept = rules(bucket)["old-versions"]["NoncurrentVersionExpiration"]
                assert kept == {"NoncurrentDays": deployment.environment.retention.old_versions_days}


def test_the_accesses_to_lake_and_code_are_logged(dev_deployment: Deployment) -> None:
    found = buckets(dev_deployment)
    logs = {name: bucket.get("LoggingConfiguration", {}).get("LogFilePrefix") for name, bucket in found.items()}
    assert logs == {"Lake": "access/lake/", "Code": "access/code/", "Logs": None}


def written(deployment: Deployment) -> set[tuple[str, str, str]]:
    """(role, bucket, prefix) of every right to put or delete objects of these buckets, in all stacks."""
    found = set()
    for template in deployment.templates.values():
        for resource in template["Resources"].values():
            if resource["Type"] != "AWS::IAM::Policy":
                continue
            roles = [json.dumps(role) for role in resource["Properties"]["Roles"]]
            for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
                if statement["Effect"] == "Allow" and {"s3:PutObject", "s3:DeleteObject"} & set(
                    listed(statement["Action"])
                ):
                    found |= {(role, *place(arn)) for role in roles for arn in listed(statement["Resource"])}
    return found


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def place(arn: Any) -> tuple[str, str]:
    """The bucket and the prefix that an ARN of objects means."""
    bucket, objects = arn["Fn::Join"][1]
    name = next(name for name in BUCKETS if f"{name}" in json.dumps(bucket).replace("Storage", ""))
    return name.lower(), objects.removeprefix("/").removesuffix("*")


def test_whoever_writes_is_in_the_inventory_and_the_inventory_is_whole(dev_deployment: Deployment) -> None:
    def who(role: str) -> str:
        return next((name for start, name in ROLES.items() if start in role), role)

    actual = {(who(role), bucket, prefix) for role, bucket, prefix in written(dev_deployment)}
    assert actual == {(who, item.bucket, item.prefix) for item in ACCESS for who in item.writes}


def test_the_place_of_a_release_is_named_by_its_content(dev_deployment: Deployment) -> None:
    release = dev_deployment.stacks["Storage"].release
    assert RELEASE.digest[:16] in release.prefix
    assert release.uri("spark/bars_to_parquet.py").endswith(f"/{release.prefix}/spark/bars_to_parquet.py")
    with pytest.raises(KeyError, match=r"nowhere\.py is not among the published programs"):
        release.uri("nowhere.py")


def test_the_digest_of_a_bundle_follows_every_byte_and_every_name(tmp_path: Path) -> None:
    def digest(text: str = "a = 1\n", name: str = "one.py", lock: str = "x==1\n") -> str:
        for old in tmp_path.rglob("*.py"):
            old.unlink()
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / name).write_text(text)
        (tmp_path / "lock.txt").write_text(lock)
        return Bundle(name="b", files={"in": "source"}, requirements="lock.txt", root=tmp_path).digest

    same = digest()
    (tmp_path / "source" / "__pycache__").mkdir()
    (tmp_path / "source" / "__pycache__" / "one.pyc").write_bytes(b"compiled")
    assert digest() == same
    assert len({same, digest(text="a = 2\n"), digest(name="two.py"), digest(lock="x==2\n")}) == 4
