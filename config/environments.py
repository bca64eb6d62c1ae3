"""Which environments are there? dev, staging and prod, made in code."""

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
    """Cheap, and may be torn down with its data."""
    return Environment(
        name="dev",
        allow_data_deletion=True,
        database=DatabaseConfig(deletion_protection=False, backup_days=1),
        emr=EmrConfig(spot_percent=100),
        host=HostConfig(instance_type="t4g.small"),  # with swap: few tasks at a time
        retention=RetentionConfig(logs_days=30),
        network=NetworkConfig(flow_log_days=7),
        alarms=AlarmConfig(budget_usd=90),
    )


def staging() -> Environment:
    """As production, of smaller parts."""
    return Environment(
        name="staging",
        allow_data_deletion=True,
        network=NetworkConfig(cidr="10.21.0.0/16"),
        database=DatabaseConfig(instance_class="db.t4g.small"),
        emr=EmrConfig(spot_percent=100),
        alarms=AlarmConfig(budget_usd=150),
    )


def prod() -> Environment:
    """Two of what must not fail, and nothing that deletes data."""
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
        # Within the session on what it has so far, and once more after the close and its last corrections.
        process=ProcessConfig(schedule=("5 10-15 * * MON-FRI", "45 16 * * MON-FRI")),
        retention=RetentionConfig(logs_days=365, old_versions_days=90),
        alarms=AlarmConfig(budget_usd=700, database_connections=200),
    )


ENVIRONMENTS = {"dev": dev, "staging": staging, "prod": prod}


def environment(name: str) -> Environment:
    """The environment of that name. Raises ConfigError naming what there is, or the field that is wrong."""
    if name not in ENVIRONMENTS:
        raise ConfigError(f"no environment {name!r}: give one of {', '.join(ENVIRONMENTS)}, as -c env=dev")
    try:
        return ENVIRONMENTS[name]()
    except ConfigError as error:
        raise ConfigError(f"environment {name}: {error}") from None
