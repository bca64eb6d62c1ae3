"""What may an environment be? Typed, keyword-only settings that refuse a wrong value by naming the field.

Made in code (environments.py), read by the stacks; nothing is looked up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from config import versions
from config.schedule import ProcessConfig
from config.validation import ConfigError, between, each_once, network, one_of, refuse

IngestRunner = Literal["lambda", "host"]
EVERYWHERE = "0.0.0.0/0"
LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3653)
ENDPOINT_SERVICES = (
    *("athena", "ec2messages", "elasticmapreduce", "glue", "kms", "lambda", "logs", "monitoring"),
    *("secretsmanager", "sns", "ssm", "ssmmessages", "sts"),
)
GRAVITON = re.compile(r"^(t4g|[cmrx]\d+g[dn]?)\.(nano|micro|small|medium|\d*x?large)$")
# Glue's Spark runs on x86; these are its worker types, in DPU: 0.25 of a G.025X serves streams alone.
GLUE_WORKERS = ("G.1X", "G.2X", "G.4X", "G.8X")


def _graviton(name: str, value: str, prefix: str = "", example: str = "t4g.small") -> None:
    if not value.startswith(prefix) or not GRAVITON.match(value.removeprefix(prefix)):
        raise refuse(name, value, f"allowed is a Graviton class such as {prefix}{example}")


def _visitors(name: str, cidrs: tuple[str, ...], page: str) -> None:
    each_once(name, cidrs)
    for cidr in cidrs:
        if network(name, cidr).prefixlen < 8:
            raise refuse(
                name,
                cidr,
                f"it would open {page} to the internet. Allowed are the networks of your office or VPN, of /8 or "
                "narrower, such as 203.0.113.0/24; none means access by Session Manager alone",
            )


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The VPC. One NAT gateway serves all zones; as many as zones keep each zone independent, at a price."""

    cidr: str = "10.20.0.0/16"
    zones: int = 2
    nat_gateways: int = 1
    airflow_ui_cidrs: tuple[str, ...] = ()
    dashboard_cidrs: tuple[str, ...] = ()
    # At this volume NAT costs less than endpoints (each about 7 dollars a month and zone), so there are none.
    interface_endpoints: tuple[str, ...] = ()
    flow_log_days: int = 30

    def __post_init__(self) -> None:
        found = network("network.cidr", self.cidr)
        if not found.is_private or not 16 <= found.prefixlen <= 22:
            raise refuse("network.cidr", self.cidr, "allowed is a private network from /16 to /22, as 10.20.0.0/16")
        one_of("network.zones", self.zones, (2, 3))
        one_of("network.nat_gateways", self.nat_gateways, tuple(range(1, self.zones + 1)))
        _visitors("network.airflow_ui_cidrs", self.airflow_ui_cidrs, "Airflow's page")
        _visitors("network.dashboard_cidrs", self.dashboard_cidrs, "the analysts' page")
        each_once("network.interface_endpoints", self.interface_endpoints)
        for service in self.interface_endpoints:
            one_of("network.interface_endpoints", service, ENDPOINT_SERVICES)
        one_of("network.flow_log_days", self.flow_log_days, LOG_RETENTION_DAYS)


@dataclass(frozen=True, kw_only=True)
class DatabaseConfig:
    """RDS for PostgreSQL: the warehouse, and Airflow's metadata in a database of its own."""

    instance_class: str = "db.t4g.micro"
    engine_version: str = versions.POSTGRESQL
    storage_gb: int = 20
    max_storage_gb: int = 100
    multi_az: bool = False
    backup_days: int = 7
    deletion_protection: bool = True
    insights_days: int = 7
    rotation_days: int = 30

    def __post_init__(self) -> None:
        _graviton("database.instance_class", self.instance_class, "db.")
        one_of("database.engine_version (major part)", self.engine_version.split(".")[0], versions.POSTGRESQL_MAJORS)
        between("database.storage_gb", self.storage_gb, 20, 65536, "GB")
        between("database.max_storage_gb", self.max_storage_gb, self.storage_gb, 65536, "GB, not below storage_gb")
        between("database.backup_days", self.backup_days, 1, 35, "days")
        one_of("database.insights_days", self.insights_days, (7, *(31 * months for months in range(1, 24)), 731))
        between("database.rotation_days", self.rotation_days, 1, 1000, "days")


