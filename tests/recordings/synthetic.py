"""The synthetic recordings: which symbols, which sessions, and which flaws each file has."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path

from recordings.bodies import BODIES
from recordings.files import Recordings
from recordings.forms import answer, broker_csv, twelve_data_rows, watch_list_csv, yahoo_csv
from recordings.market import CENT, Bar, outside, sessions, walk

# Twenty sessions over the end of daylight saving time and of a month; the last one is a half day.
WATCHED = sessions(date(2025, 10, 31), date(2025, 11, 28))
RECORDING_STARTS = datetime(2025, 10, 31, 11, 30)
HALTED = date(2025, 11, 13)
# In basis points: falls and a rise that the alert rule gap_5pct reports, and a rise that is just too small for it.
NIGHTS_OF_TESLA = {
    date(2025, 11, 5): -760,
    date(2025, 11, 12): 490,
    date(2025, 11, 18): -690,
    date(2025, 11, 24): 560,
}
# Three half days and both changes of daylight saving time; nothing was recorded for weeks in between.
LONG = (
    *sessions(date(2025, 6, 30), date(2025, 7, 11)),
    *sessions(date(2025, 10, 20), date(2025, 12, 31)),
    *sessions(date(2026, 2, 23), date(2026, 3, 13)),
)
# Every slot outside the session trades on the first session after each change of daylight saving time, and on a half
# day: code with wrong hours of these sessions stores one of the bars.
UNUSUAL = (date(2025, 11, 3), date(2025, 12, 24), date(2026, 3, 9))
EVERY_SLOT = 24 * 12
LATE_MONTHS = [day for day in LONG if day >= date(2025, 11, 28)]
# What changed in these months after it was first seen: closes and highs, a volume, and a bar that came late.
REVISED_PRICES = {datetime(2025, 10, 27, 10), datetime(2025, 12, 9, 15, 55), datetime(2025, 12, 10, 9, 30)}
REVISED_VOLUME = datetime(2025, 11, 28, 12, 55)
LATE = datetime(2025, 11, 20, 14, 5)
EARNINGS = date(2024, 5, 3)


def synthetic(folder: Path) -> Recordings:
    """Write the synthetic recordings into an empty folder and return them."""
    watched = {symbol: twelve_data_rows(symbol, bars) for symbol, bars in _watched().items()}
    answers = folder / "answers"
    answers.mkdir()
    for symbol, rows in watched.items():
        (answers / f"time_series_{symbol}_5min_{len(rows)}.json").write_bytes(answer(symbol, rows))
    watch_list = _written(folder / "watch_list.csv", watch_list_csv(watched))
    final = {
        "AAPL": _long("AAPL", 205, dict.fromkeys(LATE_MONTHS, 1)),
        "NVDA": _long("NVDA", 150, dict.fromkeys(LATE_MONTHS, 4) | dict.fromkeys(UNUSUAL, EVERY_SLOT)),
    }
    first_seen = {symbol: broker_csv(_as_first_seen(bars)) for symbol, bars in final.items()}
    return Recordings(
        origin="synthetic",
        watch_list=watch_list,
        answers=answers,
        long={symbol: _written(folder / f"long_{symbol}.csv", broker_csv(bars)) for symbol, bars in final.items()},
        long_as_first_seen={
            symbol: _written(folder / f"first_seen_{symbol}.csv", text) for symbol, text in first_seen.items()
        },
        with_gaps={
            symbol: _written(folder / f"with_gaps_{symbol}.csv", yahoo_csv(bars))
            for symbol, bars in _with_gaps().items()
        },
        bodies=BODIES,
    )


def _watched() -> dict[str, list[Bar]]:
    """Return the bars of the watch list: AAPL is tidy, TSLA jumps overnight, and NVDA has every flaw."""
    walks = {
        "AAPL": walk("AAPL", WATCHED, 208),
        "TSLA": walk("TSLA", WATCHED, 315, NIGHTS_OF_TESLA),
        "NVDA": walk("NVDA", WATCHED, 157),
    }
    whole = walks["NVDA"]
    missing = {datetime(2025, 11, 4, 10, 30), datetime(2025, 11, 6, 9, 30), datetime(2025, 11, 6, 15, 55)}
    missing |= {bar.clock for bar in whole if bar.clock.date() == HALTED}
    # A single slot, and a whole half hour.
    idle = {datetime(2025, 11, 10, 12, 35), *(datetime(2025, 11, 20, 12, minute) for minute in range(0, 30, 5))}
    surplus = outside("NVDA", whole, {day: 5 for day in WATCHED[8:] if day != HALTED} | {UNUSUAL[0]: EVERY_SLOT})
    walks["NVDA"] = _in_order([*_idle(_without(whole, missing), idle), *surplus])
    return {symbol: [bar for bar in bars if bar.clock >= RECORDING_STARTS] for symbol, bars in walks.items()}


def _long(symbol: str, dollars: int, surplus: Mapping[date, int]) -> list[Bar]:
    """Return the bars of months, so many a day outside the session; the last session is unfinished, with few shares."""
    bars = walk(f"{symbol} for months", LONG, dollars)
    bars = _in_order([*bars, *outside(symbol, bars, surplus)])
    fragments = LONG[-3]
    bars = [bar if bar.clock.date() < fragments else replace(bar, volume=1 + bar.volume // 50) for bar in bars]
    return [bar for bar in bars if bar.clock < datetime.combine(LONG[-1], time(10, 35))]


def _as_first_seen(bars: Iterable[Bar]) -> list[Bar]:
    """Return the bars before some were revised, and before one came late."""
    found = []
    for bar in _without(bars, {LATE}):
        if bar.clock in REVISED_PRICES:
            bar = replace(bar, high=bar.high + CENT, close=bar.high + CENT)
        elif bar.clock == REVISED_VOLUME:
            bar = replace(bar, volume=bar.volume // 2)
        found.append(bar)
    return found


def _with_gaps() -> dict[str, list[Bar]]:
    """Return six sessions that lack the bar of 10:30 on two days; AAPL rises 7 % overnight and has an idle bar."""
    days = sessions(date(2024, 5, 1), date(2024, 5, 8))
    missing = {datetime(2024, 5, 3, 10, 30), datetime(2024, 5, 6, 10, 30)}
    found = {
        "AAPL": _idle(walk("AAPL with gaps", days, 170, {EARNINGS: 700}), {datetime(2024, 5, 6, 12, 35)}),
        "TSLA": walk("TSLA with gaps", days, 182),
    }
    return {symbol: _without(bars, missing) for symbol, bars in found.items()}


def _without(bars: Iterable[Bar], missing: Container[datetime]) -> list[Bar]:
    return [bar for bar in bars if bar.clock not in missing]


def _idle(bars: Iterable[Bar], clocks: Container[datetime]) -> list[Bar]:
    """Return the bars with those of ``clocks`` flat and without a share traded."""
    return [
        replace(bar, high=bar.open, low=bar.open, close=bar.open, volume=0) if bar.clock in clocks else bar
        for bar in bars
    ]


def _in_order(bars: Iterable[Bar]) -> list[Bar]:
    return sorted(bars, key=lambda bar: bar.clock)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
