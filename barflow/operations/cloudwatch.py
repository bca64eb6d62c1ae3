"""CloudWatch metrics of ticks, alerts and process runs, for dashboards and alarms.

A function writes them to its log in the embedded metric format (EMF): CloudWatch extracts them, without a call and
without a library. The log of a host has no such extraction, so the host calls PutMetricData.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from barflow.errors import aws_error_code
from barflow.market.sessions import BAR
from barflow.metric_names import (
    ALERTS_FIRED,
    BARS_INGESTED,
    BARS_RECEIVED,
    BARS_REJECTED,
    ENVIRONMENT,
    FRESHNESS,
    NAMESPACE,
    ROWS_LOADED,
    RULES_FAILED,
    RUN_COST,
    STALEST,
    SYMBOL,
    SYMBOLS_REFUSED,
    TICKS_REFUSED,
    UNDELIVERED_ALERT_AGE,
)
from barflow.pipeline.ingest_report import IngestReport

Values = Mapping[str, tuple[float, str]]
# The limit of PutMetricData.
MAX_VALUES_PER_CALL = 1000


@dataclass(frozen=True)
class MetricSet:
    """Values of one moment that share the same dimensions. ``values`` contains (number, unit) by metric name."""

    dimensions: Mapping[str, str]
    values: Values


def tick_metrics(env: str, report: IngestReport, newest: Mapping[str, datetime], now: datetime) -> Iterator[MetricSet]:
    """Return the metrics of a tick. ``newest`` contains the open (UTC) of the newest stored bar by symbol."""
    total = report.total
    counts = {
        BARS_RECEIVED: total.received,
        BARS_INGESTED: total.new + total.revised,
        BARS_REJECTED: total.rejected,
        SYMBOLS_REFUSED: len(report.errors),
        TICKS_REFUSED: 0,
    }
    values = {name: (float(count), "Count") for name, count in counts.items()}
    ages = {symbol: max(0.0, (now - opened - BAR).total_seconds()) for symbol, opened in sorted(newest.items())}
    if ages:
        values[STALEST] = (max(ages.values()), "Seconds")
    yield MetricSet({ENVIRONMENT: env}, values)
    for symbol, age in ages.items():
        yield MetricSet({ENVIRONMENT: env, SYMBOL: symbol}, {FRESHNESS: (age, "Seconds")})


def refused_tick_metrics(env: str) -> MetricSet:
    """Return the metrics of a tick that Twelve Data refused entirely."""
    return MetricSet({ENVIRONMENT: env}, {TICKS_REFUSED: (1, "Count")})


def alert_metrics(env: str, fired: int, age: float) -> MetricSet:
    """Return the metrics of a tick's alerts: how many fired, and the age (seconds) of the oldest undelivered one."""
    return MetricSet({ENVIRONMENT: env}, {ALERTS_FIRED: (fired, "Count"), UNDELIVERED_ALERT_AGE: (age, "Seconds")})


def run_metrics(env: str, rows: int, dollars: float) -> MetricSet:
    """Return the metrics of a process run: the rows loaded into all tables, and the cost in dollars."""
    return MetricSet({ENVIRONMENT: env}, {ROWS_LOADED: (rows, "Count"), RUN_COST: (dollars, "None")})


def quality_metrics(env: str, failed: int) -> MetricSet:
    """Return the metric of an evaluation of the data quality rules: how many failed."""
    return MetricSet({ENVIRONMENT: env}, {RULES_FAILED: (failed, "Count")})


def emf(measured: MetricSet, moment: datetime) -> str:
    """Return the metrics as one line of EMF."""
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(measured.dimensions)],
        "Metrics": [{"Name": name, "Unit": unit} for name, (_, unit) in measured.values.items()],
    }
    body = {
        "_aws": {"Timestamp": round(moment.timestamp() * 1000), "CloudWatchMetrics": [directive]},
        **measured.dimensions,
        **{name: number for name, (number, _) in measured.values.items()},
    }
    return json.dumps(body)


def put(measured: Iterable[MetricSet], moment: datetime) -> str | None:
    """Send the metrics to CloudWatch. Return the reason if that fails, else None.

    Nothing is raised, because the work that the metrics describe is done already.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    data = [
        {
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in item.dimensions.items()],
            "Timestamp": moment,
            "Value": number,
            "Unit": unit,
        }
        for item in measured
        for name, (number, unit) in item.values.items()
    ]
    try:
        client = boto3.client("cloudwatch")
        for start in range(0, len(data), MAX_VALUES_PER_CALL):
            client.put_metric_data(Namespace=NAMESPACE, MetricData=data[start : start + MAX_VALUES_PER_CALL])
    except (BotoCoreError, ClientError) as error:
        return f"CloudWatch accepted no metrics ({aws_error_code(error)})"
    return None
