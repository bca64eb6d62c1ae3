"""`barflow status` expects bars of a share only while it is listed, under the name that it has on each day."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from barflow.market.counts import SessionCounts
from barflow.market.instruments import Instruments, parse_instruments
from barflow.pipeline.status import SymbolStatus, compare, is_fresh

# After the close of July 2, 2025.
NOW = datetime(2025, 7, 2, 21, 0, tzinfo=UTC)
RENAMED = '[[instrument]]\nsymbol = "NEW"\nformer = [{ symbol = "OLD", last_day = 2025-06-30 }]\n'
GONE = '[[instrument]]\nsymbol = "GONE"\nfirst_session = 2025-06-27\nlast_session = 2025-06-30\n'


def status(text: str, staged: Mapping[str, Mapping[str, int]]) -> dict[str, SymbolStatus]:
    """Return the status of staged bars: a number by symbol and day of June or July."""
    counts = SessionCounts()
    for symbol, days in staged.items():
        for day, bars in days.items():
            counts.add(symbol, f"2025-{day}", bars, datetime.fromisoformat(f"2025-{day}T19:55:00Z"))
    found: Instruments = parse_instruments(tomllib.loads(text))
    return compare(
        counts, counts, {"bar_5min": counts}, table_rows={}, waiting=set(), rejected={}, now=NOW, instruments=found
    )


def gaps(text: str, staged: Mapping[str, Mapping[str, int]]) -> dict[str, list[str]]:
    return {symbol: item.gaps for symbol, item in status(text, staged).items()}


WHOLE = {"OLD": {"06-27": 78, "06-30": 78}, "NEW": {"07-01": 78, "07-02": 78}}


def test_a_renamed_share_has_no_gap_at_its_rename() -> None:
    found = status(RENAMED, WHOLE)
    assert (found["OLD"].missing_bars, found["NEW"].missing_bars) == (0, 0)
    assert (found["OLD"].ended, found["NEW"].ended) == ("NEW since 2025-07-01", None)
    assert all(is_fresh(item, NOW) for item in found.values())
    assert gaps("", WHOLE)["OLD"] == ["2025-07-01 to 2025-07-02: all 156 bars of 2 sessions missing"]
    assert not is_fresh(status("", WHOLE)["OLD"], NOW)


@pytest.mark.parametrize(
    ("staged", "expected"),
    [
        # A gap is one of the name of its day.
        ({"OLD": {"06-27": 70}, "NEW": WHOLE["NEW"]}, {"OLD": ["06-27: 8", "06-30: 78"], "NEW": []}),
        ({**WHOLE, "NEW": {"07-02": 77}}, {"OLD": [], "NEW": ["07-01: 78", "07-02: 1"]}),
        # The newest name of a session that two names hold counts.
        ({"OLD": {"06-27": 78, "06-30": 50}, "NEW": {"06-30": 78, **WHOLE["NEW"]}}, {"OLD": [], "NEW": []}),
        ({"OLD": {"06-27": 78, "06-30": 78}, "NEW": {"06-30": 77, **WHOLE["NEW"]}}, {"OLD": ["06-30: 1"], "NEW": []}),
        # Twelve Data serves the sessions of the former symbol under the present one.
        ({"NEW": {"06-27": 78, **WHOLE["NEW"]}}, {"NEW": ["06-30: 78"]}),
        # Bars under the former symbol after its last day are another share's, and its listing is unknown.
        ({"OLD": {**WHOLE["OLD"], "07-01": 3}, "NEW": WHOLE["NEW"]}, {"OLD": [], "NEW": []}),
        ({"OLD": WHOLE["OLD"]}, {"OLD": []}),
    ],
)
def test_a_gap_belongs_to_the_name_of_its_day(
    staged: Mapping[str, Mapping[str, int]], expected: Mapping[str, list[str]]
) -> None:
    found = {symbol: [line.partition(" of ")[0] for line in lines] for symbol, lines in gaps(RENAMED, staged).items()}
    assert found == {symbol: [f"2025-{line}" for line in lines] for symbol, lines in expected.items()}


def test_a_delisted_share_has_no_gap_outside_of_its_listing() -> None:
    staged = {"GONE": {"06-26": 5, "06-27": 78, "06-30": 77}}
    assert gaps(GONE, staged)["GONE"] == ["2025-06-30: 1 of 78 bars missing"]
    found = status(GONE, staged)["GONE"]
    assert (found.ended, is_fresh(found, NOW)) == ("delisted after 2025-06-30", True)
    assert gaps("", staged)["GONE"] == [
        "2025-06-26: 73 of 78 bars missing",
        "2025-06-30: 1 of 78 bars missing",
        "2025-07-01 to 2025-07-02: all 156 bars of 2 sessions missing",
    ]
