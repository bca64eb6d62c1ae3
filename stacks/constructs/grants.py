"""Rights to secrets and objects, exactly those, in the policy of the role alone.

CDK's own grants also write into the policy of the key, in a stack that this one builds on: a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager

from stacks.base import acknowledge


def allow(
    role: iam.IRole, actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, object] | None = None
) -> None:
    """Lets the role do these things with these resources."""
    role.add_to_principal_policy(
        iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=conditions)
    )


def allow_reading_secrets(role: iam.IRole, key: kms.IKey, *secrets: secretsmanager.ISecret) -> None:
    """Lets the role read these secrets, and use their key through Secrets Manager only."""
    allow(
        role,
        ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
        [secret.secret_full_arn or secret.secret_arn for secret in secrets],
    )
    _allow_key(role, key, ["kms:Decrypt"], "secretsmanager")


def allow_objects(
    role: iam.IRole, bucket: s3.IBucket, key: kms.IKey, *, reads: Sequence[str] = (), writes: Sequence[str] = ()
) -> None:
    """Lets the role read and write what lies under these prefixes of the bucket, and use its key through S3 only.

    A prefix without a slash at its end covers the name itself too: file systems on S3 ask whether it is an object.
    """
    # Without listing, an object that is missing looks forbidden.
    allow(role, ["s3:ListBucket", "s3:GetBucketLocation"], [bucket.bucket_arn])
    read, written = ([bucket.arn_for_objects(f"{prefix}*") for prefix in prefixes] for prefixes in (reads, writes))
    if read:
        allow(role, ["s3:GetObject"], read)
    if written:
        allow(role, ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"], written)
    _allow_key(role, key, ["kms:Decrypt", "kms:GenerateDataKey"] if written else ["kms:Decrypt"], "s3")
    found = _as_found(cdk.Stack.of(role), bucket)
    acknowledge(
        role,
        "all objects under a prefix of this environment's own bucket",
        *(f"AwsSolutions-IAM5[Resource::{found}/{prefix}*]" for prefix in dict.fromkeys([*reads, *writes])),
    )


def as_found(stack: cdk.Stack, arn: str) -> str:
    """An ARN, with tokens of its own stack at most, as cdk-nag writes it in the id of a finding."""
    resolved = stack.resolve(arn)
    parts = [resolved] if isinstance(resolved, str) else resolved["Fn::Join"][1]
    return "".join(
        part if isinstance(part, str) else f"<{part.get('Ref') or '.'.join(part['Fn::GetAtt'])}>" for part in parts
    )


def _as_found(stack: cdk.Stack, bucket: s3.IBucket) -> str:
    """The bucket's ARN as cdk-nag writes it in a finding in that stack."""
    owner = cdk.Stack.of(bucket)
    if owner.node.path == stack.node.path:
        logical_id, attribute = stack.resolve(bucket.bucket_arn)["Fn::GetAtt"]
        return f"<{logical_id}.{attribute}>"
    return str(stack.resolve(owner.export_value(bucket.bucket_arn))["Fn::ImportValue"])


def _allow_key(role: iam.IRole, key: kms.IKey, actions: list[str], service: str) -> None:
    stack = cdk.Stack.of(role)
    through = {"StringEquals": {"kms:ViaService": f"{service}.{stack.region}.{stack.url_suffix}"}}
    allow(role, actions, [key.key_arn], through)
