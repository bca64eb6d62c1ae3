"""The console command `barflow`: parse options, call the library once, print the result.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 bad input, 3 refused by
Twelve Data.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from barflow import __version__
from barflow.cli.actions import actions_app
from barflow.cli.alerts import alerts_app
from barflow.cli.backfill import EXAMPLES as BACKFILL_EXAMPLES
from barflow.cli.backfill import backfill
from barflow.cli.backtest import EXAMPLES as BACKTEST_EXAMPLES
from barflow.cli.backtest import backtest
from barflow.cli.common import (
    Env,
    Json,
    LineageParent,
    State,
    Symbols,
    given_symbols,
    log,
    opened,
    out,
    present_symbols,
    print_json,
    show_result,
)
from barflow.cli.doctor import doctor
from barflow.cli.export import EXAMPLES as EXPORT_EXAMPLES
from barflow.cli.export import export
from barflow.cli.rejected import rejected_app
from barflow.cli.rooms import room_commands
from barflow.cli.streams import accept_every_character
from barflow.cli.verify import compare, verify
from barflow.cli.why import why
from barflow.errors import BadInputError, BarflowError
from barflow.settings import Settings, load_settings

# The help lists commands in this order: the pipeline, its results, the deployment. Others follow by name.
ORDER = (
    *("demo", "ingest", "process", "aggregate", "backfill", "status", "compare", "rejected"),
    *("sql", "export", "why", "actions", "alerts", "dashboard"),
    *("doctor", "migrate", "run", "preflight", "verify", "runbook", "cost"),
)
# Exit codes after Ctrl-C (set by Typer) and after SIGTERM.
STOPPED = (130, 143)


class CommandGroup(TyperGroup):
    """Barflow's own commands and those of other rooms. The latter are imported when the first of them is needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands in the order of the help."""
        self._add_room_commands()
        return sorted(self.commands, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name, or None."""
        if cmd_name not in self.commands:
            self._add_room_commands()
        return self.commands.get(cmd_name)

    def _add_room_commands(self) -> None:
        self.commands.update(room_commands())


app = typer.Typer(
    name="barflow",
    cls=CommandGroup,
    help="Stock bars from Twelve Data to MongoDB, Parquet and PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(rejected_app, name="rejected")
app.add_typer(actions_app, name="actions")
alerts_app.command(epilog=BACKTEST_EXAMPLES)(backtest)
app.add_typer(alerts_app, name="alerts")
app.command(epilog="\b\nExamples:\n  barflow doctor\n  barflow doctor --no-vendor --json")(doctor)
app.command(epilog=BACKFILL_EXAMPLES)(backfill)
app.command(epilog=EXPORT_EXAMPLES)(export)
app.command(epilog="Example:  barflow compare --session 2025-07-02")(compare)
app.command(epilog='Example:  barflow why AAPL "2025-07-02 10:35"')(why)
app.command(epilog="Example:  barflow verify --env dev --only tick,rows")(verify)


def main() -> None:
    """Run the command line. Print every error in one line and exit with the code of its kind."""
    accept_every_character()
    if region := os.environ.get(
        "AWS_REGION"
    ):  # boto3 reads only the other variable, the CDK and AWS's CLI this one first
        os.environ["AWS_DEFAULT_REGION"] = region
    try:
        app()
    except BarflowError as error:
        _stop(error, error.exit_code)
    except BrokenPipeError:  # `barflow … | head`
        os._exit(0)
    except SystemExit as end:
        if end.code in STOPPED:
            log("stopped. What was stored is kept. Run the same command again to resume.")
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        what_next = "What was stored is kept. Free space or fix the permissions, then run the same command again."
        _stop(f"{error.strerror or error}{where}. {what_next}", 1)
    except Exception as error:
        if os.environ.get("BARFLOW_DEBUG"):
            log(traceback.format_exc())
        first = str(error).splitlines()[0] if str(error) else ""
        _stop(f"{type(error).__name__}: {first}. Set BARFLOW_DEBUG=1 to see where.", 1)


def _stop(error: object, code: int) -> None:
    log(f"error: {' '.join(str(error).splitlines())}")
    sys.exit(code)


def print_version(value: bool) -> None:
    """Print the version and exit, if the option is given."""
    if value:
        out.print(f"barflow {__version__}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Stock bars from Twelve Data to MongoDB, Parquet and PostgreSQL."""


@app.command(epilog='Example:  barflow sql "select * from market.latest_trend" --format csv')
def sql(
    query: Annotated[str, typer.Argument(help="One statement; it runs read-only.")],
    state: State = None,
    format_: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:  # fmt: skip
    """Run one read-only query on the warehouse."""
    from barflow.cli.terminal import show_rows
    from barflow.warehouse.queries import query_read_only

    if format_ not in ("table", "csv", "json"):
        raise BadInputError(f"--format {format_}: choose table, csv or json")
    with opened(state, mongo=False) as stores:
        columns, rows = query_read_only(stores.reader_dsn, query)
    show_rows(columns, rows, format_)


@app.command(epilog="Example:  barflow ingest --symbols AAPL,MSFT --json")
def ingest(
    symbols: Symbols = None, state: State = None, as_json: Json = False, lineage_parent: LineageParent = None
) -> None:
    """Fetch, validate and stage one tick.

    It starts before the newest stored session, by the revision window, to catch corrections. In a deployed
    environment (BARFLOW_ENV) it sends the tick's metrics to CloudWatch, as the ingest function does.
    """
    from barflow.cli.terminal import show_tick, ticking
    from barflow.operations import cloudwatch as metrics
    from barflow.operations.ticks import run_tick
    from barflow.pipeline.ingest_report import raise_errors
    from barflow.pipeline.lineage import parse_parent

    with opened(state, postgres=False, api=True) as stores:
        stores.lineage_parent = lineage_parent and parse_parent(lineage_parent)
        names = present_symbols(symbols, stores.settings)
        counted: list[metrics.MetricSet] = []
        try:
            with ticking("ingest", len(names)) as advance:
                report = run_tick(stores, names, log, counted.append, on_symbol=lambda _: advance(1))
        finally:
            if stores.settings.env != "local" and counted and (problem := metrics.put(counted, stores.clock())):
                log(f"warning: {problem}")
        show_tick(report, as_json)
    raise_errors(report)


@app.command(epilog="Example:  barflow process --full --symbols AAPL")
def process(
    symbols: Symbols = None,
    full: Annotated[bool, typer.Option(help="Write every partition, not only the changed ones.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Write the changed partitions of the lake, with Spark.

    It reads the staged sessions from MongoDB.
    """
    from barflow.pipeline.children import run_script

    with opened(state, postgres=False) as stores:
        result = run_script(stores, "spark/bars_to_parquet.py", log, *spark_arguments(symbols, full, stores.settings))
    show_result(result, as_json)


@app.command(epilog="Example:  barflow aggregate")
def aggregate(
    symbols: Symbols = None,
    full: Annotated[
        bool, typer.Option(help="Load every partition again, not only what process wrote since the last load.")
    ] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Aggregate what process wrote and load the warehouse.

    It runs on Spark, and first brings the warehouse's schema up to date.
    """
    from barflow.pipeline.children import run_script
    from barflow.warehouse.migrations import migrate

    with opened(state, mongo=False) as stores:
        migrate(stores.warehouse_dsn, log=log)
        result = run_script(stores, "glue/aggregate_bars.py", log, *spark_arguments(symbols, full, stores.settings))
    show_result(result, as_json)


def spark_arguments(symbols: str | None, full: bool, settings: Settings) -> list[str]:
    """Return the options of a Spark program for these symbols."""
    names = given_symbols(symbols, settings) if symbols else ()
    return [*(["--symbols", ",".join(names)] if names else []), *(["--full"] if full else [])]


@app.command(epilog="Example:  barflow status --full --json")
def status(
    full: Annotated[bool, typer.Option(help="Count every session, not only new and changed ones.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Compare the bars at every hop.

    It shows newest bars, counts, gaps, rejected bars and freshness, and how far the newest session is from Twelve
    Data's daily bar. It exits 1 if a guarantee is broken, or a session differs from that bar by more than a threshold.
    It counts the newest 20 sessions of each symbol and those that changed. It counts every session with --full, or if
    nothing has compared every session within a day.
    """
    from barflow.alerts.outbox import Outbox
    from barflow.cli.terminal import show_status, status_json
    from barflow.pipeline.reconciliation import examine, last_runs

    with opened(state) as stores:
        checked = examine(stores, full=full)
        found = checked.found, last_runs(stores), stores.clock(), Outbox(stores.database).undelivered_age()
    if as_json:
        print_json({**status_json(*found), **checked.to_json()})
    else:
        show_status(*found)
        if checked.found:
            out.print(checked.describe())
    raise typer.Exit(1 if any(item.broken or item.differing for item in checked.found.values()) else 0)


@app.command(epilog="Example:  barflow migrate --dry-run")
def migrate(
    dry_run: Annotated[bool, typer.Option(help="Only list the migrations that would run.")] = False, state: State = None
) -> None:
    """Bring the stores up to date with this release.

    It changes the warehouse's schema, and adds known_from to the sessions that an earlier release staged. known_from
    of a bar is then the time at which its session was first stored, or of a revised bar, that of the session's newest
    answer. With BARFLOW_WAREHOUSE_DSN and without BARFLOW_MONGODB_URI, only the warehouse changes.
    """
    from barflow.staging.known_from import add_known_from, count_without
    from barflow.text import counted
    from barflow.warehouse import migrations

    settings = load_settings()
    mongo = settings.mongodb_uri is not None or settings.warehouse_dsn is None
    with opened(state, mongo=mongo) as stores:
        apply = migrations.pending if dry_run else migrations.migrate
        names = apply(stores.warehouse_dsn)
        sessions = (count_without if dry_run else add_known_from)(stores.database) if mongo else 0
    verb = "would apply" if dry_run else "applied"
    done = [f"{verb} {name}" for name in names]
    if sessions:
        verb = "would give" if dry_run else "gave"
        done.append(f"{verb} {counted(sessions, 'staged session')} the times at which the bars became known")
    out.print("\n".join(done) or "the warehouse and the staged sessions are up to date")


@app.command(epilog="Example:  barflow run --env dev")
def run(env: Env, as_json: Json = False) -> None:
    """Process and aggregate once on AWS.

    It starts a cluster, runs the Spark step, ends the cluster, and runs the Glue job and the crawlers. The cluster
    takes 6 to 9 minutes to start.
    """
    import time

    from barflow.operations.cluster_run import Clients, run_once
    from barflow.operations.deployment import read_contract

    contract = read_contract(env)
    result = run_once(contract, Clients.of(contract.region), log, time.sleep)
    print_json(result) if as_json else out.print(f"{result['run_id']}: {result['outcome']}")


if __name__ == "__main__":
    main()
