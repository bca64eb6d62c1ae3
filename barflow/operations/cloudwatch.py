"""What dashboards and alarms count, as CloudWatch metrics: lines of EMF in a function's log, or put there by a call.

CloudWatch makes metrics of lines in the embedded metric format (EMF) by itself: writing them takes no call and no
library, which suits a function. A host's log does not do that, so there they are put.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

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
    RUN_COST,
    STALEST,
    SYMBOL,
    SYMBOLS_REFUSED,
    TICKS_REFUSED,
    UNDELIVERED_ALERT_AGE,
)
from barflow.pipeline.ingest import IngestReport

Values = Mapping[str, tuple[float, str]]
# CloudWatch takes no more in one call.
MOST_AT_ONCE = 1000


@dataclass(frozen=True)
class Measured:
    """Values (number, unit) of one moment, under exactly these dimensions."""

    dimensions: Mapping[str, str]
    values: Values


def of_tick(env: str, report: IngestReport, newest: Mapping[str, datetime], now: datetime) -> Iterator[Measured]:
    """One tick's. ``newest`` is the open (UTC) of the newest stored bar by symbol."""
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
    yield Measured({ENVIRONMENT: env}, values)
    for symbol, age in ages.items():
        yield Measured({ENVIRONMENT: env, SYMBOL: symbol}, {FRESHNESS: (age, "Seconds")})


def of_refusal(env: str) -> Measured:
    """A tick's that the vendor refused as a whole."""
    return Measured({ENVIRONMENT: env}, {TICKS_REFUSED: (1, "Count")})


def of_alerts(env: str, fired: int, age: float) -> Measured:
    """A tick's alerts: how many it found, and the age (seconds) of the oldest one that a channel has not taken."""
    return Measured({ENVIRONMENT: env}, {ALERTS_FIRED: (fired, "Count"), UNDELIVERED_ALERT_AGE: (age, "Seconds")})


def of_run(env: str, rows: int, dollars: float) -> Measured:
    """A process run's: the rows that it loaded into all tables, and what it cost."""
    return Measured({ENVIRONMENT: env}, {ROWS_LOADED: (rows, "Count"), RUN_COST: (dollars, "None")})


def emf(measured: Measured, moment: datetime) -> str:
    """One line of EMF."""
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


def put(measured: Iterable[Measured], moment: datetime) -> str | None:
    """Puts them to CloudWatch. Returns why it could not: what they count is done, counted or not."""
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
        for start in range(0, len(data), MOST_AT_ONCE):
            client.put_metric_data(Namespace=NAMESPACE, MetricData=data[start : start + MOST_AT_ONCE])
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        return f"CloudWatch took no metrics ({code})"
    return None
