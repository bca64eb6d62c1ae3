"""The buckets are private, encrypted and expire as configured, and ACCESS lists everyone who writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deployments import Deployment, as_list

from stacks.bundles import RELEASE, Bundle

BUCKETS = ("Lake", "Code", "Logs")
# The start of a role's logical id, and its user in ACCESS.
ROLES = {
    **{"NodeRole": "emr", "Loader": "glue", "Reader": "crawler", "HostRole": "host"},
    "WarehouseCrawlerRole": "warehouse_crawler",
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


def test_every_bucket_is_private_encrypted_and_without_acls(deployments: list[Deployment]) -> None:
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


def test_every_bucket_denies_requests_without_tls(dev_deployment: Deployment) -> None:
    policies = dev_deployment.resources("Storage", "AWS::S3::BucketPolicy")
    assert len(policies) == len(BUCKETS)
    for policy in policies:
        denied = [item for item in policy["PolicyDocument"]["Statement"] if item["Effect"] == "Deny"]
        conditions = [item["Condition"] for item in denied if item["Action"] == "s3:*"]
        assert {"Bool": {"aws:SecureTransport": "false"}} in conditions
        assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in conditions


def test_the_archive_moves_to_colder_storage_and_never_expires(prod_deployment: Deployment) -> None:
    archive = rules(buckets(prod_deployment)["Lake"])["archive"]
    retention = prod_deployment.environment.retention
    assert archive["Prefix"] == "bars_5min/"
    assert archive["Transitions"] == [
        {"StorageClass": "STANDARD_IA", "TransitionInDays": retention.archive_infrequent_days},
        {"StorageClass": "GLACIER_IR", "TransitionInDays": retention.archive_glacier_days},
    ]
    assert "ExpirationInDays" not in archive


def test_only_objects_that_can_be_made_again_expire(dev_deployment: Deployment) -> None:
    lake = rules(buckets(dev_deployment)["Lake"])
    expiring = {rule["Prefix"] for rule in lake.values() if "ExpirationInDays" in rule}
    assert expiring == {"_staged/", "queries/"}
    assert not [rule for rule in rules(buckets(dev_deployment)["Code"]).values() if "ExpirationInDays" in rule]


def test_unfinished_uploads_and_old_versions_expire(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        for name, bucket in buckets(deployment).items():
            assert rules(bucket)["unfinished-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
            if name != "Logs":
                assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
                expiration = rules(bucket)["old-versions"]["NoncurrentVersionExpiration"]
                assert expiration == {"NoncurrentDays": deployment.environment.retention.old_versions_days}


def test_access_to_lake_and_code_is_logged(dev_deployment: Deployment) -> None:
    found = buckets(dev_deployment)
    logs = {name: bucket.get("LoggingConfiguration", {}).get("LogFilePrefix") for name, bucket in found.items()}
    assert logs == {"Lake": "access/lake/", "Code": "access/code/", "Logs": None}


def allowed_objects(deployment: Deployment, action: str) -> set[tuple[str, str, str]]:
    """Return (role, bucket, prefix) of every permission for an action on objects of the buckets, in all stacks."""
    found = set()
    for template in deployment.templates.values():
        for resource in template["Resources"].values():
            if resource["Type"] != "AWS::IAM::Policy":
                continue
            roles = [json.dumps(role) for role in resource["Properties"]["Roles"]]
            for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
                if statement["Effect"] == "Allow" and action in as_list(statement["Action"]):
                    ours = [arn for arn in as_list(statement["Resource"]) if is_of_bucket(arn)]
                    found |= {(role, *bucket_and_prefix(arn)) for role in roles for arn in ours}
    return found


def is_of_bucket(arn: Any) -> bool:
    """Return whether an ARN is of objects of the environment's buckets, not of those that AWS publishes."""
    return not any(part in json.dumps(arn) for part in ("elasticmapreduce", "aws-glue-"))


def bucket_and_prefix(arn: Any) -> tuple[str, str]:
    """Return the bucket and the text that an ARN of objects allows, such as ``bars`` or ``bars/*``."""
    bucket, objects = arn["Fn::Join"][1]
    name = next(name for name in BUCKETS if f"{name}" in json.dumps(bucket).replace("Storage", ""))
    return name.lower(), objects.removeprefix("/")


@pytest.mark.parametrize(
    ("action", "field"), [("s3:GetObject", "reads"), ("s3:PutObject", "writes"), ("s3:DeleteObject", "deletes")]
)
def test_roles_have_exactly_the_folders_that_access_lists(dev_deployment: Deployment, action: str, field: str) -> None:
    """A folder and its own name, so that ``manifests`` does not include ``manifests-of-others/``."""
    from stacks.storage import ACCESS

    def user(role: str) -> str:
        return next((name for start, name in ROLES.items() if start in role), role)

    allowed = {(user(role), bucket, text) for role, bucket, text in allowed_objects(dev_deployment, action)}
    assert allowed == {
        (name, item.bucket, f"{item.prefix}{end}")
        for item in ACCESS
        for name in getattr(item, field)
        for end in ("", "/*")
    }


def test_functions_that_publish_cannot_delete() -> None:
    from stacks.storage import ACCESS

    assert not {"publisher", "certificate", "graph"} & {name for item in ACCESS for name in item.deletes}


def test_the_prefix_of_a_release_contains_the_digest_of_its_content(dev_deployment: Deployment) -> None:
    release = dev_deployment.stacks["Storage"].release
    assert RELEASE.digest[:16] in release.prefix
    assert release.uri("spark/bars_to_parquet.py").endswith(f"/{release.prefix}/spark/bars_to_parquet.py")
    with pytest.raises(KeyError, match=r"nowhere\.py is not among the published programs"):
        release.uri("nowhere.py")


def test_the_digest_of_a_bundle_depends_on_every_content_name_and_lock(tmp_path: Path) -> None:
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