@dataclass(frozen=True, kw_only=True)
class EmrConfig:
    """The shape of the cluster that a process run creates and terminates."""

    primary_instance: str = "m7g.large"
    core_instance: str = "m7g.large"
    core_count: int = 1
    task_count: int = 0
    spot_percent: int = 0  # of the core and task nodes; the primary is always on demand
    volume_gb: int = 32
    idle_minutes: int = 15
    step_timeout_minutes: int = 120

    def __post_init__(self) -> None:
        _graviton("emr.primary_instance", self.primary_instance, example="m7g.large")
        _graviton("emr.core_instance", self.core_instance, example="m7g.large")
        between("emr.core_count", self.core_count, 1, 100, "instances")
        between("emr.task_count", self.task_count, 0, 100, "instances")
        between("emr.spot_percent", self.spot_percent, 0, 100, "percent of the core and task nodes")
        between("emr.volume_gb", self.volume_gb, 15, 1000, "GB")
        between("emr.idle_minutes", self.idle_minutes, 1, 7 * 24 * 60, "minutes")
        between("emr.step_timeout_minutes", self.step_timeout_minutes, 5, 24 * 60, "minutes")


@dataclass(frozen=True, kw_only=True)
class GlueConfig:
    """The aggregating job. Workers scale up to ``max_workers`` and cost by the second."""

    worker_type: str = "G.1X"
    max_workers: int = 2
    timeout_minutes: int = 60

    def __post_init__(self) -> None:
        one_of("glue.worker_type", self.worker_type, GLUE_WORKERS)
        between("glue.max_workers", self.max_workers, 2, 100, "workers")
        between("glue.timeout_minutes", self.timeout_minutes, 1, 24 * 60, "minutes")


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """The EC2 instance that runs Airflow."""

    instance_type: str = "t4g.medium"
    data_volume_gb: int = 20

    def __post_init__(self) -> None:
        _graviton("host.instance_type", self.instance_type, example="t4g.medium")
        between("host.data_volume_gb", self.data_volume_gb, 8, 1000, "GB")


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """What the Twelve Data plan allows. Basic: 8 credits a minute and 800 a day; larger ones have no daily cap."""

    credits_per_minute: int = 8
    credits_per_day: int | None = 800
    url: str = "https://api.twelvedata.com"

    def __post_init__(self) -> None:
        between("plan.credits_per_minute", self.credits_per_minute, 1, 1_000_000, "credits")
        if self.credits_per_day is not None:
            between("plan.credits_per_day", self.credits_per_day, 1, 1_000_000_000, "credits, or None for no daily cap")
        if not self.url.startswith("https://"):
            raise refuse("plan.url", self.url, "allowed is an https:// address: the key travels in a header")


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """Who fetches, how often, and how far back each tick looks."""

    runner: IngestRunner = "lambda"
    every_minutes: int = 5
    history_sessions: int = 20
    revision_sessions: int = 2
    memory_mb: int = 512
    timeout_seconds: int = 240

    def __post_init__(self) -> None:
        one_of("ingest.runner", self.runner, ("lambda", "host"))
        one_of("ingest.every_minutes", self.every_minutes, (5, 10, 15, 30))
        between("ingest.history_sessions", self.history_sessions, 1, 250, "sessions")
        between("ingest.revision_sessions", self.revision_sessions, 1, 20, "sessions")
        between("ingest.memory_mb", self.memory_mb, 256, 10240, "MB")
        between("ingest.timeout_seconds", self.timeout_seconds, 30, 900, "seconds")


@dataclass(frozen=True, kw_only=True)
class RetentionConfig:
    """How long what is not the archive is kept. The archive itself grows cold and is never deleted."""

    logs_days: int = 90
    staging_days: int = 90
    queries_days: int = 30
    old_versions_days: int = 30
    archive_infrequent_days: int = 90
    archive_glacier_days: int = 365

    def __post_init__(self) -> None:
        one_of("retention.logs_days", self.logs_days, LOG_RETENTION_DAYS)
        between("retention.staging_days", self.staging_days, 30, 3650, "days")
        between("retention.queries_days", self.queries_days, 1, 3650, "days")
        between("retention.old_versions_days", self.old_versions_days, 1, 3650, "days")
        between("retention.archive_infrequent_days", self.archive_infrequent_days, 30, 3650, "days (S3 asks for 30)")
        low = self.archive_infrequent_days + 30
        between("retention.archive_glacier_days", self.archive_glacier_days, low, 3650, "days, 30 after infrequent")


