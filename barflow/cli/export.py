"""The command `barflow export`: write bars of the archive to a file or a folder, for research."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from barflow.cli.common import Json, State, log, opened, out, parse_day, present_symbols, print_json
from barflow.errors import BadInputError
from barflow.lake.export_manifest import moment_text
from barflow.market.sessions import parse_moment, utc_now
from barflow.settings import Settings
from barflow.symbol import read_watch_list
from barflow.text import counted

EXAMPLES = (
    "\b\nExamples:\n"
    "  barflow export --symbols AAPL,MSFT --start 2025-07-02 --end 2025-07-30 --to bars.csv\n"
    "  barflow export --watchlist tech.txt --start 2025-01-02 --end 2025-06-30 --interval 1d --adjust all --to tech/\n"
    "  barflow export --symbols NVDA --start 2024-05-01 --end 2024-06-28 --as-of 2024-06-28T21:00Z --to nvda.parquet"
)
# A progress bar appears only for an export that takes longer.
SECONDS_WITHOUT_PROGRESS = 2
# The most symbols whose actions and gaps are listed line by line. The manifest has those of all.
LISTED = 5
Choice = TypeVar("Choice", bound=str)


def export(
    start: Annotated[str, typer.Option(help="First day, such as 2025-07-02.")],
    end: Annotated[str, typer.Option(help="Last day, included.")],
    to: Annotated[str, typer.Option(help="A .csv or .parquet file for all symbols, or FOLDER/ with a file for each.")],
    symbols: Annotated[
        str | None,
        typer.Option(
            "--symbols",
            "--symbol",
            help="Symbols, comma separated: AAPL,MSFT, or a list of the alert rules: @megacaps (default: "
            "BARFLOW_SYMBOLS).",
        ),
    ] = None,
    watchlist: Annotated[
        Path | None, typer.Option(help="A text file with a symbol per line, instead of --symbols. # starts a comment.")
    ] = None,
    interval: Annotated[str, typer.Option(help="5min, 15min, 30min, 1h, 1d or 1w.")] = "5min",
    adjust: Annotated[
        str, typer.Option(help="none (as stored), splits, or all (splits and dividends); see barflow actions.")
    ] = "none",
    as_of: Annotated[
        str | None, typer.Option(help="Only what was known at this moment, such as 2026-11-24T15:00Z (default: now).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that exists.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Write bars of the archive to a file or folder, for research.

    A manifest beside the data states what the export holds, as of when, and what is missing. Exports with the same
    --as-of are the same byte for byte if the archive was complete until that moment.
    """
    from barflow.cli.terminal import ticking
    from barflow.lake.actions import find_actions
    from barflow.lake.athena import open_archive
    from barflow.lake.export import export as write
    from barflow.lake.intervals import INTERVALS
    from barflow.lake.query import Query
    from barflow.lake.targets import Target
    from barflow.market.actions import ADJUSTS

    target = Target.of(to, force=force)
    first, last = parse_day(start, "--start"), parse_day(end, "--end")
    if last < first:
        raise BadInputError(f"--end {end} is before --start {start}")
    chosen, stated = _choice("--interval", interval, INTERVALS), _choice("--adjust", adjust, ADJUSTS)
    moment = _moment(as_of) if as_of else None
    with opened(state, mongo=False, postgres=False) as stores:
        names, lake = _symbols(symbols, watchlist, stores.settings), open_archive(stores.settings)
        moment = moment or _milliseconds(utc_now())  # bars become known by this clock, not by a replayed market's
        query = Query(first, last, chosen, stated, moment)
        complete_until = lake.complete_until()  # before the files are read: process may publish meanwhile
        with ticking("export", len(names), after=SECONDS_WITHOUT_PROGRESS) as advance:
            manifest = write(lake, names, query, target, instruments=stores.instruments, on_symbol=lambda _: advance(1))
        unknown = [] if stated == "none" else [name for name in names if "split" not in find_actions(lake, name).kinds]
    _log(manifest)
    if unknown:
        log(
            f"the archive does not know the splits of {_some(unknown)}, so these prices are as stored. Fetch them with "
            "`barflow actions refresh` and run `barflow process`"
        )
    _log_completeness(complete_until, moment)
    shown = str(target.manifest_of(Path(to)))
    if as_json:
        repeatable = complete_until is not None and moment <= complete_until
        print_json({"to": to, "manifest": shown, "repeatable": repeatable, **manifest})
        return
    what = names[0] if len(names) == 1 else counted(len(names), "symbol")
    out.print(f"{to}: {manifest['rows']:,} bars of {what}, {first} to {last}")
    out.print(f"as of {manifest['as_of']}; what it holds is in {shown}")


