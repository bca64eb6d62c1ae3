"""Fast reader of session documents: it takes the bytes of the values from the BSON, without an object per value.

Documents with the same number of bars differ only in their values. Every other bit is compared with a document that is
encoded here. If a bit differs (another type, order or field), `barflow.pipeline.session_columns.columns_of` reads the
document. Both ways give the same columns.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import bson
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64

from barflow.market.bars import ARRAYS, FIELDS, INTERVAL, document_key
from barflow.pipeline.session_columns import SessionColumns

MOST_BARS = 400
LAYOUTS = 256  # of about 35 KB each
TYPES = {item.name: item.bson for item in FIELDS}
DAY_BYTES = len("2025-07-02")
KEY_BYTES = len(document_key("", "2025-07-02"))  # without the symbol
VALUES = re.compile(rb"\0+|[^\0]+")


class _Fill(NamedTuple):
    """The value of each type in an example document."""

    letter: str
    int: int
    long: Int64
    double: float
    date: DatetimeMS


ONES = struct.unpack("<d", b"\xff" * 8)[0]
# NONE: values without a set bit. ALLOWED: values with all bits that are allowed here, which are those of ASCII letters,
# numbers from 0, all doubles, and times from 1970 to 6429. EVERY: values without a zero byte.
NONE = _Fill("\0", 0, Int64(0), 0.0, DatetimeMS(0))
ALLOWED = _Fill("\x7f", 2**31 - 1, Int64(2**63 - 1), ONES, DatetimeMS(2**47 - 1))
EVERY = _Fill("\x7f", -1, Int64(-1), ONES, DatetimeMS(-1))


class _Layout(NamedTuple):
    """Where the values of a document are: its bits as integers, and the struct that reads the bytes of each value."""

    bars: int
    allowed: int
    bits: int
    values: struct.Struct


def read_raw(document: bytes) -> SessionColumns | None:
    """Return a session document as columns, or None if it is not exactly as `barflow.staging.sessions` writes it."""
    layout = _find_layout(document)
    if layout is None or int.from_bytes(document, "little") | layout.allowed != layout.bits:
        return None
    key, _symbol, day, version, _run_id, _first_seen, _updated, _requested, *values = layout.values.unpack(document)
    starts = range(0, len(values), layout.bars)
    columns = {name: b"".join(values[start : start + layout.bars]) for name, start in zip(ARRAYS, starts, strict=True)}
    return SessionColumns(
        key.decode(),
        day.decode(),
        int.from_bytes(version, "little"),
        layout.bars,
        any(columns["revision"]),
        columns,
    )


def _head(fill: _Fill, symbol: int) -> dict[str, Any]:
    """Return the fields of an example before the run id. ``symbol`` is the number of letters of its symbol."""
    return {
        "_id": fill.letter * (KEY_BYTES + symbol),
        "symbol": fill.letter * symbol,
        "interval": INTERVAL,
        "session_date": fill.letter * DAY_BYTES,
        "version": fill.int,
    }


def _example(fill: _Fill, symbol: int, run_id: int, bars: int) -> bytes:
    """Return the BSON of a session. ``symbol`` and ``run_id`` are the numbers of letters of its symbol and run id."""
    moments = dict.fromkeys(("first_seen_at", "updated_at", "requested_at"), fill.date)
    arrays = {name: [getattr(fill, TYPES[name])] * bars for name in ARRAYS}
    return bson.encode({**_head(fill, symbol), "run_id": fill.letter * run_id, **moments, **arrays})


# The offsets of the lengths of the key and the run id, in an example without a symbol. Both lengths count a zero byte.
LENGTH = struct.Struct("<i")
KEY_AT = 4 + len(b"\x02_id\0")
RUN_ID_AT = len(bson.encode(_head(NONE, 0))) - 1 + len(b"\x02run_id\0")
EMPTY_BYTES = len(_example(NONE, 0, 0, 0))
# The number of bars by the bytes of the elements of all arrays: each is a type, its index as text, a zero and a value.
VALUE_BYTES = sum(4 if TYPES[name] == "int" else 8 for name in ARRAYS)
ELEMENTS = (VALUE_BYTES + len(ARRAYS) * (2 + len(str(index))) for index in range(MOST_BARS))
BARS = {size: bars for bars, size in enumerate(accumulate(ELEMENTS), start=1)}


def _find_layout(document: bytes) -> _Layout | None:
    """Return the layout of a document by its lengths, or None if they are not those of a session."""
    try:
        symbol = LENGTH.unpack_from(document, KEY_AT)[0] - 1 - KEY_BYTES
        run_id = LENGTH.unpack_from(document, RUN_ID_AT + 2 * symbol)[0] - 1
    except struct.error:
        return None
    bars = BARS.get(len(document) - EMPTY_BYTES - 2 * symbol - run_id, 0)
    return _layout(symbol, run_id, bars) if bars and symbol > 0 and run_id > 0 else None


@lru_cache(LAYOUTS)
def _layout(symbol: int, run_id: int, bars: int) -> _Layout:
    examples = [_example(fill, symbol, run_id, bars) for fill in (NONE, ALLOWED, EVERY)]
    none, allowed, every = (int.from_bytes(example, "little") for example in examples)
    runs = VALUES.findall((none ^ every).to_bytes(len(examples[0]), "little"))
    form = "".join(f"{len(run)}{'s' if run[0] else 'x'}" for run in runs)
    return _Layout(bars, none ^ allowed, allowed, struct.Struct(form))
