"""Are Airflow and the page up, and do alerts leave? Counts what is not, as a metric for the alarms, and names it.

`--wait SECONDS` instead waits until Airflow is up, as the boot does; exit 1 when it is not by then. The page cannot be
awaited there: on a first deployment nobody has put MongoDB's URI in yet.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime

from barflow import metric_names as names
from barflow.alerts.outbox import Outbox
from barflow.errors import BarflowError
from barflow.operations import cloudwatch as metrics
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings

ANSWER_SECONDS = 10
COMPONENTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")


def airflow_down() -> list[str]:
    """The parts of Airflow that do not answer, or whose last sign of life is too old, each with what is known."""
    try:
        health = json.loads(_get(f"http://127.0.0.1:{os.environ['AIRFLOW_PORT']}/api/v2/monitor/health"))
    except (OSError, ValueError) as error:
        return [f"api-server ({error})"]
    states = {name: (health.get(name) or {}).get("status") for name in COMPONENTS}
    return [f"{name} ({state})" for name, state in states.items() if state != "healthy"]


def page_down() -> list[str]:
    """The page, should it not answer."""
    try:
        _get(f"http://127.0.0.1:{os.environ['DASHBOARD_PORT']}/")
    except OSError as error:
        return [f"page ({error})"]
    return []


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
        body: bytes = answer.read()
        return body


def measured(not_up: list[str], waiting: float | None) -> metrics.Measured:
    """Of alerts that cannot be looked at, nothing is said."""
    values = {names.HOST_PARTS_DOWN: (float(len(not_up)), "Count")}
    if waiting is not None:
        values[names.UNDELIVERED_ALERT_AGE] = (waiting, "Seconds")
    return metrics.Measured({names.ENVIRONMENT: os.environ["BARFLOW_ENV"]}, values)


def wait(seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while not_up := airflow_down():
        if time.monotonic() > deadline:
            print(f"error: not up after {seconds:.0f} s: {', '.join(not_up)}", file=sys.stderr)
            return 1
        time.sleep(5)
    return 0


def report() -> int:
    not_up, waiting = airflow_down() + page_down(), None
    try:
        waiting = Outbox(Stores(load_settings()).database).undelivered_age()
    except BarflowError as error:
        not_up.append(f"alerts ({error})")
    for part in not_up:
        print(f"not up: {part}", file=sys.stderr)
    if problem := metrics.put([measured(not_up, waiting)], datetime.now(UTC)):
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wait", type=float, metavar="SECONDS")
    given = parser.parse_args()
    return report() if given.wait is None else wait(given.wait)


if __name__ == "__main__":
    sys.exit(main())
