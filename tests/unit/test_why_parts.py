"""Which bar a time names, which manifest holds a version first, and how the stores' values are compared."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest

from barflow.errors import BadInputError
from barflow.lake.manifests import Manifest, Partition
from barflow.market.sessions import session
from barflow.market.versions import BarVersion
from barflow.operations.why.compare import Reached, gaps, stored
from barflow.operations.why.moment import Slot, parse_time, slot_at
from barflow.operations.why.published import MOST_MANIFESTS, Manifests, Moments, Run
from barflow.operations.why.staged import holds, rows_of
from barflow.operations.why.story import Values

DAY = date(2025, 7, 2)
TRADED = session(DAY)
assert TRADED is not None
SLOT = Slot(TRADED, TRADED.slots[1])
START = datetime(2025, 7, 2, 13, 40, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    "text",
    [
        "2025-07-02 09:35",
        "2025-07-02 09:39:59.9",
        "2025-07-02T13:37Z",
        "2025-07-02T15:36+02:00",
        " 2025-07-02T13:35:00+00:00 ",
    ],
)
def test_any_moment_within_a_bar_names_it(text: str) -> None:
    slot = slot_at(parse_time(text))
    assert (slot.ts, slot.day, slot.text) == (SLOT.ts, DAY, "2025-07-02 13:35:00")
    assert slot.label == "2025-07-02 09:35 New York (13:35 UTC)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2025-07-02", "not a date and a time"),
        ("yesterday", "not a date and a time"),
        ("\x1b[31m", r"'\\x1b\[31m' is not a date and a time"),
        ("2025-07-02 09:29", "bars open from 09:30 to 15:55 New York"),
        ("2025-07-02 16:00", "bars open from 09:30 to 15:55 New York"),
        ("2025-07-03 13:00", "bars open from 09:30 to 12:55 New York"),
        ("2025-07-04 10:00", "next to it open at 2025-07-03 12:55 and 2025-07-07 09:30 New York"),
        ("2031-12-28 10:00", "and 2031-12-29 09:30 New York"),  # days before the calendar ends
        ("1999-07-01 10:00", "no exchange calendar for 1999-07-01"),
        ("9999-12-31 23:59", "outside of the calendar"),
        ("0001-01-01T00:00Z", "outside of the calendar"),
    ],
)
def test_a_time_without_a_bar_is_refused_with_one_message(text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as refused:
        slot_at(parse_time(text))
    assert "\n" not in str(refused.value)


def test_the_rows_of_a_bar_are_found_in_both_formats() -> None:
    row = {"datetime": SLOT.text, "open": "1", "high": "2", "low": "1", "close": "1.50000", "volume": "7"}
    other = {**row, "datetime": "2025-07-02 13:40:00"}
    single = {"body": b'{"values": [%b, %b], "status": "ok"}' % (orjson.dumps(other), orjson.dumps(row))}
    batch = {"body": orjson.dumps({"AAPL": {"values": [row]}, "MSFT": {"code": 404}}).decode()}
    assert rows_of(single, "AAPL", SLOT.text) == rows_of(batch, "AAPL", SLOT.text) == [row]
    assert rows_of(batch, "MSFT", SLOT.text) == rows_of({"body": "<html>"}, "AAPL", SLOT.text) == []
    version = BarVersion(SLOT.ts, 1.0, 2.0, 1.0, 1.5, 7, START)
    assert holds(row, version)
    assert not holds({**row, "close": "1.6"}, version)
    assert not holds({**row, "close": None}, version)
    assert not holds("row", version)


class FakeLake:
    """Manifests by run id. It counts the reads."""

    def __init__(self, *manifests: Manifest) -> None:
        self.manifests, self.reads = {item.run_id: item for item in manifests}, list[str]()

    def manifest(self, run_id: str) -> Manifest:
        self.reads.append(run_id)
        return self.manifests[run_id]


def manifest(run_id: str, version: int | None, complete_until: datetime | None = None) -> Manifest:
    versions = {} if version is None else {DAY.isoformat(): version}
    partitions = (Partition("AAPL", "2025-07", 78, versions),)
    return Manifest(run_id, START, partitions, complete_until=complete_until)


def runs(*minutes: tuple[str, int, int]) -> list[Run]:
    return [Run(name, START + began * MINUTE, START + ended * MINUTE) for name, began, ended in minutes]


def manifests_of(lake: FakeLake, found: list[Run]) -> Manifests:
    opened: Any = lake
    return Manifests(opened, "AAPL", SLOT, lambda since: [run for run in found if run.started_at >= since])


def first_of(lake: FakeLake, found: list[Run], known: int, earliest: int, latest: int) -> tuple[str | None, str | None]:
    moments = Moments(START + earliest * MINUTE, START + latest * MINUTE)
    announced, unsure = manifests_of(lake, found).of_version(START + known * MINUTE, moments)
    return announced and announced.run.manifest, unsure


def test_the_first_run_that_began_after_a_version_was_stored_holds_it() -> None:
    lake = FakeLake(manifest("before", 1), manifest("other", None), manifest("first", 2), manifest("second", 3))
    found = runs(("before", 0, 2), ("other", 6, 7), ("first", 8, 9), ("second", 10, 11))
    assert first_of(lake, found, 3, 4, 5) == ("first", None)
    assert first_of(lake, found, 12, 12, 13) == (None, None)


def test_a_run_that_worked_while_a_version_was_stored_is_named_as_unsure() -> None:
    lake = FakeLake(manifest("during", 2), manifest("after", 3))
    found = runs(("during", 0, 6), ("after", 8, 9))
    assert first_of(lake, found, 3, 4, 5) == ("after", "during")
    assert first_of(lake, found[:1], 3, 4, 5) == ("during", None)


def test_a_manifest_that_is_complete_until_later_holds_the_version() -> None:
    lake = FakeLake(manifest("during", 2, complete_until=START + 4 * MINUTE), manifest("after", 3))
    assert first_of(lake, runs(("during", 4, 6), ("after", 8, 9)), 3, 3, 5) == ("during", None)


def test_the_run_of_a_session_published_exactly_its_version() -> None:
    lake = FakeLake(manifest("old", 1), manifest("new", 2))
    found = manifests_of(lake, runs(("old", 0, 5), ("new", 1, 6)))
    announced = found.of_session(2, START + 4 * MINUTE)
    assert announced is not None
    assert announced.run.manifest == "new"
    assert found.of_session(3, START) is None


def test_a_manifest_is_read_once_and_only_after_the_version() -> None:
    names = [f"run-{number:03}" for number in range(3 * MOST_MANIFESTS)]
    lake = FakeLake(*(manifest(name, 1) for name in names))
    found = manifests_of(lake, runs(*((name, 60 * at, 60 * at + 5) for at, name in enumerate(names))))
    for _ in range(2):
        announced, _unsure = found.of_version(START + 600 * MINUTE, Moments(START + 600 * MINUTE, START + 601 * MINUTE))
        assert announced is not None
        assert announced.run.manifest == "run-011"
    assert lake.reads == ["run-010", "run-011"]


ONE, TWO = (Values(open=1, high=2, low=1, close=close, volume=5) for close in (1.25, 1.5))
ALL = Reached(staging=True, lake=True, warehouse=True, published=True, loaded=True)


def changed(reached: Reached, **flags: bool) -> Reached:
    return Reached(**{**vars(reached), **flags})


def lines(*values: Values | None, reached: Reached = ALL) -> Iterator[str]:
    return gaps(stored(*values), reached, "AAPL")


def test_stores_that_agree_leave_no_gap() -> None:
    assert stored(ONE, ONE, ONE).agree
    assert stored(None, ONE, ONE).agree
    assert not stored(ONE, TWO, ONE).agree
    assert [*lines(ONE, ONE, ONE)] == []


@pytest.mark.parametrize(
    ("values", "reached", "expected"),
    [
        ((ONE, None, None), ALL, ["lake does not hold the bar yet. The next `barflow process`"]),
        ((ONE, ONE, None), ALL, ["warehouse does not hold the bar yet. The next `barflow aggregate`"]),
        ((None, ONE, ONE), ALL, ["MongoDB no longer holds the bar"]),
        ((TWO, ONE, ONE), changed(ALL, published=False), ["lake holds an earlier version"]),
        ((TWO, TWO, ONE), changed(ALL, loaded=False), ["warehouse holds an earlier version"]),
        ((TWO, ONE, ONE), ALL, ["lake differs from MongoDB: close 1.25 instead of 1.5. Run `barflow process --full"]),
        ((TWO, TWO, ONE), ALL, ["warehouse differs from the lake: close 1.25 instead of 1.5. Run `barflow aggregate"]),
        ((TWO, None, ONE), changed(ALL, lake=False), ["warehouse differs from MongoDB"]),
        ((None, None, ONE), changed(ALL, staging=False, lake=False), []),
        ((None, ONE, None), changed(ALL, staging=False, warehouse=False), []),
    ],
)
def test_a_gap_is_named(values: tuple[Any, ...], reached: Reached, expected: list[str]) -> None:
    found = [*lines(*values, reached=reached)]
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True)), found
