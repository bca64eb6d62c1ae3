"""An estimate of what an environment costs a month, and what one run of the pipeline costs.

It takes the settings of the environment, the dated list prices in prices.toml and the assumptions below. The
assumptions are measured where the pipeline runs on one machine, and generous elsewhere. Free tiers and discounts are
left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from config.environment import HOST_ROOT_GB, Environment
from config.validation import Config, ConfigError

HOURS = 730.0  # of a month, as AWS counts it
SESSIONS = 21.0  # of a month
# A bar takes 100 bytes in Parquet, manifests and rejected bars included. The archive holds one year.
ARCHIVE_GB_PER_SYMBOL = 252 * 78 * 100 / 1e9
# A cluster takes 8 minutes to start. Then a hundred symbols take a minute on one core node.
CLUSTER_START_HOURS = 8 / 60
CLUSTER_HOURS_PER_SYMBOL = 1 / 60 / 100
# A Glue job starts in about a minute and loads a hundred symbols in another.
GLUE_START_HOURS = 2 / 60
GLUE_HOURS_PER_SYMBOL = 1 / 60 / 100
GLUE_DPUS = {"G.1X": 1, "G.2X": 2, "G.4X": 4, "G.8X": 8}  # of a worker
CRAWLER_HOURS = 10 / 60  # the least that AWS bills
CRAWLER_DPUS = 1
CRAWLS_PER_RUN = 1
# The warehouse is crawled after a deployment. With a driver of its own, the crawler also runs a Glue job. Glue does not
# say how large; this is its default size for three minutes.
WAREHOUSE_CRAWLS = 2  # of a month
WAREHOUSE_CRAWL_DPU_HOURS = CRAWLER_DPUS * CRAWLER_HOURS + 10 * 3 / 60
# An evaluation of the data quality rules is billed by the second, at least a minute.
EVALUATION_HOURS = 3 / 60
TICK_SECONDS = 3.0
TICK_SECONDS_PER_SYMBOL = 0.02
LOG_GB = 1.0
LOG_GB_PER_SYMBOL = 0.004
NAT_GB = 1.0
NAT_GB_PER_SYMBOL = 0.02
HOST_METRICS = 7  # that detailed monitoring of an EC2 instance bills


class HourPrices(Config, title="prices.hour"):
    """Dollars an hour, by resource; instances by their class. The shares are parts of an instance's own price."""

    nat_gateway: float
    public_ipv4: float
    interface_endpoint: float
    load_balancer: float
    glue_dpu: float
    emr_share: float
    spot_share: float
    ec2: Mapping[str, float]
    rds: Mapping[str, float]


class MonthPrices(Config, title="prices.month"):
    """Dollars a month, by resource or by GB."""

    secret: float
    kms_key: float
    parameter: float
    alarm: float
    dashboard: float
    metric: float
    ebs_gb: float
    rds_gb: float
    s3_gb: float


class UsePrices(Config, title="prices.use"):
    """Dollars by use: a GB, a request, a second."""

    nat_gb: float
    log_gb: float
    lambda_gb_second: float
    lambda_million_requests: float
    s3_thousand_puts: float


class ServerlessPrices(Config, title="prices.serverless"):
    """EMR Serverless: dollars an hour of a vCPU and of a GB, the size of a worker, and the seconds of its start."""

    source: str
    vcpu_hour: float
    gb_hour: float
    worker_vcpus: int
    worker_gb: int
    start_seconds: int
    start_source: str
    least_seconds: int

    @property
    def worker_hour(self) -> float:
        """Return the dollars of an hour of a worker."""
        return self.worker_vcpus * self.vcpu_hour + self.worker_gb * self.gb_hour


class Prices(Config, title="prices"):
    """List prices of one region, on demand, in US dollars."""

    as_of: date
    region: str
    hour: HourPrices
    month: MonthPrices
    use: UsePrices
    serverless: ServerlessPrices


class Workload(Config):
    """The work that an estimate is for."""

    symbols: int = Field(ge=1)
    runs_per_session: int = Field(ge=1)


@dataclass(frozen=True)
class Inventory:
    """The number of resources that are billed by the piece. A test counts them in the templates."""

    secrets: int = 15
    kms_keys: int = 2
    alarms: int = 20  # the metrics that the alarms of dev watch
    dashboards: int = 2
    parameters: int = 1  # of the advanced tier
    metrics: int = 7
    metrics_per_symbol: int = 1


@dataclass(frozen=True)
class Line:
    """The dollars a month of one service, and what they are made of."""

    service: str
    dollars: float
    basis: str


