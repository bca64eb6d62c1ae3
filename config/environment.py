"""Settings of an environment: typed, given by name, and checked when they are created.

The environments are in environments.py. The stacks read them, and look nothing up in AWS.
"""

from __future__ import annotations

import math
from ipaddress import IPv4Network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from barflow.symbol import MAX_LENGTH, PATTERN
from config import versions
from config.aws import checks, facts
from config.pages import BalancerConfig, Page, page_problems
from config.schedule import ProcessConfig, QualityConfig
from config.validation import Config, ConfigError, Once, OnceNotEmpty

SESSION_MINUTES = 390
# A tick waits this long for the credits of requests about splits and dividends (barflow/pipeline/tick_actions.py), and
# for their answers.
MINUTES_FOR_ACTIONS = 2
HOST_ROOT_GB = 12
GRAVITON = r"(t4g|[cmrx]\d+g[dn]?)\.(nano|micro|small|medium|\d*x?large)"


def _network(cidr: str) -> IPv4Network:
    """Return the network. Raise ValueError for other text, and for an address with host bits."""
    try:
        return IPv4Network(cidr)
    except ValueError as error:
        raise ValueError(f"must be an IPv4 network such as 10.20.0.0/16 ({error})") from None


def _private_network(cidr: str) -> str:
    network = _network(cidr)
    if not network.is_private or not 16 <= network.prefixlen <= 22:
        raise ValueError("must be a private network from /16 to /22, such as 10.20.0.0/16")
    return cidr


def _visitors(cidr: str) -> str:
    if _network(cidr).prefixlen < 8:
        raise ValueError(
            "it would open the page to the internet; give a network of your office or VPN, /8 or narrower, such "
            "as 203.0.113.0/24, or none for access through Session Manager alone"
        )
    return cidr


def _insights_days(days: int) -> int:
    if days not in (7, *range(31, 714, 31), 731):
        raise ValueError("must be 7, a multiple of 31 up to 713, or 731 days")
    return days


def _emr_instance(instance_type: str) -> str:
    problem = checks.instance_type_problem(instance_type)
    if problem:
        raise ValueError(f"must be a Graviton type of the release, such as m6g.xlarge: {problem}")
    return instance_type


def _rds_version(version: str) -> str:
    known = facts.rds()
    if version not in known.engine_versions or version in known.deprecated_versions:
        allowed = [item for item in known.engine_versions if item not in known.deprecated_versions]
        raise ValueError(f"must be a version that RDS creates: {', '.join(allowed)}")
    return version


def _rds_class(instance_class: str) -> str:
    known = facts.rds()
    if not known.offers_class(instance_class):
        raise ValueError(f"must be a Graviton class of RDS, of {', '.join(known.classes)}, such as db.t4g.small")
    return instance_class


