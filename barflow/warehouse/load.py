"""Warehouse loads: Spark tasks COPY rows into staging tables, then one transaction replaces the rows of ``market``.

Tasks stream their rows as CSV into unlogged tables of the schema ``load``. The driver then deletes and inserts the
touched keys and writes the ledger row in one transaction. A load holds an advisory lock from its plan to its commit,
on the connection that commits: a load that loses this connection cannot commit, and two loads never mix.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from barflow.errors import BarflowError
from barflow.market.actions import Version
from barflow.market.bars import BAR_TABLES, MAX_PRICE, MAX_VOLUME, OHLC_TOLERANCE
from barflow.market.vendor_days import VendorDay
from barflow.warehouse.adjustments import (
    affected_symbols,
    replace_actions,
    replace_adjustments,
    store_vendor_days,
)
from barflow.warehouse.connection import connect, locked, warehouse_errors
from barflow.warehouse.former_symbols import Former, keep_former_symbols

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

METRICS = "daily_metrics"
TABLES = (*BAR_TABLES, METRICS)
# An advisory lock's key that no other program uses on this database.
LOCK = 0x6261_7266
COPIED = "part long, rows long"
# The server releases a dead driver's lock after 60 s: 30 s idle, then 3 probes of 10 s.
KEEPALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
# A part of a staged table is what the transaction of one task copied.
PART = sql.SQL("pg_current_xact_id()::text::bigint")
SAME_SESSION = sql.SQL("t.symbol = k.symbol and t.session_date = k.session_date")
DROP_STAGED = sql.SQL("drop table if exists {}").format(
    sql.SQL(", ").join(sql.Identifier("load", name) for name in TABLES)
)
# Lets the query use the primary key: a session is within one UTC day.
SAME_DAY = sql.SQL("t.bar_start >= {day} and t.bar_start < {day} + interval '1 day'").format(
    day=sql.SQL("(k.session_date::timestamp at time zone 'UTC')")
)
# What is true of every row of the bar tables: the bounds of barflow.market.bars, and low <= vwap <= high.
POSSIBLE = sql.SQL(
    "low > 0 and high <= {price} and volume between 0 and bar_count * {volume} and bar_count between 1 and "
    "expected_bars and low <= least(open, close) * (1 + {noise}) and high * (1 + {noise}) >= greatest(open, close) "
    "and (vwap is null or vwap between low * (1 - {rounding}) and high * (1 + {rounding}))"
).format(price=MAX_PRICE, volume=MAX_VOLUME, noise=OHLC_TOLERANCE, rounding=1e-9)
Keys = Sequence[tuple[str, date]]


class Load:
    """One load, from lock to commit. Use it as ``with Load.begun(dsn, load_id, …) as load``."""

    def __init__(self, dsn: str, load_id: str, connection: psycopg.Connection[Any]) -> None:
        self.dsn, self.load_id = dsn, load_id
        self.connection = connection
        self._copied: dict[str, list[int]] = {}
        self._rows: dict[str, int] = {}
        self._held: list[str] = []  # the symbols that the commit leaves out
        self.unusable: list[tuple[str, date]] = []  # after the commit: dividends that are in no factor

    @classmethod
    @contextmanager
    def begun(cls, dsn: str, load_id: str, wait_seconds: float) -> Iterator[Load]:
        """Hold the warehouse's load lock for a block. Raise BusyError while another load holds it."""
        with (
            connect(dsn, KEEPALIVE, autocommit=True) as connection,
            locked(connection, LOCK, wait_seconds, "load"),
        ):
            with warehouse_errors("start a load"):
                connection.execute(DROP_STAGED)  # left by a load that died: this one holds the lock
            yield cls(dsn, load_id, connection)
            with warehouse_errors("remove its staging tables"):
                connection.execute(DROP_STAGED)

    def copy(self, table: str, rows: DataFrame) -> None:
        """COPY the rows of ``market.TABLE`` (all columns but load_id) into a staging table, in Spark tasks.

        Several tables may be copied at the same time, each from its own thread.
        """
        names = rows.columns
        target = sql.Identifier("load", table)
        with warehouse_errors(f"stage the rows of {table}"):
            # Without index, checks or generated columns: the insert applies those.
            self.connection.execute(
                sql.SQL("create unlogged table {} (like market.{})").format(target, sql.Identifier(table))
            )
            self.connection.execute(
                sql.SQL("alter table {} drop column load_id, add column part bigint default {}").format(target, PART)
            )
        statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(
            target, sql.SQL(", ").join(map(sql.Identifier, names))
        )
        text, dsn = statement.as_string(), self.dsn
        copied = rows.mapInArrow(lambda batches: copy_batches(dsn, text, batches), COPIED).collect()
        # Count only the parts that tasks reported: a task that ran twice left an unreported part.
        self._copied[table] = [row.part for row in copied]
        self._rows[table] = sum(row.rows for row in copied)

    def check(self, keys: Keys) -> list[tuple[str, date]]:
        """Check that all staged bar tables have the same number of bars in each session, and only possible values.

        Return the sessions with an impossible value. The commit leaves out the rows of their symbols, whose metrics
        depend on them. Raises BarflowError for the first session whose numbers differ. Nothing is loaded then.
        """
        if not keys:
            return []
        with warehouse_errors("check the staged rows"):
            staged = {name: self._staged_sessions(name) for name in BAR_TABLES}
        impossible: set[tuple[str, date]] = set()
        for symbol, day in keys:
            sessions = {name: staged[name].get((symbol, day), (0, True)) for name in BAR_TABLES}
            found = {name: bars for name, (bars, _) in sessions.items()}
            if not all(possible for _, possible in sessions.values()):
                impossible.add((symbol, day))
            if len(set(found.values())) > 1 or not found["bar_5min"]:
                raise BarflowError(
                    f"{symbol} {day}: the aggregates do not hold the same bars ({found}). Nothing was loaded. "
                    "Run `barflow aggregate` again. If it fails again, run `barflow process --full` first."
                )
        self._held = sorted({symbol for symbol, _ in impossible})
        return sorted(impossible)

    def rename(self, former: Former) -> None:
        """Follow the former symbols in one transaction, with the factors of the shares whose names changed."""
        with warehouse_errors("write its former symbols"), self.connection.transaction():
            if renamed := keep_former_symbols(self.connection, former):
                replace_adjustments(self.connection, self.load_id, renamed)

    def commit(
        self,
        keys: Keys,
        whole: Iterable[str],
        manifests: Sequence[str],
        started_at: datetime,
        *,
        former: Former,
        actions: Mapping[str, Sequence[Version]],
        vendor_days: Sequence[VendorDay],
    ) -> dict[str, int]:
        """Replace the touched rows and write the ledger row, in one transaction. Return the rows by table.

        ``keys`` are the (symbol, session_date) pairs whose bars are replaced. Every row of the symbols in ``whole`` is
        replaced. A metrics row is replaced only if a new one is staged. Every version of the ``actions`` of their
        symbols is replaced, with the factors that follow. ``former`` are the former symbols that the views join. The
        rows of a symbol with an impossible value stay as they are.
        """
        keys = [key for key in keys if key[0] not in self._held]
        whole = [symbol for symbol in whole if symbol not in self._held]
        with warehouse_errors("commit the load"), self.connection.transaction():
            run = self.connection.execute
            renamed = keep_former_symbols(self.connection, former)
            run("create temp table touched (symbol text, session_date date) on commit drop")
            with self.connection.cursor().copy("copy touched from stdin") as copy:
                for key in keys:
                    copy.write_row(key)
            run("analyze touched")
            for name in (name for name in TABLES if name in self._copied):
                table, staged = sql.Identifier("market", name), sql.Identifier("load", name)
                run(sql.SQL("delete from {} where symbol = any(%s)").format(table), [whole])
                if self._held:
                    left_out = run(sql.SQL("delete from {} where symbol = any(%s)").format(staged), [self._held])
                    self._rows[name] -= left_out.rowcount
                if name == METRICS:
                    run(sql.SQL("delete from {} t using {} k where {}").format(table, staged, SAME_SESSION))
                else:
                    run(
                        sql.SQL("delete from {} t using touched k where {} and {}").format(
                            table, SAME_SESSION, SAME_DAY
                        )
                    )
                columns = sql.SQL(", ").join(map(sql.Identifier, self._columns(name)))
                done = run(
                    sql.SQL("insert into {} ({}, load_id) select {}, %s from {} where part = any(%s)").format(
                        table, columns, columns, staged
                    ),
                    [self.load_id, self._copied[name]],
                )
                if done.rowcount != self._rows[name]:
                    raise BarflowError(
                        f"{name}: the tasks wrote {self._rows[name]} rows and {done.rowcount} arrived. "
                        "Nothing was loaded; run `barflow aggregate` again."
                    )
            known = {key: found for key, found in actions.items() if key not in self._held}
            self._load_actions(known, {*whole, *renamed})
            if vendor_days:
                self._rows["vendor_bar"] = store_vendor_days(self.connection, self.load_id, vendor_days)
            run(
                "insert into ops.load_run (load_id, manifests, started_at, finished_at, rows, outcome) "
                "values (%s, %s, %s, clock_timestamp(), %s, 'loaded')",
                [self.load_id, list(manifests), started_at, Jsonb(self._rows)],
            )
        return dict(self._rows)

    def _load_actions(self, actions: Mapping[str, Sequence[Version]], symbols: Iterable[str]) -> None:
        """Replace the actions, and the factors of their and these symbols and of those of the touched sessions."""
        if actions:
            self._rows["corporate_action"] = replace_actions(self.connection, self.load_id, actions)
        if affected := {*actions, *symbols} | affected_symbols(self.connection):
            rows, self.unusable = replace_adjustments(self.connection, self.load_id, affected)
            self._rows["adjustment"] = rows

    def _columns(self, name: str) -> list[str]:
        found = self.connection.execute(
            "select column_name from information_schema.columns where table_schema = 'market' and table_name = %s "
            "and is_generated = 'NEVER' and column_name <> 'load_id' order by ordinal_position",
            [name],
        )
        return [column for (column,) in found]

    def _staged_sessions(self, name: str) -> dict[tuple[str, date], tuple[int, bool]]:
        """Return by staged session the number of 5-minute bars, and whether every row's values are possible."""
        statement = sql.SQL(
            "select symbol, session_date, sum(bar_count), bool_and(({}) is true) from {} where part = any(%s) "
            "group by 1, 2"
        ).format(POSSIBLE, sql.Identifier("load", name))
        rows = self.connection.execute(statement, [self._copied[name]])
        return {(symbol, day): (int(bars), possible) for symbol, day, bars, possible in rows}


