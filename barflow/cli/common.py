"""What the commands share: options, output, and the stores that a command runs on.

Text of Twelve Data, of a database and of files is printed. It is never read as markup, and no control character of it
reaches the terminal.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from barflow.errors import BadInputError
from barflow.settings import Settings, load_settings
from barflow.symbol import parse_symbols
from barflow.text import redacted, visible

if TYPE_CHECKING:
    from barflow.pipeline.stores import Stores


class PlainConsole(Console):
    """A console on which a text is only text: without markup and emoji codes, with control characters shown.

    What has a colour is a rich Text, made of our own words.
    """

    def render_str(self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any) -> Text:
        """Return a text with its line ends, and every other control character as an escape."""
        return Text(visible(text, keep="\n"), style=style, justify=justify, overflow=overflow)


err = PlainConsole(stderr=True, highlight=False)
out = PlainConsole(highlight=False, soft_wrap=True)  # no wrapping: a line stays one line in a pipe

State = Annotated[
    Path | None,
    typer.Option(
        help="State folder of the embedded services (default: .barflow, unless BARFLOW_… settings name stores)."
    ),
]
Symbols = Annotated[
    str | None,
    typer.Option(help="Symbols, comma separated: AAPL,MSFT, or a list: @megacaps (default: BARFLOW_SYMBOLS)."),
]
LineageParent = Annotated[
    str | None,
    typer.Option(help="The OpenLineage run that starts this one, NAMESPACE/JOB/UUID, and after a comma its root run."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Env = Annotated[str, typer.Option(help="dev, staging or prod.")]
# More digits than Python turns into text.
MOST_DIGITS = 4000
# For commands whose default is every stored symbol.
OnlySymbols = Annotated[str | None, typer.Option("--symbols", help="Only these symbols, comma separated: AAPL,MSFT.")]


def log(text: str) -> None:
    """Print a line of progress, a warning or an error to stderr, without secrets."""
    err.print(redacted(text), soft_wrap=True)


def print_json(value: object) -> None:
    """Print one JSON object to stdout, with null for NaN and infinities."""
    sys.stdout.write(json.dumps(_json_value(value), default=str, allow_nan=False) + "\n")
    sys.stdout.flush()


def _json_value(value: Any) -> Any:
    """Return the value with numbers that JSON has: PostgreSQL's numeric as a number, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(name): _json_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        whole = value.adjusted() < MOST_DIGITS and value == value.to_integral_value()
        return int(value) if whole else _json_value(float(value))
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_result(result: dict[str, Any], as_json: bool) -> None:
    """Print a result as one JSON object, or one line per value."""
    if as_json:
        print_json(result)
    else:
        for name, value in result.items():
            out.print(f"{name}: {visible(str(value))}")


def parse_day(text: str, option: str) -> date:
    """Return the day that an option names. Raise BadInputError for anything else."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007
    except ValueError:
        raise BadInputError(f"{option} {text}: give a day such as 2025-01-02") from None


def given_symbols(given: str, settings: Settings) -> tuple[str, ...]:
    """Return the symbols of an option, with those of each ``@name``: a list of the alert rules' file.

    Raises BadInputError for an invalid symbol or an unknown list.
    """
    if "@" not in given:
        return parse_symbols(given)
    from barflow.alerts.rules_file import DEFAULT_RULES, load_rules, with_lists

    lists = load_rules(settings.alerts_file).lists
    try:
        return parse_symbols(",".join(with_lists(given, lists)))
    except ValueError as error:
        raise BadInputError(f"--symbols: {error} (alert rules {settings.alerts_file or DEFAULT_RULES})") from None


def present_symbols(given: str | None, settings: Settings) -> tuple[str, ...]:
    """Return the present symbols of an option, or else of the settings. Log a line for each former symbol."""
    from barflow.market.instruments import load_instruments

    instruments = load_instruments(settings.instruments_file)
    symbols, renamed = instruments.resolve(given_symbols(given, settings) if given else settings.symbols)
    for line in renamed:
        log(line)
    return symbols


def stored_names(given: str | None, settings: Settings) -> list[str] | None:
    """Return every symbol under which the shares of an option may be stored, or None without the option."""
    from barflow.market.instruments import load_instruments

    if not given:
        return None
    return [*load_instruments(settings.instruments_file).stored_names(present_symbols(given, settings))]


@contextmanager
def opened(state: Path | None, *, mongo: bool = True, postgres: bool = True, api: bool = False) -> Iterator[Stores]:
    """Open the stores that a command runs on and yield them as a Run.

    They are the stores that the settings name, or those of a deployed environment (BARFLOW_ENV), or else the embedded
    services of a state folder. ``mongo``, ``postgres`` and ``api`` select what the command uses.
    """
    from barflow.pipeline.stores import Stores

    settings = load_settings()
    needed = {"lake_uri": True, "mongodb_uri": mongo, "warehouse_dsn": postgres}
    if state is None and all(getattr(settings, name) for name, wanted in needed.items() if wanted):
        yield Stores(settings)
        return
    if state is None and settings.env != "local":
        from barflow.operations.deployment import open_stores

        yield open_stores(settings.env)[0]
        return
    from barflow.cli.rooms import embedded_stores

    with embedded_stores()(state, log, mongo=mongo, postgres=postgres, api=api) as stores:
        yield stores