# The retentions that CloudWatch Logs offers, in days.
LogDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]  # fmt: skip
EndpointService = Literal[
    "athena", "ec2messages", "elasticmapreduce", "glue", "kms", "lambda", "logs", "monitoring", "secretsmanager",
    "sns", "ssm", "ssmmessages", "sts",
]  # fmt: skip
Zone = Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$")]
Visitors = Annotated[str, AfterValidator(_visitors)]
Instance = Annotated[str, Field(pattern=f"^{GRAVITON}$")]
EmrInstance = Annotated[Instance, AfterValidator(_emr_instance)]
Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
Symbol = Annotated[str, Field(pattern=PATTERN, max_length=MAX_LENGTH)]
Webhook = Annotated[str, Field(pattern=r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[A-Za-z0-9_.~!$&()*+;=:@%/-]*)?$")]
Bot = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Service = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class NetworkConfig(Config, title="network"):
    """The VPC. One NAT gateway serves all zones; one per zone keeps the zones independent, at a price."""

    cidr: Annotated[str, AfterValidator(_private_network)] = "10.20.0.0/16"
    zones: Literal[2, 3] = 2
    # Without names, CloudFormation takes the first zones of the region.
    zone_names: Once[Zone] = Field((), description="a zone of the region such as us-east-1b, one per network.zones")
    nat_gateways: int = Field(1, ge=1, le=3, description="gateways, not above network.zones")
    airflow_ui_cidrs: Once[Visitors] = ()
    dashboard_cidrs: Once[Visitors] = ()
    # Without a load balancer, the pages speak plain HTTP.
    plain_http: bool = Field(False, description="true or false: open the pages to private networks without TLS")
    # NAT costs less than endpoints at this volume: an endpoint is about 7 dollars a month and zone.
    interface_endpoints: Once[EndpointService] = ()
    flow_log_days: LogDays = 30

    @field_validator("zone_names")
    @classmethod
    def _one_name_a_zone(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if names and len(names) != info.data.get("zones", len(names)):
            raise ValueError(f"must be empty or have network.zones names, {info.data['zones']}")
        return names

    @field_validator("nat_gateways")
    @classmethod
    def _at_most_one_a_zone(cls, gateways: int, info: ValidationInfo) -> int:
        if gateways > info.data.get("zones", gateways):
            raise ValueError(f"must be a whole number from 1 to network.zones, {info.data['zones']}")
        return gateways


class DatabaseConfig(Config, title="database"):
    """RDS for PostgreSQL: the warehouse, and Airflow's metadata in a database of its own."""

    instance_class: Annotated[str, AfterValidator(_rds_class)] = Field(
        "db.t4g.micro", pattern=rf"^db\.{GRAVITON}$", description="a Graviton class such as db.t4g.small"
    )
    engine_version: Annotated[str, AfterValidator(_rds_version)] = Field(
        # A major version: RDS takes its newest minor version and upgrades it, and the template does not fall behind.
        versions.POSTGRESQL.split(".")[0],
        pattern=rf"^({'|'.join(versions.POSTGRESQL_MAJORS)})(\.\d+)?$",
        description=f"a version of PostgreSQL {' or '.join(versions.POSTGRESQL_MAJORS)}",
    )
    storage_gb: int = Field(20, ge=20, le=65536, description="GB")
    max_storage_gb: int = Field(100, ge=20, le=65536, description="GB, not below database.storage_gb")
    multi_az: bool = False
    backup_days: int = Field(7, ge=1, le=35, description="days")
    deletion_protection: bool = True
    insights_days: Annotated[int, AfterValidator(_insights_days)] = Field(7, description="days")
    rotation_days: int = Field(30, ge=1, le=1000, description="days")

    @field_validator("max_storage_gb")
    @classmethod
    def _not_below_storage(cls, maximum: int, info: ValidationInfo) -> int:
        if maximum < info.data.get("storage_gb", maximum):
            raise ValueError(f"must be at least database.storage_gb, {info.data['storage_gb']}")
        return maximum


class EmrConfig(Config, title="emr"):
    """The cluster that a process run creates and terminates."""

    primary_instance: EmrInstance = Field("m6g.xlarge", description="a Graviton type such as m6g.xlarge")
    core_instance: EmrInstance = Field("m6g.xlarge", description="a Graviton type such as m6g.xlarge")
    core_count: int = Field(1, ge=1, le=100, description="instances")
    task_count: int = Field(0, ge=0, le=100, description="instances")
    # The primary node is always on demand.
    spot_percent: int = Field(0, ge=0, le=100, description="percent of the core and task nodes")
    volume_gb: int = Field(32, ge=15, le=1000, description="GB")
    idle_minutes: int = Field(15, ge=1, le=7 * 24 * 60, description="minutes")
    step_timeout_minutes: int = Field(120, ge=5, le=24 * 60, description="minutes")


class GlueConfig(Config, title="glue"):
    """The aggregation job. Its workers scale up to ``max_workers`` and cost by the second."""

    worker_type: Literal["G.1X", "G.2X", "G.4X", "G.8X"] = "G.1X"
    max_workers: int = Field(2, ge=2, le=100, description="workers")
    timeout_minutes: int = Field(60, ge=1, le=24 * 60, description="minutes")


class HostConfig(Config, title="host"):
    """The EC2 instance that runs Airflow and the page."""

    instance_type: Instance = Field("t4g.medium", description="a Graviton class such as t4g.medium")
    data_volume_gb: int = Field(20, ge=8, le=1000, description="GB")
    # EC2's metrics every minute instead of every five minutes, for 2 dollars a month. Status checks are free.
    detailed_monitoring: bool = True


class PlanConfig(Config, title="plan"):
    """The limits of the Twelve Data plan.

    Basic has 8 credits a minute and 800 a day. Larger plans have no daily cap.
    """

    credits_per_minute: int = Field(8, ge=1, le=1_000_000, description="credits")
    credits_per_day: int | None = Field(
        800, ge=1, le=1_000_000_000, description="credits, or None for a plan without a daily cap"
    )
    url: str = Field(
        "https://api.twelvedata.com",
        pattern="^https://",
        description="an https:// address, because each request carries the API key",
    )


class IngestConfig(Config, title="ingest"):
    """Where a tick runs, how often, and how far back it looks."""

    runner: Literal["lambda", "host"] = "lambda"
    every_minutes: Literal[5, 10, 15, 30] = 5
    history_sessions: int = Field(20, ge=1, le=250, description="sessions")
    revision_sessions: int = Field(2, ge=1, le=20, description="sessions")
    memory_mb: int = Field(512, ge=256, le=10240, description="MB")
    timeout_seconds: int = Field(240, ge=30, le=900, description="seconds")

    @property
    def ticks_per_session(self) -> int:
        """Return the most ticks of a session, from its first bar's close to ten minutes after its last one's."""
        return SESSION_MINUTES // self.every_minutes + 2


class RetentionConfig(Config, title="retention"):
    """How long data outside the archive is kept. The archive moves to colder storage and is never deleted."""

    logs_days: LogDays = 90
    staging_days: int = Field(90, ge=30, le=3650, description="days")
    rejected_days: int = Field(365, ge=30, le=3650, description="days after a bar was last rejected")
    queries_days: int = Field(30, ge=1, le=3650, description="days")
    old_versions_days: int = Field(30, ge=1, le=3650, description="days")
    archive_infrequent_days: int = Field(90, ge=30, le=3650, description="days; S3 requires 30")
    archive_glacier_days: int = Field(
        365, ge=60, le=3650, description="days, at least 30 after retention.archive_infrequent_days"
    )

    @field_validator("archive_glacier_days")
    @classmethod
    def _after_infrequent(cls, days: int, info: ValidationInfo) -> int:
        least = info.data.get("archive_infrequent_days", 0) + 30
        if days < least:
            raise ValueError(f"must be at least {least} days, 30 after retention.archive_infrequent_days")
        return days


class WebhookConfig(Config, title="webhooks"):
    """The endpoints that receive alerts. The security groups allow port 443 only."""

    urls: Once[Webhook] = Field(
        (),
        max_length=5,
        description="up to 5 https addresses such as https://bot.example.com/alerts, without port, user or query",
    )
    allow_private: bool = Field(False, description="true or false: also send to private addresses, such as the VPC's")


class AlarmConfig(Config, title="alarms"):
    """The thresholds of the alarms, and who is notified."""

    emails: Once[Email] = Field((), description="an address such as data@example.com")
    slack_channel: str = Field("#barflow", pattern=r"^#[a-z0-9_-]{1,79}$", description="a channel such as #barflow")
    slack_digest_above: int = Field(10, ge=0, le=1000, description="alerts of a tick that Slack shows one by one")
    stale_minutes: int = Field(20, ge=10, le=SESSION_MINUTES, description="minutes of an open session")
    undelivered_minutes: int = Field(15, ge=5, le=1440, description="minutes that an alert waits for delivery")
    rejected_percent: float = Field(5, ge=0.01, le=100, description="percent")
    database_free_gb: float = Field(2, ge=0.5, le=65536, description="GB")
    database_cpu_percent: float = Field(85, ge=1, le=100, description="percent")
    database_connections: int = Field(60, ge=1, le=5000, description="connections")
    budget_usd: float = Field(100, ge=1, le=1_000_000, description="dollars a month")


def _backend(url: str) -> str:
    """Return the URL. Raise ValueError for one that the security groups do not open, or that contains a user."""
    address = urlsplit(url)
    try:
        reached = address.scheme == "https" and address.hostname and address.port in (None, 443)
    except ValueError:
        reached = False
    if not reached or address.username or address.query or address.fragment or not url.isascii() or " " in url:
        raise ValueError("must be https:// and a host on port 443, without a user, such as https://lineage.example.com")
    return url


class LineageConfig(Config, title="lineage"):
    """The OpenLineage backend that receives the lineage of each run. Without a URL, there is no lineage."""

    url: Annotated[str, AfterValidator(_backend)] | None = Field(
        None, description="the https:// address of an OpenLineage backend, on port 443"
    )
    api_key: bool = Field(False, description="true or false: the backend requires an API key, which is a secret")


class Environment(Config):
    """One deployment of the platform.

    Without ``account`` and ``region``, it is deployed to those of the caller's profile. Data can be deleted only with
    both ``allow_data_deletion`` and ``-c allow_data_deletion=true`` on the command line.
    """

    name: str = Field(
        pattern=r"^[a-z][a-z0-9]{1,11}$", description="2 to 12 lower case letters and digits, such as dev"
    )
    account: str | None = Field(None, pattern=r"^[0-9]{12}$", description="the 12 digits of an AWS account")
    region: str | None = Field(
        None, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$", description="the name of an AWS region, such as us-east-1"
    )
    allow_data_deletion: bool = False
    symbols: OnceNotEmpty[Symbol] = Field(
        ("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA"),
        description="a symbol of upper case letters and digits, with single . : / - between them, such as BRK.B",
    )
    # Each bot has its own queue of alerts.
    bots: Once[Bot] = Field(
        ("example",), description="a name of up to 32 lower case letters, digits and dashes, such as mean-reversion"
    )
    webhooks: WebhookConfig = WebhookConfig()
    # Each is a key of the secret with apprise's URLs.
    apprise: Once[Service] = Field(
        (), max_length=10, description="up to 10 names of lower case letters, digits and _, such as team"
    )
    # Other functions of the account cannot use a reserved execution, and only one tick runs at a time. A new account,
    # with a limit of 10 concurrent executions, allows no reservation.
    reserve_concurrency: bool = Field(
        True, description="true or false: reserve one concurrent execution for each of ingest and notify"
    )
    network: NetworkConfig = NetworkConfig()
    balancer: BalancerConfig = BalancerConfig()
    database: DatabaseConfig = DatabaseConfig()
    emr: EmrConfig = EmrConfig()
    glue: GlueConfig = GlueConfig()
    host: HostConfig = HostConfig()
    plan: PlanConfig = PlanConfig()
    ingest: IngestConfig = IngestConfig()
    process: ProcessConfig = ProcessConfig()
    quality: QualityConfig = QualityConfig()
    retention: RetentionConfig = RetentionConfig()
    alarms: AlarmConfig = AlarmConfig()
    lineage: LineageConfig = LineageConfig()

    @property
    def airflow_connections_prefix(self) -> str:
        """Return the prefix of the secrets with Airflow's connections."""
        return f"barflow/{self.name}/airflow/connections"

    @model_validator(mode="after")
    def _account_with_region(self) -> Environment:
        if (self.account is None) != (self.region is None):
            raise ValueError("account and region: give both, or neither to use those of the caller's profile")
        return self

    @model_validator(mode="after")
    def _region_has_it(self) -> Environment:
        problems = checks.region_problems(
            self.region,
            host=self.host.instance_type,
            emr=(self.emr.primary_instance, self.emr.core_instance),
            database=self.database.instance_class,
        )
        if problems:
            raise ValueError(f"region is {self.region!r}: {'; '.join(problems)}")
        return self

    @model_validator(mode="after")
    def _pages_are_encrypted(self) -> Environment:
        network, balancer = self.network, self.balancer
        pages = (
            Page("network.dashboard_cidrs", network.dashboard_cidrs, "balancer.page_name", balancer.page_name),
            Page("network.airflow_ui_cidrs", network.airflow_ui_cidrs, "balancer.airflow_name", balancer.airflow_name),
        )
        if problems := list(page_problems(pages, balancer, plain_http=network.plain_http)):
            raise ConfigError("\n".join(problems))
        return self

    @model_validator(mode="after")
    def _certificate_is_of_the_region(self) -> Environment:
        certificate = self.balancer.certificate_arn
        if certificate and self.region and certificate.split(":")[3] != self.region:
            raise ValueError(f"balancer.certificate_arn is {certificate!r}: must be a certificate in {self.region}")
        return self

    @model_validator(mode="after")
    def _credits_of_a_day(self) -> Environment:
        credits_needed, limit = len(self.symbols) * self.ingest.ticks_per_session, self.plan.credits_per_day
        if limit is not None and credits_needed > limit:
            raise ValueError(
                f"symbols: {len(self.symbols)} symbols every {self.ingest.every_minutes} minutes cost {credits_needed} "
                f"credits a day, and plan.credits_per_day is {limit}. Use fewer symbols, a larger "
                "ingest.every_minutes or a larger plan"
            )
        return self

    @model_validator(mode="after")
    def _minutes_of_a_tick(self) -> Environment:
        minutes = math.ceil(len(self.symbols) / self.plan.credits_per_minute)
        needed = (minutes + MINUTES_FOR_ACTIONS) * 60
        if self.ingest.runner == "lambda" and needed > self.ingest.timeout_seconds:
            raise ValueError(
                f"ingest.timeout_seconds is {self.ingest.timeout_seconds}: {len(self.symbols)} symbols at "
                f"{self.plan.credits_per_minute} credits a minute take {minutes} minutes, and splits and dividends up "
                f"to {MINUTES_FOR_ACTIONS} more. Use a longer timeout, fewer symbols, a larger plan, or 'host' as "
                "ingest.runner"
            )
        return self
