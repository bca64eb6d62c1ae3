"""An oracle of one session: the warehouse's rows, computed in plain Python from the archive's bars.

It shares no query and no function with the Glue job, only the exchange's calendar. Each formula has its textbook form.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any

from barflow.errors import BadInputError, BarflowError
from barflow.lake.partitions import Lake
from barflow.market.sessions import Session, session
from barflow.warehouse.connection import connect
from barflow.warehouse.queries import consumed_manifests, rows_of_session, session_dates

WIDTHS = {"bar_5min": 5, "bar_30min": 30, "bar_1h": 60, "bar_1d": 24 * 60}  # minutes
METRICS = "daily_metrics"
SLOT = 5  # minutes of a bar
RELATIVE = 1e-9
LONGEST_WINDOW = 50  # sessions
NEWEST = 10  # sessions in which the newest complete one is searched
Row = Mapping[str, Any]
Rows = dict[tuple[str, Any], Row]


@dataclass
class Comparison:
    """The number of compared rows of a session, by table, and the differences of the warehouse from the oracle."""

    session_date: date
    rows: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON object. It has the first ten differences, and their number."""
        return {
            "session": self.session_date.isoformat(),
            "equal": not self.differences,
            "rows": self.rows,
            "differing": len(self.differences),
            "differences": self.differences[:10],
        }


def compare(lake: Lake, dsn: str, day: date | None, now: datetime) -> Comparison:
    """Compare every row of a session with the oracle. Without a day, take the newest complete session that is loaded.

    Raises BadInputError for a day without a session, BarflowError if the archive has no bar of it or if the warehouse
    has no complete session.
    """
    with connect(dsn) as connection:
        chosen = day or _newest_loaded(session_dates(connection, NEWEST), _waiting(lake, connection), now)
        if (traded := session(chosen)) is None:
            raise BadInputError(f"--session {chosen}: the exchange was closed on that day. Choose a trading day.")
        stored = {table: rows_of_session(connection, table, chosen) for table in (*WIDTHS, METRICS)}
    expected = expected_rows(lake, traded)
    if not expected["bar_1d"]:
        raise BarflowError(f"the archive has no bar of {chosen}. Choose another session, or run `barflow process`.")
    found = Comparison(chosen)
    for table, rows in expected.items():
        found.rows[table] = len(rows)
        found.differences += [f"{table} {text}" for text in _differences(stored[table], rows)]
    return found


def _newest_loaded(days: Iterable[date], waiting: set[str], now: datetime) -> date:
    """Return the newest of these days whose session has closed and has no change that waits for a load."""
    for day in days:
        traded = session(day)
        if traded is not None and traded.closes <= now and day.isoformat() not in waiting:
            return day
    raise BarflowError(
        "the warehouse has no complete session yet. Run process and aggregate, then `barflow compare` again."
    )


def _waiting(lake: Lake, connection: Any) -> set[str]:
    """Return the days of published sessions that no load has consumed yet."""
    published = lake.manifest_ids()
    waiting = set(published) - consumed_manifests(connection, published)
    return {day for run in waiting for partition in lake.manifest(run).partitions for day in partition.versions}


def expected_rows(lake: Lake, traded: Session) -> dict[str, Rows]:
    """Return the rows of a session that the warehouse must have, by table and key."""
    months: dict[str, list[str]] = {}
    for symbol, month, _ in lake.partitions():
        months.setdefault(symbol, []).append(month)
    found: dict[str, Rows] = {table: {} for table in (*WIDTHS, METRICS)}
    for symbol, held in months.items():
        history = _sessions_until(lake, symbol, held, traded)
        if not history or history[-1][0] != traded.session_date:
            continue
        bars = history[-1][1]
        for table, minutes in WIDTHS.items():
            found[table] |= {(symbol, row["bar_start"]): row for row in bar_rows(symbol, bars, traded, minutes)}
        found[METRICS][symbol, traded.session_date] = metrics_row(symbol, [bars for _, bars in history], traded)
    return found


def _sessions_until(lake: Lake, symbol: str, months: Iterable[str], traded: Session) -> list[tuple[date, list[Row]]]:
    """Return the bars of a symbol's last sessions up to this one, oldest first, as many as the longest window."""
    days: dict[date, list[Row]] = {}
    for month in sorted((month for month in months if month <= traded.month), reverse=True):
        table = lake.read(symbol, month)
        for bar in table.to_pylist() if table is not None else ():
            if bar["session_date"] <= traded.session_date:
                days.setdefault(bar["session_date"], []).append(bar)
        if len(days) >= LONGEST_WINDOW:
            break
    return [(day, sorted(days[day], key=lambda bar: bar["ts"])) for day in sorted(days)][-LONGEST_WINDOW:]


