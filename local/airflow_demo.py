"""`make airflow`: Airflow's page on this machine, with the project's DAGs and the embedded services behind them.

Bars are staged first, so that a run of process_bars has something to do. Ctrl-C stops it all; what was stored stays.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from barflow.errors import BarflowError
from barflow.pipeline.stores import Run, raise_refusals
from barflow.settings import Settings, parse_symbols
from local.airflow import LocalAirflow
from local.embedded import embedded
from local.state import State

STATE = Path(".barflow/states/airflow")
# What a task must know of this machine's settings.
TOLD = ("twelvedata_url", "credits_per_minute", "credits_per_day", "batch_size", "history_sessions")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def variables(settings: Settings) -> dict[str, str]:
    """The settings as the variables that a task reads."""
    found = {f"BARFLOW_{name.upper()}": getattr(settings, name) for name in TOLD}
    if settings.twelvedata_api_key:
        found["TWELVEDATA_API_KEY"] = settings.twelvedata_api_key.get_secret_value()
    named = {name: "" if value is None else str(value) for name, value in found.items()}
    return named | {"BARFLOW_ENV": "local", "BARFLOW_SYMBOLS": ",".join(settings.symbols)}


@contextmanager
def airflow_on(folder: Path, port: int = 0, **overrides: object) -> Iterator[tuple[LocalAirflow, Run]]:
    """Airflow on the services of a state folder, which is made if it is not there, with a first tick staged."""
    source = {"kind": "live" if os.environ.get("TWELVEDATA_API_KEY") else "synthetic"}
    state = State.create(folder, source=source, as_of=None)
    with embedded(state, say, api=True, **overrides) as run:
        run.migrate(say)
        report = run.ingest(say).tick(run.settings.symbols)
        raise_refusals(report)
        say(f"{report.total.new:,} new bars of {len(report.counts)} symbols are staged; starting Airflow")
        environment = {**run.environment, **variables(run.settings)}
        with LocalAirflow(folder.resolve() / "airflow", environment, port=port, on_start=run.on_child) as airflow:
            yield airflow, run


def main() -> int:
    options = argparse.ArgumentParser(
        prog="make airflow",
        description=__doc__.split("\n", 1)[0],
        epilog='Example:  make airflow ARGS="--port 8081 --symbols AAPL"',
    )
    options.add_argument("--port", type=int, default=8080, help="of the page (default: 8080; 0 takes a free one)")
    options.add_argument("--symbols", help="comma separated: AAPL,MSFT (default: BARFLOW_SYMBOLS)")
    options.add_argument("--state", type=Path, default=STATE, help=f"folder of the stored bars (default: {STATE})")
    given = options.parse_args()
    try:
        chosen = {"symbols": parse_symbols(given.symbols)} if given.symbols else {}
        with airflow_on(given.state, given.port, **chosen) as (airflow, _):
            say(f"Airflow is at {airflow.url}: open the DAG process_bars and press Trigger.  Ctrl-C stops it")
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
            say("stopping; what was stored stays")
    except BarflowError as error:
        say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
