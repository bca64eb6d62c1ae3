"""The demo: ingest, process, aggregate and reconcile on embedded services, then print and draw the result."""

from __future__ import annotations

import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from rich.text import Text

from barflow.alerts.rules_file import load_rules
from barflow.cli.common import print_json
from barflow.cli.terminal import BAD, OK, console, table, ticking
from barflow.errors import BadInputError
from barflow.market.recordings import Recording
from barflow.market.sessions import BAR, last_sessions, new_york, utc_now
from barflow.pipeline import ingest
from barflow.pipeline.ingest_report import IngestReport, raise_errors
from barflow.pipeline.reconciliation import collect
from barflow.pipeline.status import SymbolStatus
from barflow.pipeline.stores import Stores
from barflow.progress import Log
from barflow.settings import load_settings
from barflow.staging.actions import Actions, Known
from barflow.warehouse.migrations import migrate
from emulators.twelvedata.actions import ScriptedDividend, ScriptedSplit
from emulators.twelvedata.script import NO_SCRIPT, MarketScript
from local.embedded import DEFAULT_STATE, embedded, source_of
from local.hops import standby
from local.live import LiveClock, keep_ticking, live_start
from local.report.page import read_report_data, write_report
from local.state import State

DEFAULT_DAYS = 20
# How many sessions before the newest one a new synthetic market has its split and its dividend.
SPLIT_BACK, DIVIDEND_BACK = 8, 4
# Serves the analysts' page of a run; its context yields the URL.
Serving = Callable[[Stores], AbstractContextManager[str]]


@dataclass
class Outcome:
    """What a demo run counted, per symbol and in total."""

    state: State
    lake: str
    report: IngestReport
    status: dict[str, SymbolStatus]
    seconds: dict[str, float] = field(default_factory=dict)
    known: dict[str, Known] = field(default_factory=dict)  # the corporate actions, by symbol
    left_out: dict[str, int] = field(default_factory=dict)  # bars of a recording that were not received
    partial: bool = False  # whether --days leaves bars out on purpose

    @property
    def balanced(self) -> bool:
        """Return whether every hop of every symbol reconciles."""
        ticked = all(counts.balanced for counts in self.report.counts.values())
        ticked = ticked and (self.partial or not self.left_out)
        return ticked and bool(self.status) and not any(item.broken or item.pending for item in self.status.values())

    def to_json(self) -> dict[str, Any]:
        """Return the object that `barflow demo --json` prints."""
        symbols = {}
        for symbol, counts in self.report.counts.items():
            item = self.status.get(symbol, SymbolStatus(symbol))
            symbols[symbol] = {
                "received": counts.received,
                "stored": counts.new,
                "revised": counts.revised,
                "unchanged": counts.unchanged,
                "rejected": counts.rejected,
                "forming": counts.forming,
                "parquet_rows": item.parquet,
                **{name: item.rows[name] for name in ("bar_30min", "bar_1h", "bar_1d")},
            }
        return {
            "symbols": symbols,
            "left_out": self.left_out,
            "balanced": self.balanced,
            "seconds": self.seconds,
            "lake": self.lake,
            "state": str(self.state.path),
        }


def run_demo(
    symbols: Sequence[str] | None,
    *,
    days: int | None,
    replay: Path | None,
    state: Path | None,
    as_json: bool,
    serving: Serving | None,
    speed: float | None,
    log: Log,
) -> bool:
    """Run the demo and print its result. Return whether every hop reconciles.

    Args:
        symbols: The symbols to fetch, or None for those of the recording or the settings.
        days: Sessions of history on a first run; by default 20, or every session of the recording at each run.
        replay: A recording to replay, or None.
        state: The state folder, or None for the default one.
        as_json: Whether to print one JSON object instead of tables.
        serving: Serves the analysts' page until Ctrl-C, or None to end after the run.
        speed: Market minutes per minute while the page is served, or None for a market that does not move.
        log: Gets a line per step.
    """
    recording = Recording.load(replay) if replay else None
    opened = _open_state(replay, recording, state, speed is not None, _script(days or DEFAULT_DAYS), log)
    chosen = tuple(symbols or (recording.symbols if recording else load_settings().symbols))
    clock = _live_clock(opened, chosen) if speed else None
    history: dict[str, Any] = {"history_sessions": days or (recording.sessions if recording else DEFAULT_DAYS)}
    if recording and not days and not speed:
        history["revision_sessions"] = recording.sessions  # a file may have changed anywhere
    with embedded(opened, log, api=True, clock=clock, **history) as stores:
        if clock:
            clock.now = max(clock.now, _stored_until(stores))
        outcome = _flow(stores, opened, chosen, log)
        if recording:
            outcome.partial = days is not None
            if "revision_sessions" in history or not outcome.report.total.unchanged:
                outcome.left_out = _left_out(recording, outcome.report, chosen, stores.clock())
        page = _report(stores, outcome)
        if as_json:
            print_json(outcome.to_json())
        else:
            _show(stores, outcome, page)
        if serving:
            with serving(stores) as url, suppress(KeyboardInterrupt):
                _log_addresses(url, log)
                if clock and speed:
                    _go_live(stores, clock, chosen, opened, speed, log=log)
                threading.Event().wait()
    raise_errors(outcome.report)
    return outcome.balanced


