"""Output of the commands: tables and progress bars for a terminal, JSON and CSV for scripts."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from barflow.cli.common import PlainConsole, print_json
from barflow.errors import BadInputError
from barflow.market.sessions import new_york, session_at
from barflow.pipeline.ingest_report import Counts, IngestReport
from barflow.pipeline.status import SymbolStatus, is_fresh
from barflow.text import visible

MAX_WIDTH = 1_000_000
OK, BAD = Text("✓", style="green"), Text("✗", style="red")
WAIT, SKIPPED = Text("…", style="yellow"), Text("–", style="dim")


def console() -> Console:
    """Return a console on stdout: as wide as the terminal, or 160 columns in a pipe, so that a row stays one line."""
    return PlainConsole(highlight=False, width=None if sys.stdout.isatty() else 160)


class PlainTable(Table):
    """A table whose cells are one line of plain text each. A cell that is a rich Text stays as it is."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row. Control characters of a text are shown, line ends included."""
        super().add_row(*(visible(item) if isinstance(item, str) else item for item in cells), **options)


@contextmanager
def ticking(what: str, total: int, *, after: float = 0) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of symbols on stderr, if that is a terminal. Yield the function that advances it.

    The bar appears when it advances after so many seconds.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("symbols"),
        TimeElapsedColumn(),
    )
    terminal = PlainConsole(stderr=True)
    progress = Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal)
    task = progress.add_task(visible(what), total=total)
    begun = time.monotonic()

    def advance(count: int) -> None:
        progress.advance(task, count)
        if time.monotonic() - begun >= after:
            progress.start()

    try:
        if not after:
            progress.start()
        yield advance
    finally:
        progress.stop()


def table(title: str, columns: Sequence[str], left: int = 1) -> PlainTable:
    """Return an empty table. The first ``left`` columns are aligned left and never wrapped, the others right."""
    shown = visible(title) or None
    made = PlainTable(title=shown, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        made.add_column(visible(name), justify="left" if index < left else "right", no_wrap=index < left)
    return made


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], style: str) -> None:
    """Print a query's rows as a table, as CSV or as JSON (an array of objects)."""
    if style == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        # A file gets the exact text, a terminal no control character.
        shown_on_terminal = sys.stdout.isatty()
        for row in (columns, *rows):
            writer.writerow([visible(cell) if shown_on_terminal and isinstance(cell, str) else cell for cell in row])
    elif style == "json":
        if len(set(columns)) < len(columns):
            raise BadInputError("two columns have the same name: name one of them with AS, or choose --format csv")
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        shown = table("", columns, left=len(columns))
        for row in rows:
            shown.add_row(*map(cell, row))
        out = console()
        if not sys.stdout.isatty():  # a pipe gets every character
            out.width = max(out.width, out.measure(shown, options=out.options.update(max_width=MAX_WIDTH)).maximum)
        out.print(shown)
        out.print(f"({len(rows)} rows)" if len(rows) != 1 else "(1 row)")


