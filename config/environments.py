"""The environments dev, staging and prod, made in code."""

from __future__ import annotations

from config.environment import (
    AlarmConfig,
    DatabaseConfig,
    EmrConfig,
    Environment,
    GlueConfig,
    HostConfig,
    NetworkConfig,
    RetentionConfig,
)
from config.schedule import ProcessConfig
from config.validation import ConfigError


def dev() -> Environment:
    """Return the development environment: small parts, and data that may be deleted."""
    return Environment(
        name="dev",
        allow_data_deletion=True,
        reserve_concurrency=False,  # so that it deploys to a new account
        database=DatabaseConfig(deletion_protection=False, backup_days=1),
        emr=EmrConfig(spot_percent=100),
        # The host has swap, for a few tasks at a time.
        host=HostConfig(instance_type="t4g.small", data_volume_gb=16, detailed_monitoring=False),
        retention=RetentionConfig(logs_days=30),
        network=NetworkConfig(flow_log_days=7),
        alarms=AlarmConfig(budget_usd=90),
    )


def staging() -> Environment:
    """Return the staging environment: production's layout on smaller instances."""
    return Environment(
        name="staging",
        allow_data_deletion=True,
        network=NetworkConfig(cidr="10.21.0.0/16"),
        database=DatabaseConfig(instance_class="db.t4g.small"),
        emr=EmrConfig(spot_percent=100),
        alarms=AlarmConfig(budget_usd=150),
    )


def prod() -> Environment:
    """Return the production environment: a standby for what must not fail, and no data deletion."""
    return Environment(
        name="prod",
        network=NetworkConfig(cidr="10.22.0.0/16", nat_gateways=2, flow_log_days=90),
        database=DatabaseConfig(
            instance_class="db.m7g.large",
            storage_gb=50,
            max_storage_gb=500,
            multi_az=True,
            backup_days=30,
            insights_days=31,
        ),
        emr=EmrConfig(core_count=2, spot_percent=50),
        glue=GlueConfig(max_workers=10),
        host=HostConfig(instance_type="t4g.large", data_volume_gb=50),
        # Hourly within the session, and once after its closing bars and their last corrections.
        process=ProcessConfig(schedule=("5 10-15 * * MON-FRI", "45 16 * * MON-FRI")),
        retention=RetentionConfig(logs_days=365, old_versions_days=90),
        alarms=AlarmConfig(budget_usd=700, database_connections=200),
    )


ENVIRONMENTS = {"dev": dev, "staging": staging, "prod": prod}


def environment(name: str) -> Environment:
    """Return the environment of that name.

    Raises:
        ConfigError: There is no such environment, or a setting of it is wrong. The message has a line per problem.
    """
    if name not in ENVIRONMENTS:
        raise ConfigError(
            f"there is no environment {name!r}: choose one of {', '.join(ENVIRONMENTS)}, as in -c env=dev"
        )
    try:
        return ENVIRONMENTS[name]()
    except ConfigError as error:
        problems = [f"environment {name}: {problem}" for problem in str(error).splitlines()]
        raise ConfigError("\n".join(problems)) from None
