"""What does an environment cost a month, and one run of the pipeline? An estimate from its settings and list prices.

The prices stand in prices.toml with their date. What a run takes is stated as assumptions below, measured where the
pipeline runs on one machine and generous where it does not; free tiers and discounts are left out.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from config.environment import Environment
from config.validation import ConfigError

HOURS = 730.0  # of a month, as AWS counts it
SESSIONS = 21.0  # trading days of a month
TICKS_PER_SESSION = 78
# 100 bytes a bar in Parquet, rejected and manifests included; the archive after one year of an environment's life.
ARCHIVE_GB_PER_SYMBOL = 252 * 78 * 100 / 1e9
# A cluster is up for its start and bootstrap; then each hundred symbols take a minute on one core node.
CLUSTER_START_HOURS = 8 / 60
CLUSTER_HOURS_PER_SYMBOL = 1 / 60 / 100
# Glue bills at least a minute; a job starts in about one and loads a hundred symbols in another.
GLUE_START_HOURS = 2 / 60
GLUE_HOURS_PER_SYMBOL = 1 / 60 / 100
CRAWLER_HOURS = 10 / 60  # the least that a crawl is billed for
CRAWLER_DPUS = 1
CRAWLS_PER_RUN = 2
TICK_SECONDS = 3.0
TICK_SECONDS_PER_SYMBOL = 0.02
LOG_GB = 1.0
LOG_GB_PER_SYMBOL = 0.004
NAT_GB = 1.0
NAT_GB_PER_SYMBOL = 0.02


@dataclass(frozen=True)
class Inventory:
    """How many of the things that cost by the piece an environment has; counted from its templates by a test."""

    secrets: int = 15
    kms_keys: int = 2
    alarms: int = 14
    dashboards: int = 2
    metrics: int = 6
    metrics_per_symbol: int = 1


@dataclass(frozen=True)
class Line:
    """One line of the estimate: dollars a month, and what they are made of."""

    service: str
    dollars: float
    basis: str


@dataclass(frozen=True)
class Estimate:
    """The whole: lines by service, dollars of one process run, and the date of the prices."""

    environment: str
    symbols: int
    runs_per_session: int
    lines: tuple[Line, ...]
    run_dollars: float
    prices_as_of: date
    region: str

    @property
    def total(self) -> float:
        return sum(line.dollars for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "symbols": self.symbols,
            "runs_per_session": self.runs_per_session,
            "usd_per_month": round(self.total, 2),
            "usd_per_run": round(self.run_dollars, 3),
            "services": {line.service: {"usd": round(line.dollars, 2), "basis": line.basis} for line in self.lines},
            "prices_as_of": str(self.prices_as_of),
            "region": self.region,
        }


def prices() -> dict[str, Any]:
    """The price table."""
    return tomllib.loads(Path(__file__).with_name("prices.toml").read_text())


def estimate(
    settings: Environment,
    *,
    symbols: int | None = None,
    runs_per_session: int | None = None,
    inventory: Inventory | None = None,
) -> Estimate:
    """Dollars a month by service. ``symbols`` and ``runs_per_session`` replace what the environment's own
    symbols and schedule come to.

    Raises ConfigError for a number out of range, or an instance class without a price in the table.
    """
    if symbols is not None and symbols < 1:
        raise ConfigError(f"symbols is {symbols}: allowed is at least 1")
    if runs_per_session is None:
        runs_per_session = settings.process.runs_per_session
    if runs_per_session < 1:
        raise ConfigError(f"runs_per_session is {runs_per_session}: allowed is at least 1")
    table, count = prices(), symbols or len(settings.symbols)
    run = _emr_run(settings, table, count) + _glue_run(settings, table, count) + _crawls(table)
    runs = SESSIONS * runs_per_session
    lines = (
        _network(settings, table, count),
        _database(settings, table),
        _host(settings, table),
        _ingestion(settings, table, count),
        Line("EMR", runs * _emr_run(settings, table, count), f"{runs:.0f} clusters, {_shape(settings)}"),
        Line(
            "Glue",
            runs * (_glue_run(settings, table, count) + _crawls(table)),
            f"{runs:.0f} jobs of {settings.glue.max_workers} {settings.glue.worker_type}, {CRAWLS_PER_RUN} crawls each",
        ),
        _storage(settings, table, count),
        _secrets(table, inventory or Inventory()),
        _observability(table, inventory or Inventory(), count),
    )
    return Estimate(settings.name, count, runs_per_session, lines, run, table["as_of"], table["region"])


def _network(settings: Environment, table: dict[str, Any], symbols: int) -> Line:
    network = settings.network
    gigabytes = NAT_GB + NAT_GB_PER_SYMBOL * symbols
    gateways = network.nat_gateways * HOURS * (table["hour"]["nat_gateway"] + table["hour"]["public_ipv4"])
    endpoints = len(network.interface_endpoints) * network.zones * HOURS * table["hour"]["interface_endpoint"]
    basis = (
        f"{network.nat_gateways} NAT with its address, {gigabytes:.1f} GB, {len(network.interface_endpoints)} endpoints"
    )
    return Line("Network", gateways + endpoints + gigabytes * table["use"]["nat_gb"], basis)


def _database(settings: Environment, table: dict[str, Any]) -> Line:
    database = settings.database
    copies = 2 if database.multi_az else 1
    hourly = _price(table["hour"]["rds"], "database.instance_class", database.instance_class)
    dollars = copies * (HOURS * hourly + database.storage_gb * table["month"]["rds_gb"])
    return Line("RDS", dollars, f"{copies} {database.instance_class}, {database.storage_gb} GB")


def _host(settings: Environment, table: dict[str, Any]) -> Line:
    host = settings.host
    root_gb = 12
    disk = (host.data_volume_gb + root_gb) * table["month"]["ebs_gb"]
    hourly = _price(table["hour"]["ec2"], "host.instance_type", host.instance_type)
    return Line("EC2 host", HOURS * hourly + disk, f"{host.instance_type}, {host.data_volume_gb + root_gb} GB")


def _ingestion(settings: Environment, table: dict[str, Any], symbols: int) -> Line:
    if settings.ingest.runner == "host":
        return Line("Lambda", 0.0, "ingested by the host")
    ticks = SESSIONS * TICKS_PER_SESSION * 5 / settings.ingest.every_minutes
    seconds = ticks * (TICK_SECONDS + TICK_SECONDS_PER_SYMBOL * symbols)
    use = table["use"]
    dollars = seconds * settings.ingest.memory_mb / 1024 * use["lambda_gb_second"]
    return Line("Lambda", dollars + ticks / 1e6 * use["lambda_million_requests"], f"{ticks:.0f} ticks")


def cluster_hour_dollars(settings: Environment) -> float:
    """List price of an hour of the environment's cluster: instances, EMR's share and disks."""
    return _cluster_hour(settings, prices())


def dpu_hour_dollars() -> float:
    """List price of an hour of one of Glue's processing units."""
    return float(prices()["hour"]["glue_dpu"])


