"""Glue's connections to the warehouse: over TLS, from the VPC, as the user of a secret."""

from __future__ import annotations

from aws_cdk import aws_glue as glue
from aws_cdk import aws_secretsmanager as secretsmanager

from stacks.base import BarflowStack
from stacks.database import DatabaseStack
from stacks.platform import Platform


def jdbc_connection(
    stack: BarflowStack,
    construct_id: str,
    *,
    platform: Platform,
    purpose: str,
    database: DatabaseStack,
    user: secretsmanager.ISecret,
    driver: str | None = None,
) -> glue.Connection:
    """Create a connection. The role that connects needs permission to read what it refers to.

    ``user`` is the secret of the user. ``driver`` is the URI of a driver that replaces Glue's own.
    """
    own_driver = {"JDBC_DRIVER_JAR_URI": driver, "JDBC_DRIVER_CLASS_NAME": "org.postgresql.Driver"} if driver else {}
    return glue.Connection(
        stack,
        construct_id,
        type=glue.ConnectionType.JDBC,
        description=f"Barflow {platform.environment.name}: the warehouse, {purpose}",
        network=glue.ConnectionNetwork.subnet(platform.glue_subnet),
        security_groups=[platform.groups.glue],
        properties={
            "JDBC_CONNECTION_URL": database.jdbc_url,
            "JDBC_ENFORCE_SSL": "true",
            **own_driver,
        },
        secret=user,
    )
