"""The fast way to read a session gives the columns of the plain way, or leaves the document to it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import cycle, islice
from typing import Any

import bson
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from barflow.market.bars import ARRAYS, PRICES, SessionBars
from barflow.pipeline.raw_sessions import read_raw
from barflow.pipeline.session_columns import columns_of
from barflow.staging.sessions import _write

OPENS = datetime.fromisoformat("2025-07-02T13:30:00+00:00")
ASKED = datetime.fromisoformat("2025-07-02T20:00:04.567+00:00")
# The index of an element, a part of its BSON, has one, two or three digits.
COUNTS = st.sampled_from([1, 2, 10, 11, 42, 77, 78, 101])
DOUBLES = st.floats(width=64)  # also infinities, NaN and -0.0
MOMENTS = st.datetimes(
    datetime.fromisoformat("1970-01-01"), datetime.fromisoformat("6000-01-01"), timezones=st.just(UTC)
)
# Values that the plain way reads otherwise, or rejects.
OTHERS = st.sampled_from(
    [7, Int64(7), 7.5, -1, Int64(-1), "7", "", None, True, [], DatetimeMS(-1), DatetimeMS(2**48), DatetimeMS(-(2**62))]
)
TEXTS = st.sampled_from(["", "é", "A\0B", "2025-07-02T", "x" * 133, "AAPL|5min|2025-07-02"])


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a session as barflow.staging.sessions inserts it, with repeating values."""
    bars = draw(COUNTS)

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return list(islice(cycle(draw(st.lists(values, min_size=1, max_size=4))), bars))

    columns = {name: column(DOUBLES) for name in PRICES}
    columns["volume"] = column(st.integers(0, 2**63 - 1))
    columns["revision"] = column(st.just(0) | st.integers(0, 2**31 - 1))
    columns["known_from"] = column(MOMENTS)
    ts = [OPENS + timedelta(minutes=5 * place) for place in range(bars)]
    symbol = draw(st.text("ABZ.", min_size=1, max_size=7))
    session = SessionBars(symbol, date.fromisoformat("2025-07-02"), ts, **columns)
    write: Any = _write(session, None, draw(st.text("az09-", min_size=1, max_size=40)), ASKED)
    return {**write._doc, "version": draw(st.integers(1, 2**31 - 1))}


def is_read(raw: bytes) -> bool:
    """Return whether the fast way reads the document. Assert that it gives the columns of the plain way then."""
    found = read_raw(raw)
    assert found is None or found == columns_of(bson.decode(raw))
    return found is not None


@given(documents())
def test_a_document_as_staging_writes_it_is_read_the_fast_way(document: dict[str, Any]) -> None:
    assert is_read(bson.encode(document))


@given(documents(), st.data())
def test_a_value_of_another_type_or_range_goes_the_plain_way(document: dict[str, Any], data: st.DataObject) -> None:
    name, value = data.draw(st.sampled_from([*ARRAYS, "version", "updated_at"])), data.draw(OTHERS)
    if name in ARRAYS:
        document[name][data.draw(st.integers(0, len(document[name]) - 1))] = value
    else:
        document[name] = value
    is_read(bson.encode(document))


@given(documents(), st.data())
def test_a_document_of_other_fields_texts_or_lengths_goes_the_plain_way(
    document: dict[str, Any], data: st.DataObject
) -> None:
    name, array = data.draw(st.sampled_from([*document])), data.draw(st.sampled_from(ARRAYS))
    changes: dict[str, dict[str, Any]] = {
        "extra": document | {"note": data.draw(OTHERS)},
        "missing": {field: value for field, value in document.items() if field != name},
        "renamed": {field[::-1] if field == name else field: value for field, value in document.items()},
        "last": {**{field: value for field, value in document.items() if field != name}, name: document[name]},
        "shorter": document | {array: document[array][:-1]},
        "longer": document | {array: [*document[array], document[array][-1]]},
        "text": document | {data.draw(st.sampled_from(["_id", "symbol", "session_date", "run_id"])): data.draw(TEXTS)},
        "interval": document | {"interval": "1min"},
    }
    kind = data.draw(st.sampled_from([*changes]))
    read = is_read(bson.encode(changes[kind]))
    assert not read or kind in ("last", "text"), "known_from is last already, and some texts have the usual length"


@given(documents(), st.data())
def test_a_damaged_document_is_read_as_the_plain_way_reads_it(document: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(bson.encode(document))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    is_read(bytes(raw[: data.draw(st.just(len(raw)) | st.integers(0, len(raw)))]))
