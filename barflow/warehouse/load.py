"""Warehouse loads: one transaction on one connection replaces the rows of ``market`` and writes the ledger row.

The rows arrive as Arrow tables. They are streamed by COPY in its binary format into the tables that readers see, and
counted on the way. A load holds an advisory lock from its plan to its commit, on the connection that commits: a load
that loses this connection cannot commit, and two loads never mix.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import chain, groupby
from operator import itemgetter
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

METRICS = "daily_metrics"
TABLES = (*BAR_TABLES, METRICS)
# An advisory lock's key that no other program uses on this database.
LOCK = 0x6261_7266
# The server releases a dead driver's lock after 60 s: 30 s idle, then 3 probes of 10 s.
KEEPALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
SAME_SESSION = sql.SQL("t.symbol = k.symbol and t.session_date = k.session_date")
# Lets the query use the primary key: a session is within one UTC day.
SAME_DAY = sql.SQL("t.bar_start >= {day} and t.bar_start < {day} + interval '1 day'").format(
    day=sql.SQL("(k.session_date::timestamp at time zone 'UTC')")
)
# What is true of every row of the bar tables, as an expression of Spark SQL: the bounds of barflow.market.bars, and
# low <= vwap <= high.
POSSIBLE = (
    f"(low > 0 and high <= {MAX_PRICE} and volume between 0 and bar_count * {MAX_VOLUME} and bar_count between 1 and "
    f"expected_bars and low <= least(open, close) * (1 + {OHLC_TOLERANCE}) and high * (1 + {OHLC_TOLERANCE}) >= "
    "greatest(open, close) and (vwap is null or vwap between low * (1 - 1e-9) and high * (1 + 1e-9))) is true"
)
# The column of the bar tables' rows that holds whether a row's values are possible. It is not loaded.
IS_POSSIBLE = "possible"
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension
COPY_TRAILER = b"\xff\xff"
# About 2 MB in COPY's format.
ROWS_PER_PART = 20_000
Session = tuple[str, date]
# Yields the rows of the tables, by name. The rows of one table follow each other. Each call yields the same rows.
Rows = Callable[[], "Generator[tuple[str, pa.Table], None, None]"]


@dataclass(frozen=True)
class Change:
    """What one transaction replaces, besides the rows themselves.

    ``sessions`` are the (symbol, session_date) pairs whose bars are replaced. Every row of the symbols in ``whole`` is
    replaced. A metrics row is replaced only if there is a new one. Every version of the ``actions`` of their symbols
    is replaced, with the factors that follow. ``former`` are the former symbols that the views join.
    """

    load_id: str
    started_at: datetime
    sessions: Sequence[Session]
    whole: Iterable[str]
    manifests: Sequence[str]
    former: Former
    actions: Mapping[str, Sequence[Version]] = field(default_factory=dict)
    vendor_days: Sequence[VendorDay] = ()


@dataclass
class Loaded:
    """What one transaction wrote: rows by table, and what it left out.

    ``impossible`` are the sessions with an impossible value: the rows of their symbols stay as they were. ``unusable``
    are the dividends that are in no factor.
    """

    rows: dict[str, int] = field(default_factory=dict)
    impossible: list[Session] = field(default_factory=list)
    unusable: list[Session] = field(default_factory=list)


class _ImpossibleError(Exception):
    """Ends a transaction in which rows with impossible values arrived. Holds their sessions."""

    def __init__(self, sessions: Iterable[Session]) -> None:
        super().__init__("impossible values")
        self.sessions = sorted(sessions)


class Load:
    """A connection that holds the lock of loads. Use it as ``with Load.begun(dsn, …) as load``."""

    def __init__(self, dsn: str, connection: psycopg.Connection[Any]) -> None:
        self.dsn = dsn
        self.connection = connection

    @classmethod
    @contextmanager
    def begun(cls, dsn: str, wait_seconds: float) -> Iterator[Load]:
        """Hold the warehouse's load lock for a block. Raise BusyError while another load holds it."""
        with (
            connect(dsn, KEEPALIVE, autocommit=True) as connection,
            locked(connection, LOCK, wait_seconds, "load"),
        ):
            yield cls(dsn, connection)

    def rename(self, load_id: str, former: Former) -> None:
        """Follow the former symbols in one transaction, with the factors of the shares whose names changed."""
        with warehouse_errors("write its former symbols"), self.connection.transaction():
            if renamed := keep_former_symbols(self.connection, former):
                replace_adjustments(self.connection, load_id, renamed)

    def commit(self, change: Change, rows: Rows, expected: Mapping[str, int]) -> Loaded:
        """Replace the touched rows and write the ledger row, in one transaction.

        ``expected`` are the numbers of rows by table. Sessions with impossible values are left out, with the other
        rows of their symbols, whose metrics depend on them: the transaction is then rolled back and run again without
        them. Raises BarflowError if the bar tables do not hold the same bars of every session. Nothing of this
        change is loaded then.
        """
        impossible: list[Session] = []
        while True:
            try:
                with warehouse_errors("commit the load"), self.connection.transaction():
                    transaction = _Transaction(self.connection, change, {symbol for symbol, _ in impossible})
                    transaction.replace(rows, expected)
                    return Loaded(transaction.rows, impossible, transaction.unusable)
            except _ImpossibleError as found:
                impossible = sorted({*impossible, *found.sessions})


