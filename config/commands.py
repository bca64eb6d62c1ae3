"""The command `barflow cost`: estimate what an environment costs a month."""

from __future__ import annotations

from typing import Annotated

import typer

from barflow.cli.common import Env, Json, print_json
from barflow.cli.rooms import command_app
from barflow.errors import BadInputError

cost = command_app()


@cost.command("cost", epilog="Example:  barflow cost --env prod --symbols 500 --runs 7")
def show_cost(
    env: Env = "dev",
    symbols: Annotated[int | None, typer.Option(min=1, help="Number of symbols (default: the environment's).")] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Process runs per session (default: those of the schedule).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate the monthly cost of an environment.

    It lists the cost of each service, and of one process run.
    """
    from barflow.cli.terminal import console, table
    from config.cost import estimate
    from config.environments import environment
    from config.validation import ConfigError

    try:
        found = estimate(environment(env), symbols=symbols, runs_per_session=runs)
    except ConfigError as error:
        raise BadInputError(str(error)) from None
    if as_json:
        print_json(found.to_json())
        return
    count = found.runs_per_session
    title = f"{env}: {found.symbols} symbols, {count} process run{'s' if count > 1 else ''} a session"
    shown = table(title, ("service", "made of", "USD a month"), left=2)
    for line in sorted(found.lines, key=lambda line: -line.dollars):
        shown.add_row(line.service, line.basis, f"{line.dollars:,.2f}")
    shown.add_row("total", "", f"{found.total:,.2f}", style="bold")
    out = console()
    out.print(shown)
    out.print(f"one process run: {found.run_dollars:.2f} USD")
    out.print(f"list prices of {found.region} as of {found.prices_as_of}, without free tiers and taxes")
