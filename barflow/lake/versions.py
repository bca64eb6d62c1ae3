"""The versions of a partition: from rows of its files and of MongoDB to its bars and its superseded versions.

Times are naive UTC. No Python object passes through PyArrow's conversion, which imports pandas (0.7 s).
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from barflow.market.arrow import history_schema
from barflow.market.bars import OF_A_BAR, VALUES
from barflow.market.versions import BarVersion, history

# The array module's type codes by Arrow type; times count from the epoch.
TYPE_CODES = {pa.timestamp("us", tz="UTC"): "q", pa.date32(): "i", pa.float64(): "d", pa.int64(): "q", pa.int32(): "i"}
EPOCH, MICROSECOND = datetime.fromisoformat("1970-01-01"), timedelta(microseconds=1)
MOMENTS = ("ts", "known_from", "known_until")


def absent(before: pa.Table | None, table: pa.Table) -> Iterator[BarVersion]:
    """Yield the rows of the old file whose version is not in the new one: revised, or fetched again."""
    if before is None:
        return
    held = set(zip(_integers(table["ts"]), _integers(table["known_from"]), strict=True))
    pairs = zip(_integers(before["ts"]), _integers(before["known_from"]), strict=True)
    missing = [place for place, pair in enumerate(pairs) if pair not in held]
    if missing:
        yield from rows_of(before.take(column(missing, pa.field("place", pa.int64()))))


def rows_of(table: pa.Table | None) -> Iterator[BarVersion]:
    """Yield the rows of a table of the lake as versions, with naive UTC times."""
    if table is None or not table.num_rows:
        return
    moments = (map(_moment, _integers(table[name])) for name in ("ts", "known_from"))
    values = (table[name].to_pylist() for name in VALUES[1:])
    for ts, known_from, *rest in zip(*moments, *values, strict=True):
        yield BarVersion.of((ts, *rest), known_from)


def _integers(column: pa.ChunkedArray) -> list[int]:
    found: list[int] = column.cast(pa.int64()).to_pylist()
    return found


def _moment(microseconds: int) -> datetime:
    return EPOCH + MICROSECOND * microseconds


def with_history(table: pa.Table, known: list[BarVersion]) -> tuple[pa.Table, list[BarVersion]]:
    """Return the bars with the revision and known_from that the known versions give them, and the superseded ones.

    The table's values stay the current ones: a version that is not older than they are is left out.
    """
    if not known:
        return table, []
    others: dict[datetime, list[BarVersion]] = defaultdict(list)
    for item in known:
        others[item.ts].append(item)
    revision, known_from = table["revision"].to_pylist(), _integers(table["known_from"])
    place = {ts: place for place, ts in enumerate(map(_moment, _integers(table["ts"])))}
    superseded: list[BarVersion] = []
    for ts in others.keys() & place.keys():
        row = place[ts]
        current = next(rows_of(table.slice(row, 1)))
        older = [item for item in others[ts] if item.known_from < current.known_from or item.values == current.values]
        *past, last = history([*older, current])
        superseded += past
        revision[row], known_from[row] = last.revision, (last.known_from - EPOCH) // MICROSECOND
    first_known = min(map(_moment, known_from))
    for ts in others.keys() - place.keys():  # the session was fetched again, without this bar
        *past, last = history(others[ts])
        superseded += [*past, replace(last, known_until=max(last.known_from, first_known))]
    changed = {"revision": revision, "known_from": known_from}
    names = table.schema.names
    columns = [column(changed[name], table.schema.field(name)) if name in changed else table[name] for name in names]
    return pa.Table.from_arrays(columns, schema=table.schema), superseded


def history_table(versions: list[BarVersion]) -> pa.Table:
    """Return superseded versions (naive UTC times) as a table of the lake's history, sorted by ts and known_from."""
    ordered = sorted(versions, key=lambda item: (item.ts, item.known_from))
    # During a session, the dates in UTC and New York are equal.
    columns: dict[str, Iterable[Any]] = {"session_date": ((item.ts - EPOCH).days for item in ordered)}
    for name in (*OF_A_BAR, "known_from", "known_until"):
        values = [getattr(item, name) for item in ordered]
        columns[name] = [(value - EPOCH) // MICROSECOND for value in values] if name in MOMENTS else values
    schema = history_schema()
    return pa.Table.from_arrays([column(columns[field.name], field) for field in schema], schema=schema)


def column(values: Iterable[Any], field: pa.Field) -> pa.Array:
    """Return numbers as a column."""
    numbers = array(TYPE_CODES[field.type], values)
    return pa.Array.from_buffers(field.type, len(numbers), [None, pa.py_buffer(numbers)])