def _left_out(recording: Recording, report: IngestReport, symbols: Sequence[str], now: datetime) -> dict[str, int]:
    """Return by symbol how many bars of the recording a first tick at ``now`` (UTC) did not receive."""
    counts = report.counts
    missing = {
        symbol: recording.held(symbol, now) - (counts[symbol].received if symbol in counts else 0)
        for symbol in symbols
        if symbol not in report.errors
    }
    return {symbol: count for symbol, count in missing.items() if count > 0}


def _script(days: int) -> MarketScript:
    """Return what a synthetic market that starts today shows within its first ``days`` sessions."""
    sessions = last_sessions(utc_now(), DEFAULT_DAYS)
    split, dividend = (sessions[-1 - min(back, days // 2)].session_date for back in (SPLIT_BACK, DIVIDEND_BACK))
    return MarketScript({"NVDA": [ScriptedSplit(split, 10)]}, {"MSFT": [ScriptedDividend(dividend, 0.83)]})


def _open_state(
    replay: Path | None, recording: Recording | None, path: Path | None, live: bool, script: MarketScript, log: Log
) -> State:
    """Open the state for the source of bars. A new state of a synthetic market that stands still gets the script.

    Bars of two sources are never mixed. Where the default folder holds bars of another source, take a folder in it.
    Raise BadInputError if a folder that was named holds bars of another source.
    """
    source: dict[str, Any] = {"kind": "synthetic"}
    as_of: datetime | None = None
    if replay and recording:
        source = {"kind": "replay", "path": str(replay.resolve())}
        as_of = recording.as_of
        log(f"replaying {recording.describe}")
    elif load_settings().twelvedata_api_key:
        if live:
            raise BadInputError(
                "--live plays synthetic or recorded bars, and TWELVEDATA_API_KEY asks for the real ones. "
                "Nothing was started. Unset it, or leave --live out."
            )
        source = {"kind": "live"}
        log("TWELVEDATA_API_KEY is set: fetching from the real API")
    if live:
        source["live"] = True  # its sessions arrive bar by bar, so it has its own state
    chosen = path or DEFAULT_STATE
    held = State.source_at(chosen)
    if held not in (None, source) or (live and path is None):
        if path is not None:
            raise BadInputError(
                f"{path} holds {_name(held or {})} bars and cannot take {_name(source)} ones too. "
                f"Nothing was changed. Pass another folder with --state{_correction_hint(held or {}, source)}."
            )
        chosen = DEFAULT_STATE / "states" / re.sub(r"[^A-Za-z0-9]+", "-", _name(source)).strip("-")
        log(f"this run keeps its own {_name(source)} bars in {chosen}")
    return State.create(
        chosen, source=source, as_of=as_of, script=script if source == {"kind": "synthetic"} else NO_SCRIPT
    )


def _name(source: dict[str, Any]) -> str:
    name = f"replay of {Path(source['path']).stem}" if source.get("kind") == "replay" else str(source.get("kind"))
    return f"live {name}" if source.get("live") else name


def _correction_hint(held: dict[str, Any], source: dict[str, Any]) -> str:
    """Return what to do when the recording is a corrected copy of the one that the state holds."""
    if held.get("kind") != "replay" or source.get("kind") != "replay":
        return ""
    return f", or to replay corrections, put them into {shlex.quote(held['path'])} and replay that"


def _live_clock(state: State, symbols: tuple[str, ...]) -> LiveClock:
    source = source_of(state)
    assert source is not None, "--live refuses the real API"
    rules = load_rules(load_settings().alerts_file)
    return LiveClock(live_start(source, symbols, rules, state.as_of or utc_now()))


def _stored_until(stores: Stores) -> datetime:
    """Return the close of the newest bar that an earlier run of this demo stored."""
    newest = (item["last"] + BAR for item in stores.staging.counts())
    return max(newest, default=datetime.min.replace(tzinfo=UTC))


def _flow(stores: Stores, state: State, symbols: tuple[str, ...], log: Log) -> Outcome:
    with standby(stores) as run_hops:
        migrate(stores.warehouse_dsn, log=log)
        begun = time.monotonic()
        with ticking("ingest", len(symbols)) as advance:
            report = ingest.run(stores, symbols, log, on_symbol=lambda _: advance(1))
        seconds = {"ingest": round(time.monotonic() - begun, 2)}
        log(f"ingest done in {seconds['ingest']:.1f} s")
        if report.errors.keys() >= report.counts.keys():
            raise_errors(report)
        seconds |= run_hops(log)
    return Outcome(
        state, stores.settings.require("lake_uri"), report, collect(stores), seconds, Actions(stores.database).of()
    )


def _report(stores: Stores, outcome: Outcome) -> Path:
    page = outcome.state.path / "report.html"
    data = read_report_data(
        stores.reader_dsn, outcome.to_json(), outcome.status, stores.clock(), outcome.state.source, outcome.known
    )
    write_report(page, data)
    return page


def _show(stores: Stores, outcome: Outcome, page: Path) -> None:
    out = console()
    shown = table(
        f"{_name(outcome.state.source)} bars as of {new_york(stores.clock()):%Y-%m-%d %H:%M} New York",
        (
            "symbol",
            "received",
            "stored",
            "revised",
            "unchanged",
            "rejected",
            "forming",
            "Parquet",
            "30min",
            "1h",
            "1d",
            "",
        ),
    )
    for symbol, row in outcome.to_json()["symbols"].items():
        item = outcome.status.get(symbol)
        good = item and not item.broken and not item.pending and symbol not in outcome.report.errors
        mark = OK if good else BAD if row["received"] else ""
        shown.add_row(symbol, *(f"{value:,}" for value in row.values()), mark)
    out.print(shown)
    for symbol, count in outcome.left_out.items():
        why = "--days leaves them out" if outcome.partial else "the tick did not receive them"
        out.print(f"{symbol}: {count:,} bars of the recording are not stored: {why}", style="yellow")
    if outcome.report.errors:
        out.print(f"nothing is stored for {', '.join(outcome.report.errors)}: see the error below", style="red")
    elif outcome.balanced:
        out.print(
            Text("balanced", style="green"),
            ": received = stored + revised + unchanged + rejected + forming, and",
            sep="",
        )
        out.print("          staged bars = Parquet rows = the warehouse's bar_count, for every symbol and session")
    else:
        out.print("not balanced", style="red")
        for item in outcome.status.values():
            for line in item.broken:
                out.print(f"{item.symbol} {line}", style="red")
    _show_actions(outcome.known)
    command = quote(sys.argv[0]) if Path(sys.argv[0]).name == "barflow" else "barflow"
    at_default = outcome.state.path.resolve() == DEFAULT_STATE.resolve()
    flag = "" if at_default else f" --state {quote(str(outcome.state.path))}"
    out.print(f"report    {page}")
    out.print(f"query     {command} sql 'table market.latest_trend'{flag}")
    out.print(f"status    {command} status{flag}")
    out.print(f"page      {command} dashboard{flag}")


def _show_actions(known: Mapping[str, Known]) -> None:
    found = [item for symbol in known for item in known[symbol].actions]
    if found:
        shown = ", ".join(f"{item.symbol} {item.label} on {item.ex_date}" for item in found)
        console().print(f"actions   {shown}; charts are adjusted for splits", soft_wrap=True)


def _log_addresses(url: str, log: Log) -> None:
    log(f"the page  {url}  stays up until Ctrl-C; `barflow sql` and `barflow status` work meanwhile")
    log("services.json in the state folder has the addresses of MongoDB and PostgreSQL, with MongoDB's password")


def _go_live(
    stores: Stores, clock: LiveClock, symbols: tuple[str, ...], state: State, speed: float, *, log: Log
) -> None:
    """Tick at every bar. After each session, process and aggregate its bars."""
    end = state.as_of if state.source["kind"] == "replay" else None
    log(f"ticking from {new_york(clock.now):%A, %d %B %H:%M} New York, a bar every {300 / speed:.1f} s")

    def load() -> None:
        with standby(stores) as run_hops:
            run_hops(lambda _: None)

    keep_ticking(ingest.open_ingest(stores, log).tick, clock, symbols, end=end, speed=speed, at_close=load, log=log)
    log("the recording has ended; the page stays up. Remove the state folder to play it again")
