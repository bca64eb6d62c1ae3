"""The console command `barflow`: options in, one call of the library, results out.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 bad input, 3 refused by
Twelve Data.
"""

from __future__ import annotations

import os
import sys
import traceback
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barflow import __version__
from barflow.cli import operations as cli_operations
from barflow.cli.alerts import alerts_app
from barflow.cli.common import Json, State, Symbols, opened, out, print_json, say, show_result
from barflow.cli.dashboard import dashboard, page_of
from barflow.cli.rejected import rejected_app
from barflow.errors import BadInputError, BarflowError
from barflow.settings import load_settings, parse_symbols

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="barflow",
    help="Stock bars from Twelve Data to MongoDB, Parquet and PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(rejected_app, name="rejected")
app.add_typer(alerts_app, name="alerts")
app.command(epilog="Example:  barflow dashboard --port 8080")(dashboard)

# By Ctrl-C, which Typer turns into this exit code, and by SIGTERM.
STOPPED = (130, 143)


def main() -> None:
    """The entry point: one line for every error, and the exit code of its kind."""
    try:
        app()
    except BarflowError as error:
        _stop(error, error.exit_code)
    except BrokenPipeError:  # `barflow … | head`
        os._exit(0)
    except SystemExit as end:
        if end.code in STOPPED:
            say("stopped; what was stored stays, and the same command goes on from there")
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        what_next = "What was stored stays. Free space or mend access, then run the same command again."
        _stop(f"{error.strerror or error}{where}. {what_next}", 1)
    except Exception as error:
        if os.environ.get("BARFLOW_DEBUG"):
            traceback.print_exc()
        first = str(error).splitlines()[0] if str(error) else ""
        _stop(f"{type(error).__name__}: {first}. Set BARFLOW_DEBUG=1 to see where.", 1)


def _stop(error: object, code: int) -> None:
    say(f"error: {error}")
    sys.exit(code)


