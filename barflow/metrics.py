"""What dashboards and alarms count: CloudWatch metrics, as lines of JSON in the embedded metric format (EMF).

CloudWatch makes metrics of such lines in a function's log. Writing them takes no call and no library; anywhere else
they are lines of JSON and no more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime

from barflow.ingest import TickReport
from barflow.metric_names import (
    ALERTS_FIRED,
    BARS_INGESTED,
    BARS_RECEIVED,
    BARS_REJECTED,
    ENVIRONMENT,
    FRESHNESS,
    NAMESPACE,
    STALEST,
    SYMBOL,
    SYMBOLS_REFUSED,
    TICKS_REFUSED,
    UNDELIVERED_ALERT_AGE,
)
from barflow.sessions import BAR

Values = Mapping[str, tuple[float, str]]


def tick_lines(env: str, report: TickReport, newest: Mapping[str, datetime], now: datetime) -> Iterator[str]:
    """The lines of one tick. ``newest`` is the open (UTC) of the newest stored bar by symbol."""
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
    yield emf(now, {ENVIRONMENT: env}, values)
    for symbol, age in ages.items():
        yield emf(now, {ENVIRONMENT: env, SYMBOL: symbol}, {FRESHNESS: (age, "Seconds")})


def refused_line(env: str, now: datetime) -> str:
    """The line of a tick that the vendor refused as a whole."""
    return emf(now, {ENVIRONMENT: env}, {TICKS_REFUSED: (1, "Count")})


def alerts_line(env: str, fired: int, age: float, now: datetime) -> str:
    """The line of a tick's alerts: how many it found, and the age of the oldest one that a channel has not taken."""
    return emf(now, {ENVIRONMENT: env}, {ALERTS_FIRED: (fired, "Count"), UNDELIVERED_ALERT_AGE: (age, "Seconds")})


def emf(moment: datetime, dimensions: Mapping[str, str], values: Values) -> str:
    """One line of EMF: the values (number, unit) at a moment, under exactly these dimensions."""
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": unit} for name, (_, unit) in values.items()],
    }
    body = {
        "_aws": {"Timestamp": round(moment.timestamp() * 1000), "CloudWatchMetrics": [directive]},
        **dimensions,
        **{name: number for name, (number, _) in values.items()},
    }
    return json.dumps(body)
