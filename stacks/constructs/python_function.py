"""A Python function as it should be: arm64, bundled, in the VPC, with its own encrypted log and only its own rights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from config import versions
from stacks.base import BarflowStack, acknowledge
from stacks.bundles import Bundle
from stacks.constructs.bundled import function_code
from stacks.constructs.logs import encrypted_log_group
from stacks.platform import Platform

RUNTIME = lambda_.Runtime(f"python{versions.LAMBDA_PYTHON}", lambda_.RuntimeFamily.PYTHON)
# EC2 knows no narrower resource for the addresses that a function in a VPC takes.
NETWORK_INTERFACES = [
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
]


class PythonFunction(Construct):
    """``function``, ``role`` and ``log``. The handler is ``handler.handler`` of the bundle."""

    def __init__(
        self,
        stack: BarflowStack,
        construct_id: str,
        *,
        bundle: Bundle,
        description: str,
        platform: Platform,
        memory_mb: int,
        timeout: cdk.Duration,
        environment: Mapping[str, str],
        **more: Any,
    ) -> None:
        """``more`` goes to the function as it is: concurrency, retries, dead-letter queue."""
        super().__init__(stack, construct_id)
        self.log = encrypted_log_group(
            self,
            "Log",
            key=platform.keys.data,
            days=platform.environment.retention.logs_days,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        self.log.grant_write(self.role)
        self.role.add_to_policy(iam.PolicyStatement(actions=NETWORK_INTERFACES, resources=["*"]))
        # Lambda may do this for the function; the function's own code may not.
        own = stack.format_arn(
            service="lambda",
            resource="function",
            resource_name=f"{stack.stack_name}-*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        self.role.add_to_policy(
            iam.PolicyStatement(
                effect=iam.Effect.DENY,
                actions=NETWORK_INTERFACES,
                resources=["*"],
                conditions={"ArnLike": {"lambda:SourceFunctionArn": own}},
            )
        )
        self.function = lambda_.Function(
            self,
            "Function",
            code=function_code(bundle),
            handler="handler.handler",
            runtime=RUNTIME,
            architecture=lambda_.Architecture.ARM_64,
            description=description,
            vpc=platform.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            security_groups=[platform.groups.functions],
            role=self.role,
            log_group=self.log,
            memory_size=memory_mb,
            timeout=timeout,
            environment=dict(environment),
            **more,
        )
        acknowledge(
            self.role,
            "EC2 knows no narrower resource for the addresses that a function in a VPC takes",
            "AwsSolutions-IAM5[Resource::*]",
        )
        acknowledge(self.function, f"Python {versions.LAMBDA_PYTHON} is what the tests run", "AwsSolutions-L1")


def runs_on_deployment(function: PythonFunction) -> None:
    """Accepts what does not fit a function that deployments alone invoke, one at a time, and wait for."""
    acknowledge(
        function.function,
        "a deployment invokes it, waits for it and fails with it",
        "NIST.800.53.R5-LambdaConcurrency",
        "NIST.800.53.R5-LambdaDLQ",
    )
