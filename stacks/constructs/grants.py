"""Rights to secrets, in the policy of the role alone: CDK's own grants write into the key's stack, a cycle."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager


def allow_reading_secrets(role: iam.IGrantable, key: kms.IKey, *secrets: secretsmanager.ISecret) -> None:
    """Lets the role read these secrets, and use their key through Secrets Manager only."""
    principal = role.grant_principal
    stack = cdk.Stack.of(role)  # type: ignore[arg-type]
    principal.add_to_principal_policy(
        iam.PolicyStatement(
            actions=["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
            resources=[secret.secret_full_arn or f"{secret.secret_arn}-??????" for secret in secrets],
        )
    )
    principal.add_to_principal_policy(
        iam.PolicyStatement(
            actions=["kms:Decrypt"],
            resources=[key.key_arn],
            conditions={"StringEquals": {"kms:ViaService": f"secretsmanager.{stack.region}.{stack.url_suffix}"}},
        )
    )
