"""The command `barflow demo`: run the whole flow on this machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from barflow.cli.common import Json, State, Symbols, given_symbols, log
from barflow.cli.rooms import command_app
from barflow.settings import load_settings

demo = command_app()


@demo.command(
    "demo",
    epilog="\b\nExamples:\n  barflow demo --symbols AAPL,NVDA --days 5\n  barflow demo --replay bars.csv --json",
)
def show_demo(
    *,
    symbols: Symbols = None,
    days: Annotated[
        int | None,
        typer.Option(
            min=1, max=400, help="Sessions of history on a first run [default: 20; a recording: all of its sessions]."
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Recorded bars: a CSV datetime,open,high,low,close,volume,symbol in New York time, or a folder of "
            "Twelve Data JSON answers."
        ),
    ] = None,
    state: State = None,
    as_json: Json = False,
    serve: Annotated[bool, typer.Option(help="Keep the services and the page up until Ctrl-C.")] = False,
    live: Annotated[
        bool, typer.Option(help="Serve the page and keep ticking on a fast clock, in a state of its own.")
    ] = False,
    speed: Annotated[float, typer.Option(min=1, max=600, help="Market minutes per minute of --live.")] = 60,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 8050,
) -> None:
    """Run the whole flow on this machine.

    It starts an emulator of the Twelve Data API, MongoDB, Spark and PostgreSQL. With TWELVEDATA_API_KEY set and no
    --replay it fetches from the real API. On the same state, the next run is an incremental tick. It exits 1 when the
    hops do not reconcile.
    """
    from dashboard.commands import page_of
    from local.demo import run_demo

    balanced = run_demo(
        given_symbols(symbols, load_settings()) if symbols else None,
        days=days,
        replay=replay,
        state=state,
        as_json=as_json,
        serving=partial(page_of, port=port) if serve or live else None,
        speed=speed if live else None,
        log=log,
    )
    raise typer.Exit(0 if balanced else 1)
