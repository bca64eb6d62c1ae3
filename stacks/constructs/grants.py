"""Permissions for secrets and objects, written into the role's policy only.

CDK's own grants also write into the policy of the key. The key is in a stack that the role's stack builds on, so that
would be a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager

from config.environment import Environment
from stacks.base import acknowledge


def allow(
    to: iam.IRole | iam.ManagedPolicy,
    actions: Sequence[str],
    resources: Sequence[str],
    conditions: Mapping[str, object] | None = None,
) -> None:
    """Allow the role, or the roles of the policy, these actions on these resources."""
    statement = iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=conditions)
    if isinstance(to, iam.ManagedPolicy):
        to.add_statements(statement)
    else:
        to.add_to_principal_policy(statement)


def through_service(stack: cdk.Stack, service: str) -> dict[str, object]:
    """Return the condition that a key is used through one service only, such as ``sqs``."""
    return {"StringEquals": {"kms:ViaService": f"{service}.{stack.region}.{stack.url_suffix}"}}


def allow_key(
    role: iam.IRole,
    key: kms.IKey,
    actions: Sequence[str],
    *,
    service: str,
    conditions: Mapping[str, object] | None = None,
) -> None:
    """Allow the role these actions of the key through one service only, under further conditions."""
    allow(role, actions, [key.key_arn], {**through_service(cdk.Stack.of(role), service), **(conditions or {})})


def allow_reading_channel_secrets(role: iam.IRole, environment: Environment) -> None:
    """Allow the role to read the secrets of webhooks and of apprise, by their names, if the environment has them.

    The role can already use the key of the secrets.
    """
    channels = {"webhook": environment.webhooks.urls, "apprise": environment.apprise}
    stack = cdk.Stack.of(role)
    # Secrets Manager adds six characters to the name.
    secrets = [
        stack.format_arn(
            service="secretsmanager",
            resource="secret",
            resource_name=f"barflow/{environment.name}/{name}-??????",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        for name, used in channels.items()
        if used
    ]
    if secrets:
        allow(role, ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"], secrets)


def allow_reading_secrets(role: iam.IRole, key: kms.IKey, *secrets: secretsmanager.ISecret) -> None:
    """Allow the role to read these secrets, and to use their key through Secrets Manager only."""
    allow(
        role,
        ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
        [secret.secret_full_arn or secret.secret_arn for secret in secrets],
    )
    allow_key(role, key, ["kms:Decrypt"], service="secretsmanager")


def allow_objects(
    role: iam.IRole,
    bucket: s3.IBucket,
    key: kms.IKey,
    *,
    reads: Sequence[str] = (),
    writes: Sequence[str] = (),
    deletes: Sequence[str] = (),
) -> None:
    """Allow the role to read, write and delete objects under these prefixes, and to use the key through S3 only.

    A prefix is a folder: ``bars`` is the object of that name, for which file systems on S3 ask, and all below
    ``bars/``. It does not include ``bars_history``.
    """
    # Without permission to list, a missing object looks like a denied one.
    allow(role, ["s3:ListBucket", "s3:GetBucketLocation"], [bucket.bucket_arn])
    for actions, prefixes in (
        (["s3:GetObject"], reads),
        (["s3:PutObject", "s3:AbortMultipartUpload"], writes),
        (["s3:DeleteObject"], deletes),
    ):
        if prefixes:
            objects = [bucket.arn_for_objects(f"{prefix}{end}") for prefix in prefixes for end in ("", "/*")]
            allow(role, actions, objects)
    allow_key(role, key, ["kms:Decrypt", "kms:GenerateDataKey"] if writes else ["kms:Decrypt"], service="s3")
    found = _bucket_in_finding(cdk.Stack.of(role), bucket)
    acknowledge(
        role,
        "all objects under a prefix of this environment's own bucket",
        *(f"AwsSolutions-IAM5[Resource::{found}/{prefix}/*]" for prefix in dict.fromkeys([*reads, *writes, *deletes])),
    )


def arn_in_finding(stack: cdk.Stack, arn: str) -> str:
    """Return an ARN as cdk-nag writes it in the id of a finding. Its tokens are of the stack itself."""
    resolved = stack.resolve(arn)
    parts = [resolved] if isinstance(resolved, str) else resolved["Fn::Join"][1]
    return "".join(
        part if isinstance(part, str) else f"<{part.get('Ref') or '.'.join(part['Fn::GetAtt'])}>" for part in parts
    )


def _bucket_in_finding(stack: cdk.Stack, bucket: s3.IBucket) -> str:
    """Return the bucket's ARN as cdk-nag writes it in a finding of the stack."""
    owner = cdk.Stack.of(bucket)
    if owner.node.path == stack.node.path:
        logical_id, attribute = stack.resolve(bucket.bucket_arn)["Fn::GetAtt"]
        return f"<{logical_id}.{attribute}>"
    return str(stack.resolve(owner.export_value(bucket.bucket_arn))["Fn::ImportValue"])
