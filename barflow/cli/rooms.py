"""Entry points: what the other rooms of the repository add to the console command.

``barflow`` imports no other room. A room registers what it offers in pyproject.toml, and it is imported on first use:

- group ``barflow.commands``: a ``typer.Typer`` with one command, under the command's name;
- group ``barflow.stores``: ``embedded``, the function that opens the embedded services of a state folder.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.main import get_command

from barflow.errors import BadInputError

COMMANDS, STORES = "barflow.commands", "barflow.stores"


def command_app() -> typer.Typer:
    """Return an empty Typer app with the settings of the console command."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def room_commands() -> dict[str, Any]:
    """Return the commands that other rooms register, by name. The command of a missing room raises BadInputError."""
    found = {}
    for entry in entry_points(group=COMMANDS):
        app = _load(entry)
        found[entry.name] = get_command(_not_installed(entry) if app is None else app)
    return found


def embedded_stores() -> Any:
    """Return the function that opens the stores of a state folder. Raise BadInputError if it is not installed."""
    for entry in entry_points(group=STORES, name="embedded"):
        if (opener := _load(entry)) is not None:
            return opener
    raise BadInputError(
        "the embedded services are not in this installation: they are in the folder local/ of the repository. "
        "Nothing was started. Set BARFLOW_MONGODB_URI, BARFLOW_WAREHOUSE_DSN and BARFLOW_LAKE_URI, or clone the "
        "repository, run `make setup` and use its .venv/bin/barflow."
    )


def _load(entry: EntryPoint) -> Any:
    """Return what an entry point names, or None when its room is not installed."""
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        if error.name is None or not f"{entry.module}.".startswith(f"{error.name}."):
            raise
        return None


def _not_installed(entry: EntryPoint) -> typer.Typer:
    app, room = command_app(), entry.module.partition(".")[0]
    anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    @app.command(entry.name, help=f"Not installed: needs {room}/ of the repository.", context_settings=anything)
    def fail() -> None:
        raise BadInputError(
            f"`barflow {entry.name}` is not in this installation: it is in the folder {room}/ of the repository. "
            f"Clone the repository, run `make setup`, then run `.venv/bin/barflow {entry.name}`."
        )

    return app