def cell(value: Any) -> str:
    """Return a value for a table: numbers to eight digits, times to the second. CSV and JSON keep every digit."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.8g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S%z}"
    if isinstance(value, timedelta):
        return str(value - timedelta(microseconds=value.microseconds))
    return str(value)


def show_tick(report: IngestReport, as_json: bool) -> None:
    """Print what a tick or backfill did, per symbol."""
    if as_json:
        print_json(report.to_json())
        return
    names = tuple(vars(Counts()))
    shown = table(f"run {report.run_id}", ("symbol", *names))
    for symbol, counts in report.counts.items():
        shown.add_row(symbol, *(f"{getattr(counts, name):,}" for name in names))
    if len(report.counts) != 1:
        shown.add_row("all", *(f"{getattr(report.total, name):,}" for name in names), style="bold")
    console().print(shown)
    for symbol, notes in report.notes.items():
        for note in notes:
            console().print(f"{symbol}: {note}", style="yellow")


def status_json(
    found: Mapping[str, SymbolStatus], runs: Mapping[str, Any], now: datetime, undelivered: float
) -> dict[str, Any]:
    """Return the reconciliation as a JSON object.

    Args:
        found: The status of each symbol.
        runs: The last run of each hop.
        now: The market's clock, UTC.
        undelivered: The age in seconds of the oldest alert that a channel has not taken, 0 without one.
    """
    return {
        "as_of": now.isoformat(),
        "market_open": session_at(now) is not None,
        "balanced": not any(item.broken or item.pending for item in found.values()),
        "broken": any(item.broken for item in found.values()),
        "differing": any(item.differing for item in found.values()),
        "symbols": {symbol: {**item.to_json(), "fresh": is_fresh(item, now)} for symbol, item in found.items()},
        "runs": runs,
        "undelivered_alert_seconds": round(undelivered),
    }


def show_status(found: Mapping[str, SymbolStatus], runs: Mapping[str, Any], now: datetime, undelivered: float) -> None:
    """Print the reconciliation: one line per symbol, then what needs attention. Arguments as in status_json."""
    out = console()
    market = "open" if session_at(now) else "closed"
    out.print(f"as of {new_york(now):%Y-%m-%d %H:%M} New York, market {market}")
    if not found:
        out.print("nothing is stored yet: run `barflow ingest`, or `barflow demo` for the whole flow")
        return
    shown = table(
        "",
        (
            "symbol",
            "newest bar (New York)",
            "staged",
            "Parquet",
            "warehouse",
            "missing",
            "rejected",
            "pending",
            "vendor bps",
            "",
        ),
        2,
    )
    for item in found.values():
        newest = f"{new_york(item.newest_staged):%Y-%m-%d %H:%M}" if item.newest_staged else "none"
        bar = Text.assemble(newest, ("" if is_fresh(item, now) else " stale", "yellow"))
        mark = BAD if item.broken or item.differing else WAIT if item.pending else OK
        numbers = (item.staged, item.parquet, item.warehouse, item.missing_bars, item.rejected, item.pending)
        worst = f"{abs(item.vendor_day['worst_bps']):.1f}" if item.vendor_day else ""
        shown.add_row(item.symbol, bar, *(f"{number:,}" for number in numbers), worst, mark)
    out.print(shown)
    for item in found.values():
        for line in item.broken[:5]:
            out.print(f"{item.symbol} {line}", style="red")
        for line in item.gaps[:3]:
            out.print(f"{item.symbol} gap {line}", style="yellow")
        if item.ended:
            out.print(f"{item.symbol} expects no newer bars: {item.ended}")
        for line in item.differing:
            out.print(f"{item.symbol} {line}", style="red")
    if any(item.broken for item in found.values()):
        out.print("a guarantee is broken: run `barflow process --full`, then `barflow aggregate`")
    elif any(item.pending for item in found.values()):
        out.print("the next `barflow process` and `barflow aggregate` load the pending sessions")
    if any(item.differing for item in found.values()):
        out.print("a session differs from Twelve Data's daily bar: `barflow backfill --again` fetches its bars again")
    if undelivered:
        out.print(
            f"an alert has waited for {undelivered / 60:.0f} min: "
            "`barflow alerts list --undelivered` shows its channel and the last error",
            style="yellow",
        )
    for hop, run in runs.items():
        if run:
            error = f": {run['error']}" if run.get("error") else ""
            out.print(f"last {hop}: {run['outcome']} at {run['started_at'][:16]} UTC{error}")


def show_rejected(documents: Sequence[Mapping[str, Any]]) -> None:
    """Print quarantined bars as a table."""
    if not documents:
        console().print("nothing is in quarantine")
        return
    shown = table("", ("id", "symbol", "reasons", "bar", "seen at (UTC)", "times"), 5)
    for item in documents:
        payload = item["payload"]
        bar = payload.get("datetime", "") if isinstance(payload, dict) else payload
        seen = f"{item['seen_at']:%Y-%m-%d %H:%M}"
        found = (item["_id"][:8], item["symbol"], ", ".join(item["reasons"]), str(bar), seen, str(item["times"]))
        shown.add_row(*found)
    console().print(shown)
    console().print("`barflow rejected show ID` prints the payload; `barflow rejected replay` validates them again")
