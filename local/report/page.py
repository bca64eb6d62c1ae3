"""The demo's report: read the warehouse and write one self-contained HTML file, STATE/report.html.

The page loads nothing from the network: its content security policy allows its own style and script, by their hashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import psycopg
from psycopg.rows import class_row, dict_row

from barflow.html_files import content_policy, write_html
from barflow.market.actions import Split, split_factors
from barflow.market.sessions import BAR, new_york, previous_session, session
from barflow.pipeline.status import SymbolStatus
from barflow.staging.actions import Known
from barflow.warehouse.connection import connect, warehouse_errors
from local.report.chart import PRICE_HEIGHT, PRICE_SHARE, VOLUME_HEIGHT, VOLUME_SHARE, Candle, Chart, adjusted, draw
from local.report.words import FILTERS, METRICS, Source, describe_source

HERE = Path(__file__).parent
MOST_SESSIONS, LEAST_SESSIONS = 60, 5
# An hourly bar takes about 120 bytes of the page, its candle included.
MOST_BARS = 22_000


@dataclass(frozen=True)
class SymbolReport:
    """One symbol: its chart, its newest row of daily_metrics, and its bars at every hop.

    ``adjusted`` is true if the splits were ever fetched or imported, so that the chart is adjusted for them.
    ``tick`` holds the counts of this run and is empty for a symbol that the run did not ask for.
    """

    symbol: str
    status: SymbolStatus
    tick: Mapping[str, int]
    chart: Chart | None
    metrics: Mapping[str, Any] | None
    in_session: bool
    adjusted: bool = False

    @property
    def state(self) -> str:
        """Return ``balanced``, ``pending`` or ``broken``: whether all bars reconcile, in this run and at every hop."""
        parts = ("stored", "revised", "unchanged", "rejected", "forming")
        if self.status.broken or (self.tick and self.tick["received"] != sum(self.tick[name] for name in parts)):
            return "broken"
        return "pending" if self.status.pending else "balanced"

    @property
    def data_until(self) -> datetime | None:
        """Return the close of the newest bar in the warehouse (UTC)."""
        newest = self.status.newest_warehouse
        return newest + BAR if newest else None


@dataclass(frozen=True)
class Report:
    """Everything that the page shows. ``as_of`` is the market's clock (UTC); ``seconds`` is the time of each hop."""

    as_of: datetime
    source: Source
    balanced: bool
    seconds: Mapping[str, float]
    symbols: tuple[SymbolReport, ...]
    sessions_shown: int

    @property
    def received(self) -> int:
        """Return how many bars this run received from the API."""
        return sum(item.tick.get("received", 0) for item in self.symbols)


def read_report_data(
    dsn: str,
    outcome: Mapping[str, Any],
    status: Mapping[str, SymbolStatus],
    now: datetime,
    source: Mapping[str, Any],
    known: Mapping[str, Known],
) -> Report:
    """Read the charts and metrics of every symbol in ``status`` and in ``outcome``.

    Args:
        dsn: The warehouse.
        outcome: What ``barflow demo --json`` prints.
        status: The reconciliation of each symbol.
        now: The market's clock (UTC).
        source: The source of the state's bars.
        known: The corporate actions by symbol. Charts are adjusted for their splits.

    Raises:
        UnavailableError: The warehouse does not answer.
        BarflowError: The warehouse has no tables.
    """
    today = new_york(now).date()
    symbols = list(dict.fromkeys([*outcome["symbols"], *sorted(status)]))
    wanted = max(LEAST_SESSIONS, min(MOST_SESSIONS, MOST_BARS // (7 * max(1, len(symbols)))))
    with connect(dsn) as connection, warehouse_errors("be read for the report"):
        connection.read_only = True
        candles = _hourly_bars(connection, wanted)
        metrics = _newest_metrics(connection)
    return Report(
        as_of=now,
        source=describe_source(source),
        balanced=bool(outcome["balanced"]),
        seconds=outcome["seconds"],
        symbols=tuple(
            SymbolReport(
                symbol,
                status.get(symbol, SymbolStatus(symbol)),
                outcome["symbols"].get(symbol, {}),
                chart_of(candles[symbol], known.get(symbol, Known()), today) if symbol in candles else None,
                metrics.get(symbol),
                symbol in metrics and _in_session(metrics[symbol]["session_date"], now),
                symbol in known and known[symbol].has("split"),
            )
            for symbol in symbols
        ),
        sessions_shown=wanted,
    )


def chart_of(candles: Sequence[Candle], known: Known, today: date) -> Chart:
    """Return the chart of raw bars, in the shares of ``today``."""
    splits = [item for item in known.actions if isinstance(item, Split) and item.ratio != 1]
    return draw(adjusted(candles, split_factors(splits, today)), splits)


def _hourly_bars(connection: psycopg.Connection[Any], sessions: int) -> dict[str, list[Candle]]:
    """Return the hourly bars of the newest sessions by symbol, oldest first. All symbols have the same sessions."""
    found = connection.execute("select max(session_date) from market.bar_1h").fetchone()
    if not found or found[0] is None:
        return {}
    oldest = previous_session(found[0], sessions - 1)
    cursor = connection.cursor(row_factory=class_row(Candle)).execute(
        "select symbol, bar_start, session_date, open, high, low, close, volume, bar_count, expected_bars "
        "from market.bar_1h where session_date >= %s order by symbol, bar_start",
        (oldest.session_date if oldest else date.min,),
    )
    return {symbol: list(bars) for symbol, bars in groupby(cursor, key=lambda candle: candle.symbol)}


def _newest_metrics(connection: psycopg.Connection[Any]) -> dict[str, dict[str, Any]]:
    cursor = connection.cursor(row_factory=dict_row).execute(
        "select distinct on (symbol) * from market.daily_metrics order by symbol, session_date desc"
    )
    return {row["symbol"]: row for row in cursor}


def _in_session(day: date, now: datetime) -> bool:
    """Return whether that session is not over yet, so that its figures are not final."""
    traded = session(day)
    return traded is not None and now < traded.closes


def write_report(page: Path, data: Report) -> None:
    """Write the page, completely or not at all. Raise BarflowError when it cannot be written."""
    write_html(
        page,
        render(data),
        "The bars are stored and the page of an earlier run is unchanged.",
        "Free space or fix the folder's permissions, then run the demo again.",
    )


def render(data: Report) -> str:
    """Return the page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters |= FILTERS
    environment.globals |= {
        "price_part": {"height": PRICE_HEIGHT, "share": PRICE_SHARE},
        "volume_part": {"height": VOLUME_HEIGHT, "share": VOLUME_SHARE},
    }
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return environment.get_template("report.html.j2").render(
        report=data,
        metrics=METRICS,
        new_york=new_york,
        style=style,
        script=script,
        policy=content_policy(style, script),
    )
