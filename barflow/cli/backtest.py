"""The command `barflow alerts backtest`: run alert rules over past bars, and show what followed their alerts."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barflow.cli.alerts import RuleId, condition_text, event_json, only_rule, splits_to_test
from barflow.cli.common import Json, State, log, opened, parse_day, present_symbols, print_json
from barflow.errors import BadInputError, BarflowError
from barflow.settings import load_settings
from barflow.text import counted, visible

if TYPE_CHECKING:
    from rich.table import Table

    from barflow.alerts.rules import RuleBook
    from barflow.backtest.known_bars import KnownBars
    from barflow.backtest.result import Backtest
    from barflow.backtest.sources import Source, Splits
    from barflow.backtest.summary import Summary
    from barflow.market.recordings import Recording
    from barflow.pipeline.stores import Stores
    from barflow.settings import Settings

EXAMPLES = (
    "\b\nExamples:\n"
    "  barflow alerts backtest --symbols AAPL,MSFT --start 2025-01-02 --end 2025-06-30 --html report.html\n"
    "  barflow alerts backtest --rules my.toml --rule dip_in_trend --symbols @megacaps --json\n"
    "  barflow alerts backtest --symbols TSLA --start 2026-10-01 --as-known\n"
    "  barflow alerts backtest --replay bars.csv --actions splits.csv"
)
# A progress bar appears only for a backtest that takes longer.
SECONDS_WITHOUT_PROGRESS = 2
LISTED_NOTES = 5
NOT_MEASURED = "moved thresholds are not counted as known: leave --as-known out for them"


@dataclass(frozen=True)
class Job:
    """What to backtest: the rules on the bars of a source, from ``start`` until ``until`` (UTC).

    With ``known``, each moment sees what was known then, and the source has the bars that follow an alert.
    """

    book: RuleBook
    source: Source
    start: date | None
    until: datetime
    known: KnownBars | None = None


def backtest(
    rules: Annotated[
        Path | None, typer.Option(help="A rules file (default: BARFLOW_ALERTS_FILE, or else the rules of the package).")
    ] = None,
    rule: RuleId = None,
    symbols: Annotated[
        str | None,
        typer.Option(
            "--symbols",
            help="Symbols and watch lists of the rules file, comma separated: TSLA,@megacaps (default: "
            "BARFLOW_SYMBOLS, or all of the recording).",
        ),
    ] = None,
    start: Annotated[str | None, typer.Option(help="First day, such as 2025-01-02 (default: the first bar).")] = None,
    end: Annotated[str | None, typer.Option(help="Last day, included (default: the newest bar).")] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Recorded bars instead of the archive, as for `barflow alerts test`.")
    ] = None,
    actions: Annotated[
        Path | None, typer.Option(help="With --replay: a CSV file with the splits, as for `barflow actions import`.")
    ] = None,
    as_known: Annotated[
        bool, typer.Option("--as-known", help="Evaluate what was known at each moment, as the ticks did.")
    ] = False,
    adjust: Annotated[
        str, typer.Option(help="splits: compare prices in the shares of each session. none: compare them as stored.")
    ] = "splits",
    html: Annotated[Path | None, typer.Option(help="Write a report with charts to this file.")] = None,
    sensitivity: Annotated[
        bool,
        typer.Option(help="Count the alerts with each threshold moved by -20, -10, +10 and +20 %. It takes longer."),
    ] = True,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Run alert rules over past bars and show what followed.

    Nothing is sent. Returns and hit rates are in the direction of each alert, and compared with all bars of the same
    symbols at the same time of day. A backtest of the archive is listed on the page.
    """
    from barflow.alerts.rules_file import load_rules
    from barflow.backtest.report import write_report
    from barflow.market.recordings import Recording

    options = {
        "--rules": rules, "--rule": rule, "--symbols": symbols, "--start": start, "--end": end, "--replay": replay,
        "--actions": actions, "--adjust": None if adjust == "splits" else adjust, "--state": state,
    }  # fmt: skip
    command = (
        "barflow alerts backtest"
        + " --as-known" * as_known
        + "".join(f" {name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None)
    )
    if replay and (start or end):
        raise BadInputError("--replay and --start or --end: a recording is evaluated entirely. Give one of them")
    if replay and as_known:
        raise BadInputError("--replay and --as-known: a recording does not say when a bar was known. Give one of them")
    if as_known and adjust == "none":
        raise BadInputError("--as-known and --adjust none: the ticks compared by the splits that they knew")
    if actions and not replay:
        raise BadInputError("--actions is for --replay: the archive has its own splits, see `barflow actions list`")
    if adjust not in ("none", "splits"):
        raise BadInputError(f"--adjust {adjust}: choose none or splits")
    if html and not html.absolute().parent.is_dir():
        raise BadInputError(f"--html {html}: the folder {html.parent} does not exist")
    if html and html.is_dir():
        raise BadInputError(f"--html {html}: it is a folder. Name the file to write, such as report.html")
    settings = load_settings()
    book = only_rule(load_rules(rules, "--rules") if rules else load_rules(settings.alerts_file), rule)
    if replay:
        recording = Recording.load(replay)
        job = _recorded(book, recording, symbols, splits_to_test(adjust, actions, state, recording.symbols))
        summary, found = _run(job, command, replay.name, adjust, sensitivity=sensitivity)
    else:
        first, last = start and parse_day(start, "--start"), end and parse_day(end, "--end")
        if first and last and last < first:
            raise BadInputError(f"--end {end} is before --start {start}")
        # A lake without a MongoDB is enough, then the page does not list the backtest.
        mongo = bool(as_known or state or settings.mongodb_uri or not settings.lake_uri)
        with opened(state, mongo=mongo, postgres=False) as stores:
            names = _symbols(symbols, book, stores.settings)
            job = _archived(book, stores, names, (first or None, last or None), adjust, as_known)
            summary, found = _run(job, command, "the archive", adjust, sensitivity=sensitivity)
            _store(stores, summary)
    if as_json:
        print_json({"alerts": [event_json(event) for event in found.events], **summary.to_json()})
    else:
        _show(summary)
    if html:
        write_report(html, summary)
        log(f"the report is in {html}")


def _symbols(given: str | None, book: RuleBook, settings: Settings) -> tuple[str, ...]:
    """Return the present symbols of an option, watch lists included, or those of the settings."""
    if not given:
        return present_symbols(None, settings)
    names: list[str] = []
    for part in filter(None, (part.strip() for part in given.split(","))):
        if not part.startswith("@"):
            names.append(part)
        elif part[1:] in book.lists:
            names += book.lists[part[1:]]
        else:
            lists = ", ".join(f"@{name}" for name in book.lists)
            raise BadInputError(
                f"--symbols {part}: the rules file has no such list; {f'there are {lists}' if lists else 'it has none'}"
            )
    return present_symbols(",".join(names), settings)


def _recorded(book: RuleBook, recording: Recording, symbols: str | None, splits: Splits) -> Job:
    """Return the job on recorded bars. Raise BadInputError for a symbol that the recording does not have."""
    from barflow.backtest.sources import Held, from_recording

    source = from_recording(recording, splits, log)
    if symbols:
        wanted = _symbols(symbols, book, load_settings())
        if missing := [name for name in wanted if name not in source.series]:
            raise BadInputError(
                f"--symbols: the recording has no bars of {', '.join(missing)}; it has {', '.join(source.symbols)}"
            )
        source = Held({name: source.series[name] for name in wanted}, source.instruments)
    return Job(book, source, None, recording.as_of)


def _archived(
    book: RuleBook,
    stores: Stores,
    names: Sequence[str],
    days: tuple[date | None, date | None],
    adjust: str,
    as_known: bool,
) -> Job:
    """Return the job on the archive's bars. Raise BadInputError if it has none in the period."""
    from barflow.backtest.period import period
    from barflow.backtest.sources import from_lake
    from barflow.lake.athena import open_archive

    lake = open_archive(stores.settings)
    found = period(lake, stores.instruments, names, *days, stores.clock())
    source = from_lake(lake, names, book, (found.first, found.last), stores.instruments, adjust=adjust == "splits")
    known = None
    if as_known:
        from barflow.backtest.known_bars import KnownBars

        known = KnownBars(stores.database, lake, stores.instruments)
    return Job(book, source, days[0], found.until, known)


def _run(job: Job, command: str, of: str, adjust: str, *, sensitivity: bool) -> tuple[Summary, Backtest]:
    """Return the figures of a job, and its alerts. Raise BadInputError if no bar of the period is there."""
    from barflow.backtest.prices import Prices
    from barflow.backtest.run import run
    from barflow.backtest.statistics import statistics
    from barflow.backtest.summary import Summary
    from barflow.backtest.thresholds import Variants
    from barflow.cli.terminal import ticking
    from barflow.market.sessions import utc_now

    variants = Variants(job.book)
    measured = sensitivity and bool(variants) and not job.known
    with ticking("backtest", (2 + measured) * len(job.source.symbols), after=SECONDS_WITHOUT_PROGRESS) as advance:
        found = _evaluated(job, advance)
        if not found.bars:
            raise BadInputError(
                f"{of} has no bars of {', '.join(found.symbols)} from {found.first} to {found.last}. Nothing was "
                "evaluated. Choose other days or symbols"
            )
        counts: Counter[str] = Counter()
        if measured:
            again = run(variants.book, job.source, job.until, job.start, on_symbols=advance)
            counts.update(event.rule.id for event in again.events)
        prices = Prices(found.first, found.last, job.until, job.source.instruments)
        for symbol in job.source.symbols:
            prices.add(job.source.read(symbol))
            advance(1)
    moved = variants.sensitivity(counts) if measured else {}
    summary = Summary(
        created_at=utc_now(),
        command=visible(command),  # a path may hold bytes that are no text
        source=visible(of),
        first=found.first,
        last=found.last,
        sessions=len(prices.sessions),
        symbols=prices.symbols,
        bars=found.bars,
        adjust=adjust,
        as_known=job.known is not None,
        rules=tuple(statistics(found, job.book.all, prices, moved)),
        conditions={rule.id: condition_text(rule) for rule in job.book.all},
        notes=found.notes + ((NOT_MEASURED,) if sensitivity and job.known else ()),
    )
    return summary, found


def _evaluated(job: Job, advance: Callable[[int], None]) -> Backtest:
    """Return the alerts of a job, as known or by the bars of today."""
    from barflow.backtest.run import run
    from barflow.market.sessions import new_york

    if job.known is None:
        return run(job.book, job.source, job.until, job.start, on_symbols=advance)
    from barflow.backtest.as_known import as_known

    symbols = job.source.symbols
    first = job.start or min(day for symbol in symbols for day in job.source.read(symbol).days[:1])
    found = as_known(job.known, job.book, symbols, first, new_york(job.until).date())
    advance(len(symbols))
    return found


def _store(stores: Stores, summary: Summary) -> None:
    """Store the figures for the page, if there is a MongoDB. The result does not depend on it."""
    from barflow.backtest.stored import Backtests

    if not stores.settings.mongodb_uri:
        return
    try:
        Backtests(stores.database).add(summary)
    except BarflowError as error:
        log(f"the page does not list this backtest: {error}")


def _show(summary: Summary) -> None:
    """Print the figures of each rule, and what the reader must know."""
    from barflow.backtest.prices import HORIZONS
    from barflow.backtest.report import MAIN, change, count, rate, span
    from barflow.cli.terminal import console, table

    out = console()
    title = (
        f"{summary.first} to {summary.last}: {counted(summary.sessions, 'session')}, "
        f"{counted(len(summary.symbols), 'symbol')}, {counted(summary.bars, 'bar')} of {summary.source}"
    )
    columns = (
        *("rule", "alerts", f"return {HORIZONS[MAIN]}", "baseline", "hit rate", "95 %", "baseline"),
        *("a month", "in cool-down", "longest silence"),
    )
    shown = table(title, columns, 1)
    for item in summary.rules:
        found, silence = item.returns[MAIN], counted(item.longest_silence.sessions, "session")
        shown.add_row(
            *(item.rule, count(item.alerts), change(found.mean), change(found.baseline)),
            *(rate(found.hit_rate), span(found.hit_interval, rate), rate(found.baseline_hit_rate)),
            *(count(item.a_month), count(item.cooled_down), silence),
        )
    out.print(shown)
    if any(item.sensitivity for item in summary.rules):
        out.print(_moved(summary))
    for note in summary.notes[:LISTED_NOTES]:
        out.print(note, style="yellow")
    if len(summary.notes) > LISTED_NOTES:
        out.print(f"… and {counted(len(summary.notes) - LISTED_NOTES, 'more note')}: --json lists them", style="yellow")
    out.print(
        "Returns are means in the direction of each alert, without costs. The baseline is that of all bars of the "
        "same symbols at the same time of day. --html FILE writes the other returns and charts"
    )


def _moved(summary: Summary) -> Table:
    """Return the table of the alerts with each threshold moved."""
    from barflow.backtest.thresholds import MOVES
    from barflow.cli.terminal import table

    below, above = ([percent for percent in MOVES if (percent > 0) is up] for up in (False, True))
    names = (*(f"{percent:+d} %" for percent in below), "as it is", *(f"{percent:+d} %" for percent in above))
    shown = table("Alerts with a threshold moved", ("rule", "threshold", *names), 2)
    for item in summary.rules:
        for moved in item.sensitivity:
            name = moved.threshold if " " in moved.threshold else f"{moved.threshold} = {moved.value:g}"
            counts = {int(percent): alerts for percent, alerts in moved.counts.items()} | {0: item.alerts}
            shown.add_row(item.rule, name, *(f"{counts[percent]:,}" for percent in sorted(counts)))
    return shown