def version(value: bool) -> None:
    if value:
        out.print(f"barflow {__version__}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Stock bars from Twelve Data to MongoDB, Parquet and PostgreSQL."""


@app.command(epilog="Example:  barflow demo --symbols AAPL,NVDA --days 5     barflow demo --replay bars.csv --json")
def demo(
    symbols: Symbols = None,
    days: Annotated[int, typer.Option(min=1, max=400, help="Sessions of history on a first run.")] = 20,
    replay: Annotated[
        Path | None,
        typer.Option(help="Recorded bars: a CSV datetime,open,high,low,close,volume,symbol in New York time, or a "
                          "folder of Twelve Data JSON answers."),
    ] = None,
    state: State = None,
    as_json: Json = False,
    serve: Annotated[bool, typer.Option(help="Keep the services and the page up until Ctrl-C.")] = False,
    live: Annotated[
        bool, typer.Option(help="Serve the page and keep ticking on a quick clock, in a state of its own.")
    ] = False,
    speed: Annotated[float, typer.Option(min=1, max=600, help="Market minutes in a minute of --live.")] = 60,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes a free one.")] = 8050,
) -> None:  # fmt: skip
    """Run the whole flow on this machine: API emulator, MongoDB, Spark, PostgreSQL.

    With TWELVEDATA_API_KEY set and no --replay it fetches from the real API. Run it again on the same state and it
    is an incremental tick. Exits 1 when the hops do not reconcile.
    """
    from local.demo import run_demo

    names = parse_symbols(symbols) if symbols else None
    serving = (lambda run: page_of(run, port=port)) if serve or live else None
    balanced = run_demo(
        names,
        days=days,
        replay=replay,
        state=state,
        as_json=as_json,
        serving=serving,
        speed=speed if live else None,
        say=say,
    )
    raise typer.Exit(0 if balanced else 1)


@app.command(epilog='Example:  barflow sql "select * from market.latest_trend" --format csv')
def sql(
    query: Annotated[str, typer.Argument(help="One statement; it runs read-only.")],
    state: State = None,
    format_: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:  # fmt: skip
    """Run one read-only query on the warehouse."""
    from barflow.cli.terminal import show_rows
    from barflow.warehouse.connection import query_read_only

    if format_ not in ("table", "csv", "json"):
        raise BadInputError(f"--format {format_}: choose table, csv or json")
    with opened(state, mongo=False) as run:
        columns, rows = query_read_only(run.warehouse_dsn, query)
    show_rows(columns, rows, format_)


@app.command(epilog="Example:  barflow ingest --symbols AAPL,MSFT --json")
def ingest(symbols: Symbols = None, state: State = None, as_json: Json = False) -> None:
    """Fetch, validate and stage: one tick, from the newest stored bar less the revision window.

    On a deployed environment (BARFLOW_ENV) its metrics go to CloudWatch, as those of the ingest function do.
    """
    from barflow.cli.terminal import show_tick, ticking
    from barflow.operations import cloudwatch as metrics
    from barflow.operations.ticks import run_tick
    from barflow.pipeline.stores import raise_refusals

    with opened(state, postgres=False, api=True) as run:
        names = parse_symbols(symbols) if symbols else run.settings.symbols
        counted: list[metrics.MetricSet] = []
        try:
            with ticking("ingest", len(names)) as advance:
                report = run_tick(run, names, say, counted.append, on_symbol=lambda _: advance(1))
        finally:
            if run.settings.env != "local" and counted and (problem := metrics.put(counted, run.clock())):
                say(f"warning: {problem}")
        show_tick(report, as_json)
    raise_refusals(report)


@app.command(epilog="Example:  barflow process --full --symbols AAPL")
def process(
    symbols: Symbols = None,
    full: Annotated[bool, typer.Option(help="Write every partition, not only the changed ones.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Write the changed partitions of the lake from MongoDB, with Spark."""
    with opened(state, postgres=False) as run:
        result = run.program("spark/bars_to_parquet.py", say, *spark_arguments(symbols, full))
    show_result(result, as_json)


@app.command(epilog="Example:  barflow aggregate")
def aggregate(
    symbols: Symbols = None,
    full: Annotated[bool, typer.Option(help="Load every partition again, not only what was published since.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Aggregate what process published, and load it into the warehouse, with Spark."""
    with opened(state, mongo=False) as run:
        run.migrate(say)
        result = run.program("glue/aggregate_bars.py", say, *spark_arguments(symbols, full))
    show_result(result, as_json)


def spark_arguments(symbols: str | None, full: bool) -> list[str]:
    return [*(["--symbols", ",".join(parse_symbols(symbols))] if symbols else []), *(["--full"] if full else [])]


@app.command(epilog="Example:  barflow backfill --symbols AAPL --start 2025-01-02 --end 2025-06-30 --plan")
def backfill(
    start: Annotated[str, typer.Option(help="First day, 2025-01-02.")],
    end: Annotated[str, typer.Option(help="Last day, included.")],
    symbols: Symbols = None,
    plan: Annotated[bool, typer.Option(help="Only print calls, credits, minutes and finish time.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Fetch past data. Sessions that are stored whole are not asked for again, so it can be stopped and repeated."""
    from barflow.cli.terminal import show_tick, ticking
    from barflow.pipeline.stores import plan_backfill, raise_refusals

    first, last = parse_day(start, "--start"), parse_day(end, "--end")
    if plan:
        settings = load_settings()
        names = parse_symbols(symbols) if symbols else settings.symbols
        planned = plan_backfill(settings, names, first, last)
        print_json(planned.to_json()) if as_json else out.print(planned.describe(), markup=False)
        return
    with opened(state, postgres=False, api=True) as run:
        names = parse_symbols(symbols) if symbols else run.settings.symbols
        planned = plan_backfill(run.settings, names, first, last, run.clock())
        with ticking("backfill", len(planned.chunks) * len(names)) as advance:
            report = run.backfill(names, first, last, say, advance)
        show_tick(report, as_json)
    raise_refusals(report)


def parse_day(text: str, option: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007
    except ValueError:
        raise BadInputError(f"{option} {text}: give a day as 2025-01-02") from None


@app.command(epilog="Example:  barflow status --json")
def status(state: State = None, as_json: Json = False) -> None:
    """Compare the hops end to end: newest bar, counts, gaps, rejected, freshness. Exits 1 if a guarantee is broken."""
    from barflow.alerts.outbox import Outbox
    from barflow.cli.terminal import show_status, status_json

    with opened(state) as run:
        seen = run.status(), run.last_runs(), run.clock(), Outbox(run.database).undelivered_age()
    if as_json:
        print_json(status_json(*seen))
    else:
        show_status(*seen)
    raise typer.Exit(1 if any(item.broken for item in seen[0].values()) else 0)


@app.command(epilog="Example:  barflow migrate --dry-run")
def migrate(
    dry_run: Annotated[bool, typer.Option(help="Only list what would be applied.")] = False, state: State = None
) -> None:
    """Bring the warehouse's schema up to date."""
    with opened(state, mongo=False) as run:
        names = run.migrate(say, dry_run=dry_run)
    verb = "would apply" if dry_run else "applied"
    out.print("\n".join(f"{verb} {name}" for name in names) or "the schema is up to date", markup=False)


@app.command(epilog="Example:  barflow export --symbol AAPL --start 2025-07-02 --end 2025-07-30 --to aapl.csv")
def export(
    symbol: Annotated[str, typer.Option(help="One symbol.")],
    start: Annotated[str, typer.Option(help="First day, 2025-07-02.")],
    end: Annotated[str, typer.Option(help="Last day, included.")],
    to: Annotated[Path, typer.Option(help="The file to write: .csv or .parquet.")],
    force: Annotated[bool, typer.Option(help="Replace the file when it exists.")] = False,
    state: State = None,
) -> None:
    """Write 5-minute bars out of the archive to a file, for research."""
    from barflow.lake.athena import open_archive
    from barflow.lake.export import export_bars

    first, last = parse_day(start, "--start"), parse_day(end, "--end")
    name = parse_symbols(symbol)[0]
    with opened(state, mongo=False, postgres=False) as run:
        rows = export_bars(open_archive(run.settings), name, first, last, to, force=force)
    out.print(f"{to}: {rows} bars of {name}, {first} to {last}", markup=False)


app.command(epilog="Example:  barflow runbook --env dev --outputs cdk-outputs.json")(cli_operations.runbook)
app.command(epilog="Example:  barflow run --env dev")(cli_operations.run)
app.command(epilog="Example:  barflow cost --env prod --symbols 500 --runs 7")(cli_operations.cost)


if __name__ == "__main__":
    main()
