"""Aggregate: what to load, from the lake and the warehouse's own ledger. Which sessions, which metrics, which SQL.

A load takes the manifests that no load has taken yet and replaces exactly the (symbol, session) rows they touch.
A changed day also changes later metrics of its symbol: as many sessions as the longest window reaches.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from barflow.errors import BadInputError, BarflowError
from barflow.lake.partitions import Lake
from barflow.market.bars import spark_schema
from barflow.market.sessions import BAR, session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

HOP = "aggregate"
# The longest window of the daily metrics, in sessions: sma_50. A metric of a session may depend on this many
# sessions before it, and a changed session on this many after it may depend.
LONGEST_WINDOW = 50


@dataclass(frozen=True)
class Plan:
    """What one load takes: run ids of manifests, and the sessions to replace by (symbol, month) partition.

    ``whole`` are symbols of which everything is replaced, so that rows the lake no longer has go, too.
    """

    manifests: tuple[str, ...] = ()
    sessions: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()

    @property
    def touched(self) -> list[tuple[str, date]]:
        """The (symbol, session_date) pairs to replace, sorted."""
        return sorted((symbol, date.fromisoformat(day)) for (symbol, _), days in self.sessions.items() for day in days)


def plan_new(lake: Lake, consumed: set[str]) -> Plan:
    """The sessions of the manifests that no load has taken."""
    waiting = [run_id for run_id in lake.manifest_ids() if run_id not in consumed]
    sessions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run_id in waiting:
        for item in lake.manifest(run_id).partitions:
            sessions[item.symbol, item.month].update(item.versions)
    return Plan(tuple(waiting), {key: frozenset(days) for key, days in sessions.items() if days})


def plan_full(lake: Lake, consumed: set[str], symbols: Iterable[str] | None) -> Plan:
    """Every session in the lake, of all symbols or of those named. All symbols: the waiting manifests are taken.

    Raises BadInputError when the lake has no bars of a named symbol.
    """
    chosen = None if symbols is None else set(symbols)
    waiting = tuple(run_id for run_id in lake.manifest_ids() if run_id not in consumed) if chosen is None else ()
    sessions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for symbol, day, _, _ in lake.session_counts(chosen):
        sessions[symbol, day[:7]].add(day)
    if unknown := sorted((chosen or set()) - {symbol for symbol, _ in sessions}):
        raise BadInputError(
            f"the lake {lake.uri} has no bars of {', '.join(unknown)}. Nothing was loaded. "
            "Check the spelling, or run `barflow process` first."
        )
    return Plan(
        waiting, {key: frozenset(days) for key, days in sessions.items()}, frozenset(key[0] for key in sessions)
    )


def bars_frame(spark: SparkSession, lake: Lake, plan: Plan) -> DataFrame:
    """The planned sessions' bars as rows of the lake with their place in the session.

    Columns: symbol, session_date, ts (bar open, UTC), open, high, low, close (dollars), volume (shares); opens (the
    session's open, UTC), session_bars (5-minute bars that a full session has), slot (0 = the session's first bar).
    One symbol's rows lie in one partition. Raises BarflowError when a planned partition is not in the lake.
    """
    paths = []
    for symbol, month in sorted(plan.sessions):
        if not lake.exists(symbol, month):
            raise BarflowError(
                f"{symbol} {month} was published and is not in the lake {lake.uri}. Nothing was loaded. "
                f"Run `barflow process --full --symbols {symbol}`, then this again."
            )
        paths.append(lake.spark_path(symbol, month))
    rows = spark.read.schema(spark_schema()).option("basePath", lake.spark_path()).parquet(*paths)
    days = small_frame(
        spark, _calendar_rows(plan), "session_date date, opens timestamp, session_bars int, symbols array<string>"
    )
    touched = days.selectExpr("explode(symbols) as symbol", "session_date", "opens", "session_bars")
    slot = f"cast((unix_timestamp(ts) - unix_timestamp(opens)) div {int(BAR.total_seconds())} as int) as slot"
    # Parted by symbol, no aggregate and no window has to move a row again.
    joined = rows.join(touched.hint("broadcast"), ["symbol", "session_date"])
    return joined.drop("revision", "month").selectExpr("*", slot).repartition("symbol")


def small_frame(spark: SparkSession, rows: list[dict[str, Any]], columns: str) -> DataFrame:
    """A frame of a few rows that are made here, as one JSON text in the query: ``createDataFrame`` would start
    Python workers for it, and import pandas."""
    query = f"select inline(from_json(:rows, 'array<struct<{columns}>>'))"
    return spark.sql(query, {"rows": json.dumps(rows)})


def _calendar_rows(plan: Plan) -> list[dict[str, Any]]:
    """Per touched day its session and the symbols that it touches."""
    symbols: dict[date, list[str]] = defaultdict(list)
    for symbol, day in plan.touched:
        symbols[day].append(symbol)
    rows = []
    for day, names in symbols.items():
        traded = session(day)
        if traded is None:
            raise BarflowError(
                f"{names[0]} {day}: the lake has bars of a day without a session. Check the calendar's table."
            )
        hours = {"opens": traded.opens.isoformat(), "session_bars": traded.expected_bars}
        rows.append({"session_date": day.isoformat(), **hours, "symbols": names})
    return rows