def bar_rows(symbol: str, bars: Sequence[Row], traded: Session, minutes: int) -> Iterator[Row]:
    """Yield the rows of one bar table. Buckets of ``minutes`` count from the session's open."""
    buckets: dict[int, list[Row]] = {}
    for bar in bars:
        buckets.setdefault(int((bar["ts"] - traded.opens).total_seconds()) // (60 * minutes), []).append(bar)
    for number, held in sorted(buckets.items()):
        start = traded.opens + number * timedelta(minutes=minutes)
        volume = sum(bar["volume"] for bar in held)
        traded_value = math.fsum((bar["high"] + bar["low"] + bar["close"]) / 3 * bar["volume"] for bar in held)
        expected = min(minutes, int((traded.closes - start).total_seconds()) // 60) // SLOT
        yield {
            "symbol": symbol,
            "bar_start": start,
            "session_date": traded.session_date,
            "open": held[0]["open"],
            "high": max(bar["high"] for bar in held),
            "low": min(bar["low"] for bar in held),
            "close": held[-1]["close"],
            "volume": volume,
            "vwap": traded_value / volume if volume else None,
            "bar_count": len(held),
            "expected_bars": expected,
            "is_complete": len(held) == expected,
        }


def metrics_row(symbol: str, sessions: Sequence[Sequence[Row]], traded: Session) -> Row:
    """Return the metrics of the last of these sessions. A metric is None until its window is full."""
    closes = [bars[-1]["close"] for bars in sessions]
    highs = [max(bar["high"] for bar in bars) for bars in sessions]
    lows = [min(bar["low"] for bar in bars) for bars in sessions]
    volumes = [sum(bar["volume"] for bar in bars) for bars in sessions]
    log_returns = [math.log(after / before) for before, after in pairwise(closes)]
    within = [math.log(after["close"] / before["close"]) for before, after in pairwise(sessions[-1])]
    true_ranges = [
        max(high - low, abs(high - before), abs(low - before))
        for before, high, low in zip(closes, highs[1:], lows[1:], strict=False)
    ]
    close, previous = closes[-1], closes[-2] if closes[1:] else None
    mean_volume = _mean(volumes[:-1], 20)
    return {
        "symbol": symbol,
        "session_date": traded.session_date,
        "close": close,
        "prev_close": previous,
        "return_1d": None if previous is None else (close - previous) / previous,
        "gap_open": None if previous is None else (sessions[-1][0]["open"] - previous) / previous,
        "range_pct": (highs[-1] - lows[-1]) / close,
        "realized_vol": math.sqrt(math.fsum(step * step for step in within)) if within else None,
        "sma_5": _mean(closes, 5),
        "sma_20": _mean(closes, 20),
        "sma_50": _mean(closes, 50),
        "volatility_20": statistics.stdev(log_returns[-20:]) * math.sqrt(252) if len(log_returns) >= 20 else None,
        "rsi_14": _relative_strength([after - before for before, after in pairwise(closes)]),
        "atr_14": _mean(true_ranges, 14),
        "volume_ratio_20": volumes[-1] / mean_volume if mean_volume else None,
    }


def _mean(values: Sequence[float], window: int) -> float | None:
    """Return the mean of the last values, or None if there are fewer than the window."""
    return math.fsum(values[-window:]) / window if len(values) >= window else None


def _relative_strength(changes: Sequence[float]) -> float | None:
    """Return Cutler's RSI of the last 14 changes: 50 without any change, 100 without a loss."""
    if len(changes) < 14:
        return None
    gains = math.fsum(change for change in changes[-14:] if change > 0)
    losses = math.fsum(-change for change in changes[-14:] if change < 0)
    if not losses:
        return 100.0 if gains else 50.0
    return 100 - 100 / (1 + gains / losses)


def _differences(stored: Mapping[tuple[Any, ...], Row], expected: Mapping[tuple[Any, ...], Row]) -> Iterator[str]:
    """Yield the differences of a table from the oracle: missing rows, surplus rows, and other values."""
    for key in sorted(expected.keys() - stored.keys(), key=str):
        yield f"{_shown(key)} is missing"
    for key in sorted(stored.keys() - expected.keys(), key=str):
        yield f"{_shown(key)} is not in the archive"
    for key in sorted(expected.keys() & stored.keys(), key=str):
        for name, value in expected[key].items():
            found = stored[key].get(name)
            if not _is_same(found, value):
                yield f"{_shown(key)} {name} is {found!r}, expected {value!r}"


def _is_same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float | int):
        return math.isclose(found, expected, rel_tol=RELATIVE, abs_tol=1e-15)
    return bool(found == expected)


def _shown(key: tuple[Any, ...]) -> str:
    return " ".join(f"{part:%Y-%m-%dT%H:%MZ}" if isinstance(part, datetime) else str(part) for part in key)
