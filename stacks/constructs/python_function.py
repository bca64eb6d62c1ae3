"""A Python function as it should be: arm64, bundled, in the VPC, with its own encrypted log and only its own rights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_

from config import versions
from stacks.base import BarflowStack
from stacks.bundles import Bundle
from stacks.constructs.bundled import function_code
from stacks.constructs.logs import encrypted_log_group

RUNTIME = lambda_.Runtime(f"python{versions.LAMBDA_PYTHON}", lambda_.RuntimeFamily.PYTHON)


def python_function(
    stack: BarflowStack,
    construct_id: str,
    *,
    bundle: Bundle,
    description: str,
    vpc: ec2.IVpc,
    group: ec2.ISecurityGroup,
    key: kms.IKey,
    memory_mb: int,
    timeout: cdk.Duration,
    environment: Mapping[str, str],
    **more: Any,
) -> lambda_.Function:
    """``more`` goes to the function as it is: concurrency, retries, dead-letter queue."""
    log = encrypted_log_group(
        stack, f"{construct_id}Log", key, stack.environment_config.retention.logs_days, cdk.RemovalPolicy.DESTROY
    )
    role = iam.Role(stack, f"{construct_id}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    log.grant_write(role)
    # The addresses that a function in a VPC takes; EC2 knows no narrower resource for them.
    role.add_to_policy(
        iam.PolicyStatement(
            actions=[
                "ec2:CreateNetworkInterface",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSubnets",
                "ec2:DeleteNetworkInterface",
                "ec2:AssignPrivateIpAddresses",
                "ec2:UnassignPrivateIpAddresses",
            ],
            resources=["*"],
        )
    )
    return lambda_.Function(
        stack,
        construct_id,
        code=function_code(bundle),
        handler="handler.handler",
        runtime=RUNTIME,
        architecture=lambda_.Architecture.ARM_64,
        description=description,
        vpc=vpc,
        vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
        security_groups=[group],
        role=role,
        log_group=log,
        memory_size=memory_mb,
        timeout=timeout,
        environment=dict(environment),
        **more,
    )
