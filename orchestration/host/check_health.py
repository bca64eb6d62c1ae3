"""Health check of the host: count the services that are down, and publish the count as a metric.

It also publishes the age of undelivered alerts, and during a session the age of the newest bars: if no tick runs, no
tick reports it.

`--wait SECONDS` waits until Airflow is up instead, as the host's setup does; exit code 1 if it is not up by then. It
does not wait for the page, because on a first deployment the secret with MongoDB's URI is not stored yet.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime

from barflow import metric_names as names
from barflow.alerts.outbox import Outbox
from barflow.errors import BarflowError
from barflow.operations import cloudwatch as metrics
from barflow.operations.ticks import session_staleness
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings

ANSWER_SECONDS = 10
COMPONENTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")


def airflow_down() -> list[str]:
    """Return the components of Airflow that are not healthy, each with its state or error."""
    try:
        health = json.loads(_get(f"http://127.0.0.1:{os.environ['AIRFLOW_PORT']}/api/v2/monitor/health"))
    except (OSError, ValueError) as error:
        return [f"api-server ({error})"]
    states = {name: (health.get(name) or {}).get("status") for name in COMPONENTS}
    return [f"{name} ({state})" for name, state in states.items() if state != "healthy"]


def page_down() -> list[str]:
    """Return the page with its error if it does not answer, or if its watcher does not work, else nothing."""
    try:
        _get(f"http://127.0.0.1:{os.environ['DASHBOARD_PORT']}/healthz")
    except urllib.error.HTTPError as error:
        return [f"page ({error}{_detail(error)})"]
    except OSError as error:
        return [f"page ({error})"]
    return []


def _detail(error: urllib.error.HTTPError) -> str:
    """Return what the page answers about its watcher."""
    try:
        return f". {json.loads(error.read())['detail']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
        body: bytes = answer.read()
        return body


def health_metrics(down: list[str], ages: Mapping[str, float | None]) -> metrics.MetricSet:
    """Return the metrics of a check. ``ages`` (seconds, by metric) are None if they could not be read."""
    values = {names.HOST_PARTS_DOWN: (float(len(down)), "Count")}
    values |= {name: (age, "Seconds") for name, age in ages.items() if age is not None}
    return metrics.MetricSet({names.ENVIRONMENT: os.environ["BARFLOW_ENV"]}, values)


def store_ages() -> dict[str, float | None]:
    """Return the age (seconds) of the undelivered alerts and of the newest bars, by metric. Raise BarflowError."""
    settings = load_settings()
    stores = Stores(settings)
    return {
        names.UNDELIVERED_ALERT_AGE: Outbox(stores.database).undelivered_age(),
        names.STALEST: session_staleness(stores, settings.symbols, datetime.now(UTC)),
    }


def wait(seconds: float) -> int:
    """Wait until Airflow is up. Return the exit code: 1 if it is not up after so many seconds."""
    deadline = time.monotonic() + seconds
    while down := airflow_down():
        if time.monotonic() > deadline:
            print(f"error: not up after {seconds:.0f} s: {', '.join(down)}", file=sys.stderr)
            return 1
        time.sleep(5)
    return 0


def report() -> int:
    """Check everything, print what is down, and publish the metrics. Return the exit code: 1 without metrics."""
    down, ages = airflow_down() + page_down(), {}
    try:
        ages = store_ages()
    except BarflowError as error:
        down.append(f"alerts ({error})")
    for part in down:
        print(f"not up: {part}", file=sys.stderr)
    if problem := metrics.put([health_metrics(down, ages)], datetime.now(UTC)):
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Run the check or the wait. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="wait until Airflow is up")
    given = parser.parse_args()
    return report() if given.wait is None else wait(given.wait)


if __name__ == "__main__":
    sys.exit(main())
