"""A role for Glue jobs and crawlers, narrower than AWS's managed policy. It has no permission for data."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.base import BarflowStack, acknowledge
from stacks.constructs.grants import allow, arn_in_finding
from stacks.constructs.logs import encrypted_log_group
from stacks.platform import Platform

GLUE = "glue.amazonaws.com"
# EC2 has no narrower resource for describing networks and for the network interfaces of Glue in a VPC.
NETWORK = [
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcAttribute",
    "ec2:DescribeVpcEndpoints",
]
LOG_GROUPS = "/aws-glue/"
LOG_PREFIX = "--custom-logGroup-prefix"


def glue_role(stack: BarflowStack, construct_id: str, *, key: kms.IKey) -> iam.Role:
    """Create the role. ``key`` encrypts the logs. The caller adds permissions for data."""
    role = iam.Role(stack, construct_id, assumed_by=iam.ServicePrincipal(GLUE))
    allow(role, [*NETWORK, "glue:GetSecurityConfiguration"], ["*"])
    interface = stack.format_arn(service="ec2", resource="network-interface", resource_name="*")
    tagged = {"ForAllValues:StringEquals": {"aws:TagKeys": ["aws-glue-service-resource"]}}
    allow(role, ["ec2:CreateTags", "ec2:DeleteTags"], [interface], tagged)
    allow(role, ["cloudwatch:PutMetricData"], ["*"], {"StringLike": {"cloudwatch:namespace": ["Glue", "Glue *"]}})
    groups = stack.format_arn(
        service="logs",
        resource="log-group",
        resource_name=f"{LOG_GROUPS}*",
        arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
    )
    log = ["logs:AssociateKmsKey", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
    allow(role, log, [groups])
    allow(role, ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"], [key.key_arn])
    acknowledge(
        role,
        "EC2, CloudWatch and Glue have no narrower resource for these actions",
        "AwsSolutions-IAM5[Resource::*]",
    )
    acknowledge(
        role,
        "Glue names its network interfaces and log groups; a tag and a prefix are the narrowest conditions",
        f"AwsSolutions-IAM5[Resource::{arn_in_finding(stack, interface)}]",
        f"AwsSolutions-IAM5[Resource::{arn_in_finding(stack, groups)}]",
    )
    return role


def job_log_groups(
    scope: Construct, role: iam.IRole, *, security: glue.SecurityConfiguration, platform: Platform
) -> str:
    """Create the log groups of a job, encrypted and with retention. Return the value of its LOG_PREFIX argument.

    Glue 5 writes to PREFIX/error and PREFIX/output. With a security configuration it adds the names of that and of the
    role. It would create the groups itself, without retention.
    """
    environment = platform.environment
    prefix = f"{LOG_GROUPS}barflow/{environment.name}"
    for kind in ("error", "output"):
        encrypted_log_group(
            scope,
            f"{kind.title()}Log",
            key=platform.keys.data,
            days=environment.retention.logs_days,
            removal_policy=cdk.RemovalPolicy.DESTROY,
            name=f"{prefix}/{security.security_configuration_name}-role/{role.role_name}/{kind}",
        )
    return prefix


def allow_catalog(
    role: iam.IRole | iam.ManagedPolicy, database: str, actions: Sequence[str], *, tables: Sequence[str] = ("*",)
) -> None:
    """Allow the role these actions of Glue on a catalog database and on these of its tables."""
    stack = cdk.Stack.of(role)
    resources = [
        stack.format_arn(service="glue", resource="catalog"),
        stack.format_arn(service="glue", resource="database", resource_name=database),
        *(stack.format_arn(service="glue", resource="table", resource_name=f"{database}/{table}") for table in tables),
    ]
    allow(role, [f"glue:{action}" for action in actions], resources)
    if "*" in tables:
        acknowledge(
            role,
            "the crawler names the tables that it finds for this database",
            f"AwsSolutions-IAM5[Resource::{arn_in_finding(stack, resources[-1])}]",
        )
