"""What do the commands share? Options, the stores that they run on, and how they tell what they did."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from barflow.settings import load_settings

if TYPE_CHECKING:
    from barflow.pipeline.stores import Run

err = Console(stderr=True, highlight=False)
out = Console(highlight=False, soft_wrap=True)  # into a pipe, a line stays a line

State = Annotated[
    Path | None,
    typer.Option(help="State folder of the embedded services (default: .barflow when BARFLOW_… settings name none)."),
]
Symbols = Annotated[str | None, typer.Option(help="Symbols, comma separated: AAPL,MSFT (default: BARFLOW_SYMBOLS).")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
# Where no symbols mean all that there are.
OnlySymbols = Annotated[str | None, typer.Option("--symbols", help="Only these, comma separated: AAPL,MSFT.")]


def say(text: str) -> None:
    """To stderr: progress, warnings and errors."""
    err.print(text, markup=False, soft_wrap=True)


def print_json(value: object) -> None:
    """One object on stdout."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")


def show_result(result: dict[str, Any], as_json: bool) -> None:
    """As JSON, or a line a value."""
    if as_json:
        print_json(result)
    else:
        for name, value in result.items():
            out.print(f"{name}: {value}", markup=False)


@contextmanager
def opened(state: Path | None, *, mongo: bool = True, postgres: bool = True, api: bool = False) -> Iterator[Run]:
    """What a command runs on: the stores that the settings name, else the embedded services of a state folder."""
    from barflow.pipeline.stores import Run

    settings = load_settings()
    needed = {"lake_uri": True, "mongodb_uri": mongo, "warehouse_dsn": postgres}
    if state is None and all(getattr(settings, name) for name, wanted in needed.items() if wanted):
        yield Run(settings)
        return
    if state is None and settings.env != "local":
        from barflow.operations.deployment import open_run

        yield open_run(settings.env)[0]
        return
    from local.embedded import embedded, open_default_state

    with embedded(open_default_state(state), say, mongo=mongo, postgres=postgres, api=api) as run:
        yield run