@dataclass(frozen=True)
class Estimate:
    """The lines of an estimate, the dollars of one process run, and the date of the prices."""

    environment: str
    symbols: int
    runs_per_session: int
    lines: tuple[Line, ...]
    run_dollars: float
    prices_as_of: date
    region: str

    @property
    def total(self) -> float:
        """The dollars a month of all services."""
        return sum(line.dollars for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as values for JSON, rounded."""
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


@cache
def list_prices() -> Prices:
    """Return the prices in prices.toml. Raise ConfigError naming a price that is missing or wrong."""
    return Prices(**tomllib.loads(Path(__file__).with_name("prices.toml").read_text()))


def estimate(
    settings: Environment,
    *,
    symbols: int | None = None,
    runs_per_session: int | None = None,
    inventory: Inventory | None = None,
) -> Estimate:
    """Return the dollars a month by service.

    ``symbols`` and ``runs_per_session`` replace those of the environment.

    Raises:
        ConfigError: A number is out of range, or prices.toml has no price for an instance class.
    """
    load = Workload(
        symbols=len(settings.symbols) if symbols is None else symbols,
        runs_per_session=settings.process.runs_per_session if runs_per_session is None else runs_per_session,
    )
    prices, pieces = list_prices(), inventory or Inventory()
    runs = SESSIONS * load.runs_per_session
    emr_run = _emr_run(settings, load)
    glue_run = _glue_run(settings, load) + CRAWLS_PER_RUN * CRAWLER_DPUS * CRAWLER_HOURS * prices.hour.glue_dpu
    emr, glue = settings.emr, settings.glue
    cluster = f"{emr.primary_instance} and {emr.core_count + emr.task_count} {emr.core_instance}"
    lines = (
        _network(settings, load),
        _database(settings),
        _host(settings),
        _ingestion(settings, load),
        Line("EMR", runs * emr_run, f"{runs:.0f} clusters, {cluster}, {emr.spot_percent} % spot"),
        Line(
            "Glue",
            runs * glue_run + WAREHOUSE_CRAWLS * WAREHOUSE_CRAWL_DPU_HOURS * prices.hour.glue_dpu,
            f"{runs:.0f} jobs of {glue.max_workers} {glue.worker_type} with a crawl, "
            f"{WAREHOUSE_CRAWLS} crawls of the warehouse",
        ),
        _quality(settings),
        _storage(load),
        _secrets(settings, pieces),
        _observability(settings, pieces, load),
    )
    return Estimate(
        environment=settings.name,
        symbols=load.symbols,
        runs_per_session=load.runs_per_session,
        lines=lines,
        run_dollars=emr_run + glue_run,
        prices_as_of=prices.as_of,
        region=prices.region,
    )


def cluster_hour_dollars(settings: Environment) -> float:
    """Return the list price of an hour of the environment's cluster: instances, EMR's share and disks."""
    emr, prices = settings.emr, list_prices()
    primary = _instance_price(prices.hour.ec2, "emr.primary_instance", emr.primary_instance)
    worker = _instance_price(prices.hour.ec2, "emr.core_instance", emr.core_instance)
    spot = 1 - emr.spot_percent / 100 * (1 - prices.hour.spot_share)
    workers = emr.core_count + emr.task_count
    compute = primary + workers * worker * spot
    fee = (primary + workers * worker) * prices.hour.emr_share
    disks = (1 + workers) * emr.volume_gb * prices.month.ebs_gb / HOURS
    return compute + fee + disks


def backfill_limits(settings: Environment) -> dict[str, Any]:
    """Return what bounds a backfill of the environment: the values of barflow.pipeline.capacity.Limits by name."""
    emr, glue = settings.emr, settings.glue
    return {
        "emr_instance": emr.core_instance,
        "emr_workers": emr.core_count + emr.task_count,
        "step_timeout_minutes": emr.step_timeout_minutes,
        "glue_dpus": GLUE_DPUS[glue.worker_type],
        "glue_workers": glue.max_workers,
        "glue_timeout_minutes": glue.timeout_minutes,
        "warehouse_gb": settings.database.max_storage_gb,
        "cluster_hour_dollars": round(cluster_hour_dollars(settings), 4),
        "dpu_hour_dollars": dpu_hour_dollars(),
    }


def dpu_hour_dollars() -> float:
    """Return the list price of an hour of one Glue DPU."""
    return list_prices().hour.glue_dpu


def _network(settings: Environment, load: Workload) -> Line:
    network, prices = settings.network, list_prices()
    endpoints, gigabytes = len(network.interface_endpoints), NAT_GB + NAT_GB_PER_SYMBOL * load.symbols
    hourly = network.nat_gateways * (prices.hour.nat_gateway + prices.hour.public_ipv4)
    hourly += endpoints * network.zones * prices.hour.interface_endpoint
    basis = f"{network.nat_gateways} NAT with its address, {gigabytes:.1f} GB, {endpoints} endpoints"
    if settings.balancer.certificate_arn:
        hourly += prices.hour.load_balancer + network.zones * prices.hour.public_ipv4
        basis += ", a load balancer with its addresses"
    return Line("Network", HOURS * hourly + gigabytes * prices.use.nat_gb, basis)


def _database(settings: Environment) -> Line:
    database, prices = settings.database, list_prices()
    copies = 2 if database.multi_az else 1
    hourly = _instance_price(prices.hour.rds, "database.instance_class", database.instance_class)
    dollars = copies * (HOURS * hourly + database.storage_gb * prices.month.rds_gb)
    return Line("RDS", dollars, f"{copies} {database.instance_class}, {database.storage_gb} GB")


def _host(settings: Environment) -> Line:
    host, prices = settings.host, list_prices()
    gigabytes = host.data_volume_gb + HOST_ROOT_GB
    hourly = _instance_price(prices.hour.ec2, "host.instance_type", host.instance_type)
    return Line("EC2 host", HOURS * hourly + gigabytes * prices.month.ebs_gb, f"{host.instance_type}, {gigabytes} GB")


def _ingestion(settings: Environment, load: Workload) -> Line:
    ingest, use = settings.ingest, list_prices().use
    if ingest.runner == "host":
        return Line("Lambda", 0.0, "the host ingests")
    ticks = SESSIONS * ingest.ticks_per_session
    seconds = ticks * (TICK_SECONDS + TICK_SECONDS_PER_SYMBOL * load.symbols)
    dollars = seconds * ingest.memory_mb / 1024 * use.lambda_gb_second + ticks / 1e6 * use.lambda_million_requests
    return Line("Lambda", dollars, f"{ticks:.0f} ticks")


def _emr_run(settings: Environment, load: Workload) -> float:
    hours = CLUSTER_START_HOURS + CLUSTER_HOURS_PER_SYMBOL * load.symbols / settings.emr.core_count
    return hours * cluster_hour_dollars(settings)


def _glue_run(settings: Environment, load: Workload) -> float:
    workers = settings.glue.max_workers
    hours = GLUE_START_HOURS + GLUE_HOURS_PER_SYMBOL * load.symbols / workers
    return workers * GLUE_DPUS[settings.glue.worker_type] * hours * list_prices().hour.glue_dpu


def _quality(settings: Environment) -> Line:
    quality = settings.quality
    hours = quality.runs_per_month * quality.workers * EVALUATION_HOURS
    basis = f"{quality.runs_per_month} evaluations by {quality.workers} G.1X"
    return Line("Glue Data Quality", hours * list_prices().hour.glue_dpu, basis)


def _storage(load: Workload) -> Line:
    prices = list_prices()
    gigabytes = 2 * ARCHIVE_GB_PER_SYMBOL * load.symbols + 1
    puts = SESSIONS * load.symbols * 4 / 1000 * prices.use.s3_thousand_puts
    return Line("S3", gigabytes * prices.month.s3_gb + puts, f"{gigabytes:.1f} GB after a year")


def _secrets(settings: Environment, pieces: Inventory) -> Line:
    month = list_prices().month
    secrets = pieces.secrets + bool(settings.webhooks.urls) + bool(settings.apprise)
    dollars = secrets * month.secret + pieces.kms_keys * month.kms_key + pieces.parameters * month.parameter
    basis = f"{secrets} secrets, {pieces.kms_keys} KMS keys, {pieces.parameters} advanced parameter"
    return Line("Secrets and keys", dollars, basis)


def _observability(settings: Environment, pieces: Inventory, load: Workload) -> Line:
    prices = list_prices()
    metrics = pieces.metrics + pieces.metrics_per_symbol * load.symbols
    metrics += HOST_METRICS if settings.host.detailed_monitoring else 0
    gigabytes = LOG_GB + LOG_GB_PER_SYMBOL * load.symbols
    dollars = pieces.alarms * prices.month.alarm + pieces.dashboards * prices.month.dashboard
    dollars += metrics * prices.month.metric + gigabytes * prices.use.log_gb
    basis = f"{pieces.alarms} alarms, {pieces.dashboards} dashboards, {metrics} metrics, {gigabytes:.1f} GB of logs"
    return Line("CloudWatch", dollars, basis)


def _instance_price(table: Mapping[str, float], setting: str, instance: str) -> float:
    if instance not in table:
        raise ConfigError(f"{setting} is {instance!r}: config/prices.toml has no price for it. Add it, with its date")
    return table[instance]
