"""Log groups, encrypted with the environment's key and kept for a configured time."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct


def encrypted_log_group(
    scope: Construct,
    construct_id: str,
    *,
    key: kms.IKey,
    days: int,
    removal_policy: cdk.RemovalPolicy,
    name: str | None = None,
) -> logs.LogGroup:
    """Create a log group. ``days`` is a retention that CloudWatch offers; ``name`` is for services that require it."""
    group = logs.LogGroup(scope, construct_id, encryption_key=key, log_group_name=name, removal_policy=removal_policy)
    resource = group.node.default_child
    assert isinstance(resource, logs.CfnLogGroup)
    resource.retention_in_days = days
    return group


def keep_provider_logs(app: cdk.App, *, key: kms.IKey, days: int) -> None:
    """Give each of CDK's own functions for custom resources a log group, else their logs are kept for ever."""
    for provider in (child for stack in app.node.children for child in stack.node.children):
        handler = provider.node.try_find_child("Handler")
        if isinstance(handler, cdk.CfnResource) and handler.cfn_resource_type == "AWS::Lambda::Function":
            assert isinstance(provider, Construct)
            group = encrypted_log_group(provider, "Log", key=key, days=days, removal_policy=cdk.RemovalPolicy.DESTROY)
            handler.add_property_override("LoggingConfig", {"LogGroup": group.log_group_name})
