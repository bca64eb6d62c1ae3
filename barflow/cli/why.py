"""The command `barflow why`: everything about one bar, as a timeline or as one JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barflow.cli.common import Json, State, opened, print_json
from barflow.symbol import check_symbol
from barflow.text import counted

if TYPE_CHECKING:
    import psycopg
    from rich.console import Console

    from barflow.operations.why.collect import Sources
    from barflow.operations.why.story import BarAnswer, Fired, RejectedRow, Values, Version, Why
    from barflow.pipeline.stores import Stores

MOST_COLUMNS, MOST_CHARACTERS = 100, 400
# The daily metrics, in the lines in which they are shown.
METRICS = (
    ("prev_close", "return_1d", "gap_open", "range_pct"),
    ("realized_vol", "sma_5", "sma_20", "sma_50"),
    ("volatility_20", "rsi_14", "atr_14", "volume_ratio_20"),
)
# A moment (UTC) and what happened then, in lines.
Event = tuple[datetime, list[str]]


def why(
    symbol: Annotated[str, typer.Argument(help="The share's present or former symbol.")],
    time: Annotated[
        str, typer.Argument(help='A time within the bar: "2026-11-24 10:35" in New York, or 2026-11-24T15:35Z.')
    ],
    state: State = None,
    as_json: Json = False,
) -> None:
    """Show where a bar comes from and where it went.

    It shows each version with the answer that brought it, the file and the manifest, the load, the longer bars and
    metrics that contain it, its alerts on each channel, and the splits and dividends that adjust it. What a store no
    longer holds, or not yet, is named.
    """
    from barflow.operations.why.collect import why as collect
    from barflow.operations.why.moment import parse_time, slot_at

    check_symbol(symbol), slot_at(parse_time(time))  # before any store is opened
    with opened(state) as stores:
        found = collect(sources_of(stores), symbol, time)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        show(found)


def sources_of(stores: Stores) -> Sources:
    """Return the stores of a run as sources, each opened when it is first read."""
    from barflow.lake.athena import open_archive
    from barflow.operations.why.collect import Sources
    from barflow.warehouse.connection import connect

    def warehouse() -> AbstractContextManager[psycopg.Connection[Any]]:
        return connect(stores.reader_dsn, autocommit=True)

    settings = stores.settings
    return Sources(
        lambda: stores.database,
        lambda: open_archive(settings) if settings.lake_uri else None,
        warehouse,
        stores.instruments,
        stores.clock,
    )


def show(found: Why) -> None:
    """Print everything about a bar, at most ``MOST_COLUMNS`` wide, with times in UTC and New York."""
    from barflow.cli.terminal import console

    out = console()
    out.width = min(out.width, MOST_COLUMNS)
    name = f"{found.symbol}, {found.present_symbol} today" if found.present_symbol != found.symbol else found.symbol
    out.print(f"{name}: the bar of {both(found.bar_start)}, session {found.session_date}", style="bold")
    _print_events(out, found)
    for print_part in (_print_stores, _print_aggregates, _print_alerts, _print_actions, _print_missing):
        print_part(out, found)


def both(moment: datetime) -> str:
    """Return a moment in New York and UTC."""
    from barflow.market.sessions import new_york

    return f"{new_york(moment):%Y-%m-%d %H:%M} New York ({moment:%H:%M} UTC)"


def values_text(values: Values) -> str:
    """Return prices and volume in one line."""
    prices = "  ".join(f"{name} {getattr(values, name):.8g}" for name in ("open", "high", "low", "close"))
    return f"{prices}  volume {values.volume:,}"


def _print_events(out: Console, found: Why) -> None:
    from rich.table import Table
    from rich.text import Text

    from barflow.market.sessions import new_york
    from barflow.text import visible

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("UTC", "New York", ""):
        shown.add_column(title, no_wrap=bool(title))
    for moment, lines in sorted(_events(found), key=lambda event: event[0]):
        local = new_york(moment)
        clock = f"{local:%H:%M:%S}" if local.date() == moment.date() else f"{local:%m-%d %H:%M}"
        text = Text("\n".join(map(visible, lines)), overflow="fold")
        shown.add_row(f"{moment:%Y-%m-%d %H:%M:%S}", clock, text)
    out.print()
    out.print(shown)


def _events(found: Why) -> Iterator[Event]:
    """Yield what happened to a bar, in lines, each with its moment (UTC)."""
    from barflow.market.sessions import BAR

    yield found.bar_start, ["the bar opens"]
    yield found.bar_start + BAR, ["the bar closes"]
    answers = {item.revision: item for item in found.answers}
    for row in found.validation.rejected:
        yield row.seen_at, _rejected(row)
    for version in found.versions:
        answer = answers.get(version.revision)
        brought = [f"version {version.revision}", values_text(version)]
        yield version.known_from, [*(_asked(answer) if answer else ()), *brought]
        yield from _published(f"version {version.revision}", version)
    named = {name for version in found.versions for name in (version.manifest, version.load_id)}
    if found.published_at and found.manifest not in named:
        yield found.published_at, [f"the session is published again by {found.manifest}"]
    if found.loaded_at and found.load_id not in named:
        yield found.loaded_at, [f"the row is loaded again by {found.load_id}"]
    for alert in found.alerts:
        yield alert.created_at, [f"alert {alert.rule} ({alert.severity}): {alert.text}"]


def _asked(answer: BarAnswer) -> Iterator[str]:
    request = f"{counted(len(answer.symbols), 'symbol')}, {counted(answer.credits, 'credit')}"
    if answer.replayed:
        yield f"replay of the rejected row {answer.replayed[:8]}, asked for {answer.requested_at:%Y-%m-%d %H:%M:%S} UTC"
    yield f"answer of run {answer.run_id}"
    yield f"HTTP {answer.http_status}, {request}{f'; {answer.note}' if answer.note else ''}"
    yield from map(_json, answer.rows)


def _rejected(row: RejectedRow) -> list[str]:
    again = f", {row.times} times until {row.last_seen_at:%Y-%m-%d %H:%M} UTC" if row.times > 1 else ""
    replayed = f", replayed {row.replayed_at:%Y-%m-%d %H:%M} UTC" if row.replayed_at else ""
    return [
        f"rejected row {row.id[:8]} of run {row.run_id}",
        f"{', '.join(row.reasons)}{again}{replayed}",
        _json(row.payload),
    ]


def _published(what: str, version: Version) -> Iterator[Event]:
    if version.published_at:
        yield version.published_at, [f"{what} is published by {version.manifest}"]
    if version.loaded_at:
        yield version.loaded_at, [f"{what} is loaded by {version.load_id}"]


def _print_stores(out: Console, found: Why) -> None:
    _title(out, f"In the stores{'' if found.stored.agree else ': they differ'}", bad=not found.stored.agree)
    held = (("MongoDB", found.stored.staging), ("lake", found.stored.lake), ("warehouse", found.stored.warehouse))
    for name, values in held:
        out.print(f"  {name:<10} {values_text(values) if values else '–'}")
    facts = (("file", found.file), ("manifest", found.manifest), ("load", found.load_id))
    for name, fact in facts:
        out.print(f"  {name:<10} {fact or '–'}", soft_wrap=True)


def _print_aggregates(out: Console, found: Why) -> None:
    from barflow.cli.terminal import table
    from barflow.market.sessions import new_york

    if not found.aggregates:
        return
    _title(out, "In longer bars and metrics")
    names = ("open", "high", "low", "close", "volume", "vwap")
    shown = table("", ("bar", "opens (New York)", *names, "bars"), left=2)
    for name, row in found.aggregates.items():
        numbers = [f"{row[column]:,}" if column == "volume" else _number(row[column]) for column in names]
        opens = f"{new_york(row['bar_start']):%Y-%m-%d %H:%M}"
        shown.add_row(name, opens, *numbers, f"{row['bar_count']}/{row['expected_bars']}")
    out.print(shown)
    if metrics := found.daily_metrics:
        for line in METRICS:
            out.print("  " + "  ".join(f"{name} {_number(metrics[name])}" for name in line))


def _print_alerts(out: Console, found: Why) -> None:
    if not found.alerts:
        return
    _title(out, "Alerts")
    for alert in found.alerts:
        out.print(f"  {alert.id}")
        for line in _deliveries(alert):
            out.print(f"    {line}")


def _deliveries(alert: Fired) -> Iterator[str]:
    for name, state in alert.channels.items():
        tries = counted(state.attempts, "attempt")
        if state.delivered_at:
            yield f"{name}: delivered {both(state.delivered_at)}, {tries}"
        elif state.dropped_at:
            yield f"{name}: dropped {both(state.dropped_at)}, {tries}"
        elif state.muted_at:
            yield f"{name}: muted {both(state.muted_at)}, {tries}"
        else:
            following = f", next {both(state.next_at)}" if state.next_at else ""
            yield f"{name}: waits, {tries}{following}"
        if state.last_error:
            yield f"{name}: {state.last_error}"


def _print_actions(out: Console, found: Why) -> None:
    if not found.actions:
        return
    _title(out, "Adjusted for")
    for item in found.actions:
        out.print(f"  {item.ex_date}  {item.label} ({item.source}), known from {both(item.known_from)}")


def _print_missing(out: Console, found: Why) -> None:
    if not found.missing:
        return
    _title(out, "Missing")
    for line in found.missing:
        out.print(f"  {line}", style="yellow")


def _title(out: Console, text: str, *, bad: bool = False) -> None:
    out.print()
    out.print(text, style="bold red" if bad else "bold")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"


def _json(value: Any) -> str:
    """Return a received row in at most ``MOST_CHARACTERS``. A bar has about 120; --json prints all of any row."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