@dataclass(frozen=True, kw_only=True)
class AlarmConfig:
    """When to call somebody, and whom."""

    emails: tuple[str, ...] = ()
    slack_channel: str = "#barflow"
    stale_minutes: int = 20
    undelivered_minutes: int = 15
    rejected_percent: float = 5
    database_free_gb: float = 2
    database_cpu_percent: float = 85
    database_connections: int = 60
    budget_usd: float = 100

    def __post_init__(self) -> None:
        each_once("alarms.emails", self.emails)
        for email in self.emails:
            if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", email):
                raise refuse("alarms.emails", email, "allowed is an address such as data@example.com")
        if not re.fullmatch(r"#[a-z0-9_-]{1,79}", self.slack_channel):
            raise refuse("alarms.slack_channel", self.slack_channel, "allowed is a channel such as #barflow")
        between("alarms.stale_minutes", self.stale_minutes, 10, 390, "minutes of an open session")
        between("alarms.undelivered_minutes", self.undelivered_minutes, 5, 1440, "minutes of an alert's waiting")
        between("alarms.rejected_percent", self.rejected_percent, 0.01, 100, "percent")
        between("alarms.database_free_gb", self.database_free_gb, 0.5, 65536, "GB")
        between("alarms.database_cpu_percent", self.database_cpu_percent, 1, 100, "percent")
        between("alarms.database_connections", self.database_connections, 1, 5000, "connections")
        between("alarms.budget_usd", self.budget_usd, 1, 1_000_000, "dollars a month")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One deployment of the whole platform.

    ``account`` and ``region`` None: those of the caller's profile. ``allow_data_deletion`` is one of the two keys
    to deleting data; the other is ``-c allow_data_deletion=true`` on the command line.
    """

    name: str
    account: str | None = None
    region: str | None = None
    allow_data_deletion: bool = False
    symbols: tuple[str, ...] = ("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA")
    bots: tuple[str, ...] = ("example",)  # each with a queue of alerts of its own
    airflow_connections_prefix: str = "airflow/connections"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    emr: EmrConfig = field(default_factory=EmrConfig)
    glue: GlueConfig = field(default_factory=GlueConfig)
    host: HostConfig = field(default_factory=HostConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    alarms: AlarmConfig = field(default_factory=AlarmConfig)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]{1,11}", self.name):
            raise refuse("name", self.name, "allowed are 2 to 12 lower case letters and digits, as dev")
        if (self.account is None) != (self.region is None):
            raise ConfigError("account and region: give both, or neither to use those of the caller's profile")
        if self.account is not None and not re.fullmatch(r"\d{12}", self.account):
            raise refuse("account", self.account, "allowed are the 12 digits of an AWS account")
        if self.region is not None and not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", self.region):
            raise refuse("region", self.region, "allowed is the name of an AWS region, as us-east-1")
        each_once("bots", self.bots)
        for bot in self.bots:
            if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", bot):
                raise refuse(
                    "bots", bot, "allowed are up to 32 lower case letters, digits and dashes, as mean-reversion"
                )
        self._check_symbols()

    def _check_symbols(self) -> None:
        if not self.symbols:
            raise refuse("symbols", self.symbols, "allowed is at least one, as ('AAPL',)")
        each_once("symbols", self.symbols)
        for symbol in self.symbols:
            if not re.fullmatch(r"[A-Z0-9.:/-]{1,24}", symbol):
                raise refuse("symbols", symbol, "allowed are upper case letters, digits and . : / -, as BRK.B")
        per_day = self.plan.credits_per_day
        # From the first bar's close to ten minutes after the last one's.
        wanted = len(self.symbols) * (390 // self.ingest.every_minutes + 2)
        if per_day is not None and wanted > per_day:
            raise refuse(
                "symbols",
                f"{len(self.symbols)} symbols",
                f"every {self.ingest.every_minutes} minutes they cost {wanted} credits a day and plan.credits_per_day "
                f"is {per_day}; allowed are fewer symbols, a larger ingest.every_minutes or a larger plan",
            )
        minutes = -(-len(self.symbols) // self.plan.credits_per_minute)
        if self.ingest.runner == "lambda" and minutes * 60 > self.ingest.timeout_seconds:
            raise refuse(
                "ingest.timeout_seconds",
                self.ingest.timeout_seconds,
                f"{len(self.symbols)} symbols at {self.plan.credits_per_minute} credits a minute take {minutes} "
                "minutes; allowed is at least that, or fewer symbols, a larger plan, or the host as ingest.runner",
            )