def _emr_run(settings: Environment, table: dict[str, Any], symbols: int) -> float:
    hours = CLUSTER_START_HOURS + CLUSTER_HOURS_PER_SYMBOL * symbols / max(1, settings.emr.core_count)
    return hours * _cluster_hour(settings, table)


def _cluster_hour(settings: Environment, table: dict[str, Any]) -> float:
    emr, hour = settings.emr, table["hour"]
    primary = _price(hour["ec2"], "emr.primary_instance", emr.primary_instance)
    worker = _price(hour["ec2"], "emr.core_instance", emr.core_instance)
    spot = 1 - emr.spot_percent / 100 * (1 - hour["spot_share"])
    workers = emr.core_count + emr.task_count
    compute = primary + workers * worker * spot
    fee = (primary + workers * worker) * hour["emr_share"]
    disks = (1 + workers) * emr.volume_gb * table["month"]["ebs_gb"] / HOURS
    return float(compute + fee + disks)


def _glue_run(settings: Environment, table: dict[str, Any], symbols: int) -> float:
    dpus = settings.glue.max_workers * {"G.1X": 1, "G.2X": 2, "G.4X": 4, "G.8X": 8}[settings.glue.worker_type]
    hours = GLUE_START_HOURS + GLUE_HOURS_PER_SYMBOL * symbols / settings.glue.max_workers
    return float(dpus * hours * table["hour"]["glue_dpu"])


def _crawls(table: dict[str, Any]) -> float:
    return float(CRAWLS_PER_RUN * CRAWLER_DPUS * CRAWLER_HOURS * table["hour"]["glue_dpu"])


def _storage(settings: Environment, table: dict[str, Any], symbols: int) -> Line:
    gigabytes = 2 * ARCHIVE_GB_PER_SYMBOL * symbols + 1
    puts = SESSIONS * symbols * 4 / 1000 * table["use"]["s3_thousand_puts"]
    return Line("S3", gigabytes * table["month"]["s3_gb"] + puts, f"{gigabytes:.1f} GB after a year")


def _secrets(table: dict[str, Any], inventory: Inventory) -> Line:
    month = table["month"]
    dollars = inventory.secrets * month["secret"] + inventory.kms_keys * month["kms_key"]
    return Line("Secrets and keys", dollars, f"{inventory.secrets} secrets, {inventory.kms_keys} KMS key")


def _observability(table: dict[str, Any], inventory: Inventory, symbols: int) -> Line:
    month = table["month"]
    metrics = inventory.metrics + inventory.metrics_per_symbol * symbols
    gigabytes = LOG_GB + LOG_GB_PER_SYMBOL * symbols
    dollars = inventory.alarms * month["alarm"] + inventory.dashboards * month["dashboard"]
    dollars += metrics * month["metric"] + gigabytes * table["use"]["log_gb"]
    basis = (
        f"{inventory.alarms} alarms, {inventory.dashboards} dashboards, {metrics} metrics, {gigabytes:.1f} GB of logs"
    )
    return Line("CloudWatch", dollars, basis)


def _price(table: dict[str, float], field: str, name: str) -> float:
    if name not in table:
        raise ConfigError(f"{field} is {name!r}: config/prices.toml has no price of it. Add it, with its date.")
    return table[name]


def _shape(settings: Environment) -> str:
    emr = settings.emr
    return (
        f"{emr.primary_instance} and {emr.core_count + emr.task_count} {emr.core_instance}, {emr.spot_percent} % spot"
    )
