"""Python functions: arm64, bundled, in the VPC, each with an encrypted log and a role of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import triggers
from constructs import Construct

from config import versions
from stacks.base import BarflowStack, acknowledge
from stacks.bundles import Bundle
from stacks.constructs.function_code import function_code
from stacks.constructs.logs import encrypted_log_group
from stacks.platform import Platform

RUNTIME = lambda_.Runtime(f"python{versions.LAMBDA_PYTHON}", lambda_.RuntimeFamily.PYTHON)
# EC2 has no narrower resource for the network interfaces of a function in a VPC.
NETWORK_INTERFACES = [
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
]


class PythonFunction(Construct):
    """A function with its ``role`` and ``log``. The handler is ``handler.handler`` of the bundle."""

    def __init__(
        self,
        stack: BarflowStack,
        construct_id: str,
        *,
        platform: Platform,
        bundle: Bundle,
        description: str,
        memory_mb: int,
        timeout: cdk.Duration,
        environment: Mapping[str, str],
        name: str | None = None,
        alone: bool = False,
        **more: Any,
    ) -> None:
        """Create the function. ``more`` are properties of lambda.Function: retries, dead-letter queue.

        Without ``name``, CloudFormation generates one. An ``alone`` function has one concurrent execution reserved, if
        the environment reserves any.
        """
        super().__init__(stack, construct_id)
        reserve = alone and platform.environment.reserve_concurrency
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
        # Lambda uses these permissions for the function. The function's own code is denied them.
        functions = stack.format_arn(
            service="lambda",
            resource="function",
            resource_name=name or f"{stack.stack_name}-*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        self.role.add_to_policy(
            iam.PolicyStatement(
                effect=iam.Effect.DENY,
                actions=NETWORK_INTERFACES,
                resources=["*"],
                conditions={"ArnLike": {"lambda:SourceFunctionArn": functions}},
            )
        )
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=name,
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
            reserved_concurrent_executions=1 if reserve else None,
            **more,
        )
        if alone and not reserve:
            acknowledge(
                self.function,
                "the environment reserves no concurrency, because a new account allows none; a tick may run twice",
                "NIST.800.53.R5-LambdaConcurrency",
            )
        acknowledge(
            self.role,
            "EC2 has no narrower resource for the network interfaces of a function in a VPC",
            "AwsSolutions-IAM5[Resource::*]",
        )
        acknowledge(
            self.function, f"the tests run Python {versions.LAMBDA_PYTHON}, not the newest runtime", "AwsSolutions-L1"
        )

    def run_on_deployment(
        self, scope: Construct, trigger_id: str, *, after: Sequence[Construct] = ()
    ) -> triggers.Trigger:
        """Invoke the function in each deployment that changes it, after these constructs. Return the trigger.

        If the function fails, the deployment fails.
        """
        acknowledge(
            self.function,
            "deployments invoke it, one at a time; they wait for it and fail with it",
            "NIST.800.53.R5-LambdaConcurrency",
            "NIST.800.53.R5-LambdaDLQ",
        )
        assert self.function.timeout is not None
        return triggers.Trigger(
            scope,
            trigger_id,
            handler=self.function,
            timeout=self.function.timeout.plus(cdk.Duration.minutes(1)),
            execute_after=list(after) or None,
        )