class _Transaction:
    """The transaction of a load. It leaves out the symbols in ``held``."""

    def __init__(self, connection: psycopg.Connection[Any], change: Change, held: set[str]) -> None:
        self.connection, self.change, self.held = connection, change, held
        self.rows: dict[str, int] = {}
        self.unusable: list[Session] = []
        self._bars: dict[str, dict[Session, int]] = {name: {} for name in BAR_TABLES}
        self._impossible: set[Session] = set()

    def replace(self, rows: Rows, expected: Mapping[str, int]) -> None:
        """Replace the rows of all tables, compare what arrived, and write the ledger row."""
        change = self.change
        sessions = [item for item in change.sessions if item[0] not in self.held]
        whole = [symbol for symbol in change.whole if symbol not in self.held]
        renamed = keep_former_symbols(self.connection, change.former)
        self._list_sessions("touched", sessions)
        with closing(rows()) as arriving:  # a transaction that fails ends the transfer from Spark, too
            for name, parts in groupby(arriving, key=itemgetter(0)):
                self._replace(name, (table for _, table in parts), whole, expected[name])
        if self._impossible:
            raise _ImpossibleError(self._impossible)
        self._compare(sessions)
        known = {symbol: found for symbol, found in change.actions.items() if symbol not in self.held}
        self._replace_actions(known, {*whole, *renamed})
        if change.vendor_days:
            self.rows["vendor_bar"] = store_vendor_days(self.connection, change.load_id, change.vendor_days)
        self.connection.execute(
            "insert into ops.load_run (load_id, manifests, started_at, finished_at, rows, outcome) "
            "values (%s, %s, %s, clock_timestamp(), %s, 'loaded')",
            [change.load_id, list(change.manifests), change.started_at, Jsonb(self.rows)],
        )

    def _replace(self, name: str, tables: Iterable[pa.Table], whole: list[str], expected: int) -> None:
        """Delete the touched rows of a table, and copy the new ones."""
        target = sql.Identifier("market", name)
        self.connection.execute(sql.SQL("delete from {} where symbol = any(%s)").format(target), [whole])
        if name == METRICS:
            tables = [*tables]  # few rows: their keys are deleted before the COPY begins
            self._list_sessions("rewritten", (item for table in tables for item in self._sessions_of(table)))
            statement = sql.SQL("delete from {} t using rewritten k where {}").format(target, SAME_SESSION)
        else:
            statement = sql.SQL("delete from {} t using touched k where {} and {}").format(
                target, SAME_SESSION, SAME_DAY
            )
        self.connection.execute(statement)
        copied, left_out = self._copy(name, target, tables)
        if not self._impossible and copied + left_out != expected:
            raise BarflowError(
                f"{name}: {expected} rows were computed and {copied + left_out} arrived. "
                "Nothing more was loaded; run `barflow aggregate` again."
            )
        self.rows[name] = copied

    def _copy(self, name: str, target: sql.Identifier, tables: Iterable[pa.Table]) -> tuple[int, int]:
        """Copy the rows that are not held back. Return the numbers of rows that were copied and left out.

        After an impossible value, the other rows are only checked, because the transaction is rolled back.
        """
        left_out = 0
        waiting = iter(tables)
        first = next(waiting, None)
        if first is None:
            return 0, 0
        columns = [column for column in first.column_names if column != IS_POSSIBLE]
        statement = sql.SQL("copy {} ({}, load_id) from stdin (format binary)").format(
            target, sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with self.connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                copy.write(COPY_HEADER)
                for table in chain([first], waiting):
                    kept = self._without_held(table)
                    left_out += table.num_rows - kept.num_rows
                    if name != METRICS:
                        self._count(name, kept)
                    if kept.num_rows and not self._impossible:
                        for part in encoded(kept.select(columns), self.change.load_id):
                            copy.write(part)
                copy.write(COPY_TRAILER)
            return cursor.rowcount, left_out

    def _without_held(self, table: pa.Table) -> pa.Table:
        if not self.held:
            return table
        import pyarrow as pa
        import pyarrow.compute as pc

        return table.filter(pc.invert(pc.is_in(table["symbol"], pa.array(sorted(self.held), pa.string()))))

    def _count(self, name: str, table: pa.Table) -> None:
        """Add the bars of each session, and note the sessions with an impossible value."""
        counted = table.group_by(["symbol", "session_date"]).aggregate([("bar_count", "sum"), (IS_POSSIBLE, "all")])
        bars = self._bars[name]
        for symbol, day, count, possible in zip(*(column.to_pylist() for column in counted.columns), strict=True):
            bars[symbol, day] = bars.get((symbol, day), 0) + count
            if not possible:
                self._impossible.add((symbol, day))

    def _compare(self, sessions: Iterable[Session]) -> None:
        """Raise BarflowError for the first session for which the bar tables hold different numbers of bars."""
        for symbol, day in sessions:
            found = {name: bars.get((symbol, day), 0) for name, bars in self._bars.items()}
            if len(set(found.values())) > 1 or not found["bar_5min"]:
                raise BarflowError(
                    f"{symbol} {day}: the aggregates do not hold the same bars ({found}). Nothing more was loaded. "
                    "Run `barflow aggregate` again. If it fails again, run `barflow process --full` first."
                )

    def _sessions_of(self, table: pa.Table) -> Iterator[Session]:
        kept = self._without_held(table)
        return zip(kept["symbol"].to_pylist(), kept["session_date"].to_pylist(), strict=True)

    def _list_sessions(self, name: str, sessions: Iterable[Session]) -> None:
        """Write sessions into a temporary table of the transaction."""
        table = sql.Identifier(name)
        run = self.connection.execute
        run(sql.SQL("create temp table {} (symbol text, session_date date) on commit drop").format(table))
        with self.connection.cursor().copy(sql.SQL("copy {} from stdin").format(table)) as copy:
            for item in sessions:
                copy.write_row(item)
        run(sql.SQL("analyze {}").format(table))

    def _replace_actions(self, actions: Mapping[str, Sequence[Version]], symbols: Iterable[str]) -> None:
        """Replace the actions, and the factors of their and these symbols and of those of the touched sessions."""
        if actions:
            self.rows["corporate_action"] = replace_actions(self.connection, self.change.load_id, actions)
        if affected := {*actions, *symbols} | affected_symbols(self.connection):
            rows, self.unusable = replace_adjustments(self.connection, self.change.load_id, affected)
            self.rows["adjustment"] = rows


def encoded(table: pa.Table, load_id: str) -> Iterator[bytes]:
    """Yield rows, with the load's id as their last column, in COPY's binary format without header and trailer."""
    import pyarrow as pa
    from pgpq import ArrowToPostgresBinaryEncoder

    whole = table.append_column("load_id", pa.repeat(load_id, table.num_rows))
    encoder = ArrowToPostgresBinaryEncoder(whole.schema)
    encoder.write_header()  # it must come first; the stream has one already
    for batch in whole.to_batches(ROWS_PER_PART):
        yield encoder.write_batch(batch)
    yield encoder.finish().removesuffix(COPY_TRAILER)  # with rows that it still held


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
