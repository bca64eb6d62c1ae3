"""The warehouse's tables and views with the meaning of each column, read from a database with every migration."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from barflow.market.bars import FIELDS
from barflow.warehouse.migrations import migrate
from local.services import Services
from local.state import State

ROOT = Path(__file__).parents[1]
# Columns whose names say all in SQL, but not all in a reference.
COLUMNS = {
    "symbol": "Ticker symbol",
    "is_complete": "Whether `bar_count` equals `expected_bars`",
    "load_id": "The load that wrote the row, a key of `ops.load_run`",
    "open_all": "Open, adjusted for splits and dividends, dollars",
    "high_all": "High, adjusted for splits and dividends, dollars",
    "low_all": "Low, adjusted for splits and dividends, dollars",
    "close_all": "Close, adjusted for splits and dividends, dollars",
    "high_bps": "The same for the high",
    "low_bps": "The same for the low",
    "close_bps": "The same for the close",
    "manifests": "Manifests that the load consumed",
    "started_at": "Start of the load, UTC",
    "finished_at": "End of the load, UTC",
    "outcome": "`loaded` or `failed`",
    "error": "Reason of a failure",
    "last_close": "Newest close, dollars",
    "change": "Change of the close since the previous session, dollars",
    "change_pct": "The same in percent",
    "above_sma_20": "last_close / sma_20 - 1",
    "above_sma_50": "last_close / sma_50 - 1",
    "data_until": "Close of the newest bar, UTC",
    "age": "Time since `data_until`",
}
TABLES = """
select c.oid, n.nspname || '.' || c.relname as name, obj_description(c.oid) as meaning
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('market', 'ops', 'sandbox') and c.relkind in ('r', 'v')
order by c.oid"""
COLUMNS_OF = """
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type,
    col_description(a.attrelid, a.attnum) as meaning, a.attnotnull as required,
    array_position(k.conkey, a.attnum) as key_position
from pg_attribute a left join pg_constraint k on k.conrelid = a.attrelid and k.contype = 'p'
where a.attrelid = %s and a.attnum > 0 and not a.attisdropped order by a.attnum"""


@dataclass(frozen=True)
class Column:
    """One column. ``key_position`` counts from 1 in the primary key and is None outside of it."""

    name: str
    type: str
    meaning: str
    required: bool
    key_position: int | None


@dataclass(frozen=True)
class Table:
    """One table or view, with its schema in its name, such as ``market.bar_1d``."""

    name: str
    meaning: str
    columns: tuple[Column, ...]


@contextmanager
def migrated_warehouse() -> Iterator[psycopg.Connection[Any]]:
    """Open a connection to an embedded PostgreSQL with every migration applied."""
    # PostgreSQL runs as its own user, which has no access to folders of this one.
    with tempfile.TemporaryDirectory(prefix="barflow-docs-", ignore_cleanup_errors=True) as folder:
        state = State.create(Path(folder) / "state", source={"kind": "synthetic"}, as_of=None)
        with Services(state, lambda _: None, mongo=False) as services:
            migrate(services.warehouse_dsn, ROOT / "sql")
            with psycopg.connect(services.warehouse_dsn) as connection:
                yield connection


def read_tables(connection: psycopg.Connection[Any]) -> list[Table]:
    """Return the tables and views of a migrated warehouse, in the order in which the migrations create them."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    found: list[Any] = cursor.execute(TABLES).fetchall()
    columns: dict[str, list[Any]] = {it.name: cursor.execute(COLUMNS_OF, [it.oid]).fetchall() for it in found}
    # A table that is made like another one takes its columns over, but not their comments.
    meanings = {it.name: it.meaning for held in columns.values() for it in held if it.meaning}
    meanings |= {field.name: field.meaning[:1].upper() + field.meaning[1:] for field in FIELDS} | COLUMNS

    def column(it: Any) -> Column:
        return Column(it.name, it.type, it.meaning or meanings.get(it.name, ""), it.required, it.key_position)

    return [Table(it.name, it.meaning or "", tuple(map(column, columns[it.name]))) for it in found]
