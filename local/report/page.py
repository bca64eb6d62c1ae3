"""What does the demo's page say? Reads the warehouse, and writes one self-contained HTML file, STATE/report.html.

The page asks for nothing from anywhere: its content security policy allows its own style and script by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import psycopg
from psycopg.rows import class_row, dict_row

from barflow.errors import BarflowError
from barflow.market.sessions import BAR, new_york, previous_session, session
from barflow.pipeline.status import SymbolStatus
from barflow.warehouse.connection import connect, warehouse_errors
from local.report.chart import PRICE_HEIGHT, PRICE_SHARE, VOLUME_HEIGHT, VOLUME_SHARE, Candle, Chart, draw
from local.report.words import FILTERS, METRICS, Source, describe_source

HERE = Path(__file__).parent
MOST_SESSIONS, LEAST_SESSIONS = 60, 5
# With the paths of its candles an hourly bar takes about 120 bytes of the page.
MOST_BARS = 22_000


@dataclass(frozen=True)
class SymbolReport:
    """One symbol: its chart, its newest row of daily_metrics, and its bars at every hop.

    ``tick`` holds the counts of this run and is empty for a symbol that the run did not ask for.
    """

    symbol: str
    status: SymbolStatus
    tick: Mapping[str, int]
    chart: Chart | None
    metrics: Mapping[str, Any] | None
    in_session: bool

    @property
    def state(self) -> str:
        """``balanced``, ``pending`` or ``broken``: whether every bar is accounted for, in this run and at every hop."""
        parts = ("stored", "revised", "unchanged", "rejected", "forming")
        if self.status.broken or (self.tick and self.tick["received"] != sum(self.tick[name] for name in parts)):
            return "broken"
        return "pending" if self.status.pending else "balanced"

    @property
    def data_until(self) -> datetime | None:
        """The close of the newest bar that the warehouse holds, UTC."""
        newest = self.status.newest_warehouse
        return newest + BAR if newest else None


@dataclass(frozen=True)
class Report:
    """All that the page shows. ``as_of`` is the market's clock, UTC; ``seconds`` are the run's, by hop."""

    as_of: datetime
    source: Source
    balanced: bool
    seconds: Mapping[str, float]
    symbols: tuple[SymbolReport, ...]
    sessions_shown: int

    @property
    def received(self) -> int:
        """The bars that this run got from the API."""
        return sum(item.tick.get("received", 0) for item in self.symbols)


def read_report_data(
    dsn: str, outcome: Mapping[str, Any], status: Mapping[str, SymbolStatus], now: datetime, source: Mapping[str, Any]
) -> Report:
    """Reads what the page shows of every symbol in ``status`` and in ``outcome`` (as ``barflow demo --json`` prints).

    ``now`` is the market's clock (UTC), ``source`` the state's. Raises UnavailableError when the warehouse does not
    answer, BarflowError when it has no tables.
    """
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
                draw(candles[symbol]) if symbol in candles else None,
                metrics.get(symbol),
                symbol in metrics and _in_session(metrics[symbol]["session_date"], now),
            )
            for symbol in symbols
        ),
        sessions_shown=wanted,
    )


def _hourly_bars(connection: psycopg.Connection[Any], sessions: int) -> dict[str, list[Candle]]:
    """The hourly bars of the newest sessions, the same ones for every symbol, oldest first."""
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
    """Whether that day still trades, so that its figures are those of an unfinished day."""
    traded = session(day)
    return traded is not None and now < traded.closes


def write_report(page: Path, data: Report) -> None:
    """Writes the page, whole or not at all. Raises BarflowError when the folder cannot take it."""
    text = render(data)
    unfinished = page.with_name(f".{page.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(page)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise BarflowError(
            f"the report {page} could not be written: {error.strerror}. The bars are stored and the page of an "
            "earlier run is unchanged. Free space or mend the folder's permissions, then run the demo again."
        ) from None


def render(data: Report) -> str:
    """The page's HTML."""
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
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
