"""The demo: ingest, process, aggregate and reconcile on embedded services, then print and draw the result."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from rich.markup import escape

from barflow.alerts.rules import load_rules
from barflow.cli.common import print_json
from barflow.cli.terminal import BAD, OK, console, table, ticking
from barflow.errors import BadInputError
from barflow.market.recordings import Recording
from barflow.market.sessions import BAR, new_york, utc_now
from barflow.pipeline import ingest
from barflow.pipeline.children import run_script
from barflow.pipeline.ingest import IngestReport, raise_errors
from barflow.pipeline.status import SymbolStatus, collect
from barflow.pipeline.stores import Stores
from barflow.progress import Log
from barflow.settings import load_settings
from barflow.warehouse.migrations import migrate
from local.embedded import DEFAULT_STATE, embedded, source_of
from local.live import LiveClock, keep_ticking, live_start
from local.report.page import read_report_data, write_report
from local.state import State

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

    @property
    def balanced(self) -> bool:
        """Return whether every hop of every symbol reconciles."""
        ticked = all(counts.balanced for counts in self.report.counts.values())
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
            "balanced": self.balanced,
            "seconds": self.seconds,
            "lake": self.lake,
            "state": str(self.state.path),
        }


def run_demo(
    symbols: Sequence[str] | None,
    *,
    days: int,
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
        days: Sessions of history on a first run.
        replay: A recording to replay, or None.
        state: The state folder, or None for the default one.
        as_json: Whether to print one JSON object instead of tables.
        serving: Serves the analysts' page until Ctrl-C, or None to end after the run.
        speed: Market minutes per minute while the page is served, or None for a market that does not move.
        log: Gets a line per step.
    """
    opened, known = _open_state(replay, state, speed is not None, log)
    chosen = tuple(symbols or known or load_settings().symbols)
    clock = _live_clock(opened, chosen) if speed else None
    with embedded(opened, log, api=True, clock=clock, history_sessions=days) as stores:
        if clock:
            clock.now = max(clock.now, _stored_until(stores))
        outcome = _flow(stores, opened, chosen, log)
        page = _report(stores, outcome)
        if as_json:
            print_json(outcome.to_json())
        else:
            _show(stores, outcome, page)
        if serving:
            with serving(stores) as url, suppress(KeyboardInterrupt):
                _log_addresses(stores, url, log)
                if clock and speed:
                    _go_live(stores, clock, chosen, opened, speed, log=log)
                threading.Event().wait()
    raise_errors(outcome.report)
    return outcome.balanced


def _open_state(replay: Path | None, path: Path | None, live: bool, log: Log) -> tuple[State, tuple[str, ...]]:
    """Open the state for the source of bars. Return it with the symbols of a recording (else none).

    Bars of two sources are never mixed. Where the default folder holds bars of another source, take a folder in it.
    Raise BadInputError if a folder that was named holds bars of another source.
    """
    source: dict[str, Any] = {"kind": "synthetic"}
    as_of: datetime | None = None
    known: tuple[str, ...] = ()
    if replay is not None:
        recording = Recording.load(replay)
        source = {"kind": "replay", "path": str(replay.resolve())}
        as_of, known = recording.as_of, recording.symbols
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
                "Nothing was changed. Pass another folder with --state."
            )
        chosen = DEFAULT_STATE / "states" / re.sub(r"[^A-Za-z0-9]+", "-", _name(source)).strip("-")
        log(f"this run keeps its own {_name(source)} bars in {chosen}")
    return State.create(chosen, source=source, as_of=as_of), known


def _name(source: dict[str, Any]) -> str:
    name = f"replay of {Path(source['path']).stem}" if source.get("kind") == "replay" else str(source.get("kind"))
    return f"live {name}" if source.get("live") else name


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
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(hop: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        seconds[hop] = round(time.monotonic() - started, 2)
        log(f"{hop} done in {seconds[hop]:.1f} s")

    migrate(stores.warehouse_dsn, log=log)
    with timed("ingest"), ticking("ingest", len(symbols)) as advance:
        report = ingest.run(stores, symbols, log, on_symbol=lambda _: advance(1))
    if not report.counts:
        raise_errors(report)
    with timed("process"):
        run_script(stores, "spark/bars_to_parquet.py", log)
    with timed("aggregate"):
        run_script(stores, "glue/aggregate_bars.py", log)
    return Outcome(state, stores.settings.require("lake_uri"), report, collect(stores), seconds)


def _report(stores: Stores, outcome: Outcome) -> Path:
    page = outcome.state.path / "report.html"
    data = read_report_data(
        stores.warehouse_dsn, outcome.to_json(), outcome.status, stores.clock(), outcome.state.source
    )
    write_report(page, data)
    return page


def _show(stores: Stores, outcome: Outcome, page: Path) -> None:
    out = console()
    shown = table(
        f"{escape(_name(outcome.state.source))} bars as of {new_york(stores.clock()):%Y-%m-%d %H:%M} New York",
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
        mark = OK if item and not item.broken and not item.pending else BAD
        shown.add_row(symbol, *(f"{value:,}" for value in row.values()), mark)
    out.print(shown)
    if outcome.balanced:
        out.print("[green]balanced[/]: received = stored + revised + unchanged + rejected + forming, and")
        out.print("          staged bars = Parquet rows = the warehouse's bar_count, for every symbol and session")
    else:
        out.print("[red]not balanced[/]")
        for item in outcome.status.values():
            for line in item.broken:
                out.print(f"{item.symbol} {line}", style="red", markup=False)
    command = quote(sys.argv[0]) if Path(sys.argv[0]).name == "barflow" else "barflow"
    at_default = outcome.state.path.resolve() == DEFAULT_STATE.resolve()
    flag = "" if at_default else f" --state {quote(str(outcome.state.path))}"
    out.print(f"report    {page}", markup=False)
    out.print(f"query     {command} sql 'table market.latest_trend'{flag}", markup=False)
    out.print(f"status    {command} status{flag}", markup=False)
    out.print(f"page      {command} dashboard{flag}", markup=False)


def _log_addresses(stores: Stores, url: str, log: Log) -> None:
    log(f"the page  {url}  stays up until Ctrl-C; `barflow sql` and `barflow status` work meanwhile")
    log(f"MongoDB   {stores.environment.get('BARFLOW_MONGODB_URI', '')}")
    log(f"warehouse {stores.environment.get('BARFLOW_WAREHOUSE_DSN', '')}")


def _go_live(
    stores: Stores, clock: LiveClock, symbols: tuple[str, ...], state: State, speed: float, *, log: Log
) -> None:
    """Tick at every bar. After each session, process and aggregate its bars."""
    end = state.as_of if state.source["kind"] == "replay" else None
    log(f"ticking from {new_york(clock.now):%A, %d %B %H:%M} New York, a bar every {300 / speed:.1f} s")

    def load() -> None:
        for program in ("spark/bars_to_parquet.py", "glue/aggregate_bars.py"):
            run_script(stores, program, lambda _: None)

    keep_ticking(ingest.open_ingest(stores, log).tick, clock, symbols, end=end, speed=speed, at_close=load, log=log)
    log("the recording has ended; the page stays up. Remove the state folder to play it again")
