"""`make airflow`: Airflow with the project's DAGs, on this machine and its embedded services.

A first tick is staged before Airflow starts, so that the DAG process_bars has bars to process. Ctrl-C stops Airflow and
the services. Stored bars stay.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from barflow.cli.common import log
from barflow.errors import BarflowError
from barflow.operations.airflow_lineage import FILE, lineage_options, transport_file
from barflow.pipeline import ingest
from barflow.pipeline.ingest_report import raise_errors
from barflow.pipeline.stores import Stores
from barflow.secrets import resolve
from barflow.settings import Settings, load_settings, variable_of
from barflow.symbol import parse_symbols
from barflow.warehouse.migrations import migrate
from local.airflow import USER, LocalAirflow
from local.embedded import embedded
from local.state import State

STATE = Path(".barflow/states/airflow")
# The settings of this machine that a task needs.
TASK_SETTINGS = (
    "twelvedata_url", "credits_per_minute", "credits_per_day", "batch_size", "history_sessions", "openlineage_url",
)  # fmt: skip
SECRET_SETTINGS = ("twelvedata_api_key", "openlineage_api_key")


def variables(settings: Settings) -> dict[str, str]:
    """Return the settings as the environment variables that a task reads."""
    found = {f"BARFLOW_{name.upper()}": getattr(settings, name) for name in TASK_SETTINGS}
    for name in SECRET_SETTINGS:
        secret = getattr(settings, name)
        if secret is not None:
            found[variable_of(name)] = secret.get_secret_value()
    named = {name: "" if value is None else str(value) for name, value in found.items()}
    return named | {"BARFLOW_ENV": "local", "BARFLOW_SYMBOLS": ",".join(settings.symbols)}


@contextmanager
def airflow_on(folder: Path, port: int = 0, **overrides: Any) -> Iterator[tuple[LocalAirflow, Stores]]:
    """Stage a first tick in a state folder (made if there is none) and start Airflow on its services."""
    source = {"kind": "live" if load_settings().twelvedata_api_key else "synthetic"}
    state = State.create(folder, source=source, as_of=None)
    with embedded(state, log, api=True, **overrides) as stores:
        migrate(stores.warehouse_dsn, log=log)
        report = ingest.run(stores, stores.settings.symbols, log)
        raise_errors(report)
        log(f"{report.total.new:,} new bars of {len(report.counts)} symbols are staged; starting Airflow")
        home = folder.resolve() / "airflow"
        environment = {**stores.environment, **variables(stores.settings), **lineage(stores.settings, home)}
        with LocalAirflow(home, environment, port=port, on_start=stores.on_child) as airflow:
            yield airflow, stores


def lineage(settings: Settings, home: Path) -> dict[str, str]:
    """Return Airflow's options for its lineage. Write its transport, which can hold a key, to a file of this user."""
    if settings.openlineage_url:
        key = settings.openlineage_api_key
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = home / FILE
        file.touch(mode=0o600)
        value = resolve(key, "BARFLOW_OPENLINEAGE_API_KEY") if key else None
        file.write_text(transport_file(settings.openlineage_url, value))
    return lineage_options(settings.env, settings.openlineage_url, home)


def welcome(airflow: LocalAirflow) -> str:
    """Return how to sign in. It has the password only when this start made it."""
    shown = f" {airflow.password}" if airflow.password_is_new else ""
    return f"Airflow is at {airflow.url}: sign in as {USER} with the password{shown} kept in {airflow.passwords}"


def main() -> int:
    """Run the command line. Return the exit code."""
    options = argparse.ArgumentParser(
        prog="make airflow",
        description=__doc__.split("\n", 1)[0],
        epilog='Example:  make airflow ARGS="--port 8081 --symbols AAPL"',
    )
    options.add_argument("--port", type=int, default=8080, help="port of the page (default: 8080; 0 takes a free one)")
    options.add_argument("--symbols", help="comma separated: AAPL,MSFT (default: BARFLOW_SYMBOLS)")
    options.add_argument("--state", type=Path, default=STATE, help=f"state folder (default: {STATE})")
    given = options.parse_args()
    try:
        chosen = {"symbols": parse_symbols(given.symbols)} if given.symbols else {}
        with airflow_on(given.state, given.port, **chosen) as (airflow, _):
            log(welcome(airflow))
            log("open the DAG process_bars and press Trigger.  Ctrl-C stops Airflow")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
            log("stopping; what was stored is kept")
    except BarflowError as error:
        log(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