def _choice(option: str, given: str, choices: Sequence[Choice]) -> Choice:
    """Return the choice that an option names. Raise BadInputError for another text."""
    found = next((item for item in choices if item == given), None)
    if found is None:
        raise BadInputError(f"{option} {given}: choose {', '.join(map(str, choices))}")
    return found


def _moment(given: str) -> datetime:
    """Return the moment that --as-of names (UTC). Raise BadInputError for a text without an offset."""
    try:
        return parse_moment(given)
    except BadInputError as error:
        raise BadInputError(f"--as-of: {error}") from None


def _milliseconds(moment: datetime) -> datetime:
    """Return a moment in whole milliseconds, like the times at which bars became known."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _symbols(given: str | None, watchlist: Path | None, settings: Settings) -> tuple[str, ...]:
    """Return the present symbols to export. Raise BadInputError if both options are given."""
    if given and watchlist:
        raise BadInputError("--symbols and --watchlist exclude each other: give one of them")
    return present_symbols(",".join(read_watch_list(watchlist)) if watchlist else given, settings)


def _log(manifest: Mapping[str, Any]) -> None:
    """Log what a reader of the export must know: the actions applied, what is missing, and what may still arrive."""
    for describe in (_adjusted, _without_bars, _incomplete):
        lines = [line for holding in manifest["symbols"] if (line := describe(holding))]
        for line in lines[:LISTED]:
            log(line)
        if len(lines) > LISTED:
            log(f"… and {counted(len(lines) - LISTED, 'more symbol')}: the manifest lists them")


def _log_completeness(complete_until: datetime | None, as_of: datetime) -> None:
    """Log whether bars that were asked for before the moment of the export may still arrive."""
    if complete_until is None:
        log("the archive does not state until when it is complete. Run `barflow process`, then export again")
    elif complete_until < as_of:
        complete = moment_text(complete_until)
        log(
            f"the archive is complete until {complete}. Answers that were asked for later may still arrive. "
            f"For an export that you can repeat, use --as-of {complete}"
        )


def _adjusted(holding: Mapping[str, Any]) -> str:
    actions = [
        f"{item['kind']} {item.get('ratio', item.get('amount')):g} on {item['ex_date']} ({item['source']})"
        for item in holding["actions"]
    ]
    return f"{holding['symbol']} is adjusted for: {'; '.join(actions)}" if actions else ""


def _without_bars(holding: Mapping[str, Any]) -> str:
    gaps = holding["sessions_without_bars"]
    days = [f"{item['first']}" + (f" to {item['last']}" if item["sessions"] > 1 else "") for item in gaps]
    count = sum(item["sessions"] for item in gaps)
    return f"no bars of {holding['symbol']} in {counted(count, 'session')}: {_some(days)}" if gaps else ""


def _incomplete(holding: Mapping[str, Any]) -> str:
    gaps = holding["incomplete_sessions"]
    days = [f"{item['session_date']} ({item['bars']} of {item['due']})" for item in gaps]
    return f"bars of {holding['symbol']} are missing in {counted(len(gaps), 'session')}: {_some(days)}" if gaps else ""


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:LISTED]) + (" …" if len(texts) > LISTED else "")
