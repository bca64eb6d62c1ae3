"""Buckets: private, TLS only, encrypted, with access logs, and retained unless their data may be deleted."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from stacks.base import BarflowStack, acknowledge


def secure_bucket(
    stack: BarflowStack,
    construct_id: str,
    *,
    key: kms.IKey | None,
    access_logs: s3.IBucket | None,
    versioned: bool,
    rules: Sequence[s3.LifecycleRule] = (),
) -> s3.Bucket:
    """Create a bucket. Without ``key`` S3 encrypts it with a key of its own, as a bucket of access logs requires."""
    bucket = s3.Bucket(
        stack,
        construct_id,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        encryption=s3.BucketEncryption.KMS if key else s3.BucketEncryption.S3_MANAGED,
        encryption_key=key,
        bucket_key_enabled=True if key else None,
        versioned=versioned,
        server_access_logs_bucket=access_logs,
        server_access_logs_prefix=f"access/{construct_id.lower()}/" if access_logs else None,
        removal_policy=stack.occupied_removal_policy,
        auto_delete_objects=stack.data_removal_policy == cdk.RemovalPolicy.DESTROY,
        lifecycle_rules=[
            s3.LifecycleRule(id="unfinished-uploads", abort_incomplete_multipart_upload_after=cdk.Duration.days(1)),
            *rules,
        ],
    )
    acknowledge(
        bucket,
        "one region is enough: the vendor has the bars and the repository has the code",
        "NIST.800.53.R5-S3BucketReplicationEnabled",
    )
    return bucket