def record_failure(dsn: str, load_id: str, started_at: datetime, error: str) -> None:
    """Record a failed load. Do nothing where the warehouse cannot be reached: the caller raises the failure itself."""
    try:
        with connect(dsn, autocommit=True) as connection:
            connection.execute(
                "insert into ops.load_run (load_id, started_at, finished_at, outcome, error) "
                "values (%s, %s, clock_timestamp(), 'failed', %s) on conflict do nothing",
                [load_id, started_at, error],
            )
    except (BarflowError, psycopg.Error):
        return


def copy_batches(dsn: str, statement: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Stream a task's batches into one COPY, which commits whole or not at all. Yield (part, rows)."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    rows = 0
    bare = pa_csv.WriteOptions(include_header=False)
    with connect(dsn) as connection, warehouse_errors("stage the rows of a task"):
        part = connection.execute(sql.SQL("select {}").format(PART)).fetchall()[0][0]
        with connection.cursor().copy(statement.encode()) as copy:
            for batch in batches:
                text = pa.BufferOutputStream()
                pa_csv.write_csv(batch.cast(_without_zone(batch.schema)), text, bare)
                copy.write(text.getvalue())
                rows += batch.num_rows
    # From bytes: PyArrow imports pandas (0.7 s) to convert Python numbers.
    one_number = [pa.py_buffer(struct.pack("q", number)) for number in (part, rows)]
    arrays = [pa.Array.from_buffers(pa.int64(), 1, [None, number]) for number in one_number]
    yield pa.RecordBatch.from_arrays(arrays, ["part", "rows"])


def _without_zone(schema: pa.Schema) -> pa.Schema:
    """Return the schema with naive timestamps: the connection is in UTC, and PyArrow writes them 30 times faster."""
    import pyarrow as pa

    plain = pa.timestamp("us")
    return pa.schema([item.with_type(plain) if pa.types.is_timestamp(item.type) else item for item in schema])
