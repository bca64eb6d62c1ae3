"""The command `barflow backfill`: plan and fetch past sessions."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from barflow.cli.common import Json, State, Symbols, log, opened, out, parse_day, present_symbols, print_json
from barflow.errors import BarflowError
from barflow.settings import load_settings

if TYPE_CHECKING:
    from barflow.pipeline.capacity import Limits

EXAMPLES = (
    "\b\nExamples:\n"
    "  barflow backfill --symbols AAPL --start 2025-01-02 --end 2025-06-30 --plan\n"
    "  barflow backfill --symbols AAPL --start 2025-07-22 --end 2025-07-22 --again"
)


def backfill(
    start: Annotated[str, typer.Option(help="First day, such as 2025-01-02.")],
    end: Annotated[str, typer.Option(help="Last day, included.")],
    symbols: Symbols = None,
    plan: Annotated[bool, typer.Option(help="Only print calls, credits, minutes and finish time.")] = False,
    again: Annotated[
        bool, typer.Option(help="Fetch stored sessions too, for corrections older than the revision window.")
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Fetch past sessions.

    It asks for each session once, and says how many it skipped because they are stored. You can stop it and run it
    again: it resumes where it stopped. So does --again, within seven days. In a deployed environment (BARFLOW_ENV), it
    first compares the timeouts and disks with what the bars take, and warns if one is too small. With --plan, it then
    exits 1.
    """
    from barflow.cli.terminal import show_tick, ticking
    from barflow.pipeline.backfill import plan_for
    from barflow.pipeline.backfill import run as run_backfill
    from barflow.pipeline.capacity import demand, too_small
    from barflow.pipeline.ingest_report import raise_errors

    first, last = parse_day(start, "--start"), parse_day(end, "--end")
    if plan:
        show_plan(symbols, first, last, as_json)
        return
    with opened(state, postgres=False, api=True) as stores:
        names = present_symbols(symbols, stores.settings)
        planned = plan_for(stores.settings, names, first, last, stores.clock())
        if limits := deployed_limits(stores.settings.env):
            for problem in too_small(demand(planned.bars, limits), limits):
                log(f"warning: {problem}")
        with ticking("backfill", len(planned.chunks) * len(names)) as advance:
            report = run_backfill(stores, names, first, last, log, advance, again=again)
        show_tick(report, as_json)
    raise_errors(report)


def show_plan(symbols: str | None, first: date, last: date, as_json: bool) -> None:
    """Print the plan, and in a deployed environment what the hops after it take. Exit 1 if a limit is too small."""
    from barflow.pipeline.backfill import plan_for
    from barflow.pipeline.capacity import demand, too_small

    settings = load_settings()
    planned = plan_for(settings, present_symbols(symbols, settings), first, last)
    limits = deployed_limits(settings.env)
    if limits is None:
        print_json(planned.to_json()) if as_json else out.print(planned.describe())
        return
    needed = demand(planned.bars, limits)
    found = list(too_small(needed, limits))
    if as_json:
        print_json({**planned.to_json(), "takes": needed.to_json(), "too_small": found})
    else:
        out.print("\n".join([planned.describe(), needed.describe(), *(f"too small: {problem}" for problem in found)]))
    raise typer.Exit(1 if found else 0)


def deployed_limits(env: str) -> Limits | None:
    """Return the limits of a deployed environment, or None for a local one, or if they cannot be read."""
    from barflow.operations.deployment import open_stores
    from barflow.pipeline.capacity import Limits, free_gb

    if env == "local":
        return None
    try:
        stores, contract = open_stores(env)
        assert contract is not None
    except BarflowError as error:
        log(f"warning: the timeouts and disks are not checked. {error}")
        return None
    try:
        free = free_gb(stores.database.command("dbStats"))
    except Exception as error:  # MongoDB does not answer or denies the command; the other limits are still known
        log(f"warning: the free space of MongoDB is not checked ({type(error).__name__})")
        free = None
    return Limits.of(contract, free)
