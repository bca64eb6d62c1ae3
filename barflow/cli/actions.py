"""The commands `barflow actions …`: list, refresh and import splits and dividends."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barflow.cli.common import (
    Json,
    OnlySymbols,
    State,
    Symbols,
    log,
    opened,
    out,
    present_symbols,
    print_json,
    show_result,
)
from barflow.errors import BadInputError
from barflow.settings import load_settings

if TYPE_CHECKING:
    from barflow.market.actions import Version

actions_app = typer.Typer(no_args_is_help=True, help="List, refresh and import splits and dividends.")


@actions_app.command("list", epilog="Example:  barflow actions list --symbols NVDA --json")
def actions_list(
    symbols: OnlySymbols = None,
    every: Annotated[bool, typer.Option("--all", help="Also list changed and withdrawn versions.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List the staged splits and dividends."""
    from barflow.cli.terminal import console, table
    from barflow.staging.actions import Actions

    with opened(state, postgres=False) as stores:
        found = Actions(stores.database).of(present_symbols(symbols, stores.settings) if symbols else None)
    rows = [_row(item) for known in found.values() for item in known.versions if every or item.known_until is None]
    if as_json:
        print_json({"actions": rows})
        return
    if not rows:
        out.print("no splits or dividends are staged: run `barflow actions refresh`")
        return
    names = ("symbol", "kind", "ex_date", "ratio", "amount", "source", "known_from", "known_until")
    shown = table("", names, left=3)
    for row in rows:
        shown.add_row(*("" if row[name] is None else f"{row[name]}"[:19] for name in names))
    console().print(shown)


@actions_app.command(
    "refresh",
    epilog="\b\nExamples:\n"
    "  barflow actions refresh --symbols NVDA,AAPL --plan\n"
    "  barflow actions refresh --symbols NVDA,AAPL\n"
    "  barflow actions refresh --due",
)
def actions_refresh(
    symbols: Symbols = None,
    plan: Annotated[bool, typer.Option(help="Only print calls, credits, minutes and finish time.")] = False,
    due: Annotated[
        bool,
        typer.Option(
            help="Only ask for what is due: splits and dividends before the open, daily bars after the close."
        ),
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Fetch splits and dividends from Twelve Data and stage them.

    It costs 40 API credits a symbol on plans with the endpoints, from Grow up. On other plans it derives the splits
    from daily bars for 2 credits a symbol, and dividends stay unknown. With --due it asks for each symbol of
    BARFLOW_SYMBOLS once a trading day, within the credits that the ticks leave, as the daily schedule does.
    """
    from barflow.cli.terminal import console, table, ticking
    from barflow.market.sessions import utc_now
    from barflow.pipeline import actions
    from barflow.staging.actions import Changes

    if due:
        if symbols or plan:
            raise BadInputError("--due asks for the symbols of BARFLOW_SYMBOLS. Leave out --symbols and --plan.")
        _refresh_due(state, as_json)
        return
    if plan:
        settings = load_settings()
        names = present_symbols(symbols, settings)
        show_result(actions.plan(settings, names, utc_now()), as_json)
        return
    with opened(state, postgres=False, api=True) as stores:
        names = present_symbols(symbols, stores.settings)
        with ticking("actions", len(names)) as advance:
            report = actions.refresh(stores, names, log, lambda _: advance(1))
    if as_json:
        print_json(report.to_json())
    else:
        columns = tuple(asdict(Changes()))
        shown = table(f"run {report.run_id}", ("symbol", "splits", "dividends", *columns), left=3)
        for symbol, counts in report.counts.items():
            sources = report.sources[symbol]
            told = (sources.get("split", "unknown"), sources.get("dividend", "unknown"))
            shown.add_row(symbol, *told, *map(str, asdict(counts).values()))
        console().print(shown)
    actions.raise_errors(report)


def _refresh_due(state: Path | None, as_json: bool) -> None:
    """Ask for what is due and print the result. Raise the errors of symbols as a refresh does."""
    from barflow.operations.daily_actions import run_due
    from barflow.pipeline.actions import raise_errors

    with opened(state, postgres=False, api=True) as stores:
        report = run_due(stores, log)
    show_result(report.to_json(), as_json)
    if report.actions:
        raise_errors(report.actions)


@actions_app.command("import", epilog="Example:  barflow actions import actions.csv")
def actions_import(
    file: Annotated[Path, typer.Argument(help="CSV with the columns symbol, kind, ex_date, ratio, amount.")],
    state: State = None,
    as_json: Json = False,
) -> None:
    """Stage splits and dividends from a CSV file.

    An action of a file wins over Twelve Data's of the same ex-date. A ratio of 1 or an amount of 0 says that there was
    none. A row of a former symbol is stored under the present one. A wrong row rejects the whole file.
    """
    from barflow.pipeline.actions import import_file

    with opened(state, postgres=False) as stores:
        changes = import_file(stores, file)
    show_result({symbol: asdict(item) for symbol, item in changes.items()}, as_json)


def _row(version: Version) -> dict[str, Any]:
    action = version.action
    split = action.kind == "split"
    return {
        "symbol": action.symbol,
        "kind": action.kind,
        "ex_date": action.ex_date.isoformat(),
        "ratio": action.value if split else None,
        "amount": None if split else action.value,
        "currency": getattr(action, "currency", None),
        "source": action.source,
        "known_from": action.known_from.isoformat(timespec="seconds"),
        "known_until": version.known_until and version.known_until.isoformat(timespec="seconds"),
    }
