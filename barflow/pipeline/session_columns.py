"""A staged session as columns in Arrow's layout, and the table that sessions make.

Each column is the bytes of its numbers: an Arrow table of many sessions is made by joining them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import pyarrow as pa

from barflow.errors import BarflowError
from barflow.lake.versions import EPOCH, MOMENTS, TYPE_CODES
from barflow.market.arrow import arrow_schema
from barflow.market.bars import ARRAYS, OF_A_BAR
from barflow.staging.connection import Document
from barflow.staging.sessions import known_from_of

# MongoDB stores times in milliseconds.
MILLISECOND = timedelta(milliseconds=1)
STORED_MOMENT = pa.timestamp("ms", tz="UTC")


class SessionColumns(NamedTuple):
    """One session as MongoDB stages it: the identity of its document, and the bytes of each array by name.

    ``ts`` and ``known_from`` are 64-bit milliseconds since the epoch; the others have the type of the lake's column.
    """

    key: str
    session_date: str
    version: int
    bars: int
    is_revised: bool
    columns: Mapping[str, bytes]


def columns_of(document: Document) -> SessionColumns:
    """Return a session document, read with naive UTC dates, as columns.

    Raises BarflowError for a document whose arrays differ in length: its rows would mix with those of others.
    """
    values = {**{name: document[name] for name in OF_A_BAR}, "known_from": known_from_of(document)}
    day = document["session_date"]
    if len({*map(len, values.values())}) > 1:
        symbol = document["symbol"]
        raise BarflowError(
            f"{symbol} {day}: the arrays of its document differ in length. Nothing was published. Delete "
            f"{document['_id']} from the collection bars, then run "
            f"`barflow backfill --symbols {symbol} --start {day} --end {day}`."
        )
    for name in MOMENTS[:2]:
        values[name] = [(moment - EPOCH) // MILLISECOND for moment in values[name]]
    codes = {field.name: TYPE_CODES[field.type] for field in arrow_schema()}
    columns = {name: array(codes[name], values[name]).tobytes() for name in ARRAYS}
    return SessionColumns(
        document["_id"], day, document["version"], len(values["ts"]), any(document["revision"]), columns
    )


def to_table(sessions: Sequence[SessionColumns]) -> pa.Table:
    """Return sessions, in day order, as one table of the lake's schema, sorted by ts."""
    schema, rows = arrow_schema(), sum(session.bars for session in sessions)

    def column(field: pa.Field) -> pa.Array:
        if field.name == "session_date":
            return _array(field.type, rows, map(_days, sessions))
        stored = (session.columns[field.name] for session in sessions)
        if field.name in MOMENTS:
            return _array(STORED_MOMENT, rows, stored).cast(field.type)
        return _array(field.type, rows, stored)

    return pa.Table.from_arrays([column(field) for field in schema], schema=schema)


def _array(kind: pa.DataType, rows: int, parts: Iterable[bytes]) -> pa.Array:
    return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(b"".join(parts))])


def _days(session: SessionColumns) -> bytes:
    """Return the session's date for each of its bars, in days since the epoch."""
    days = (datetime.fromisoformat(session.session_date) - EPOCH).days
    return array("i", [days]).tobytes() * session.bars
