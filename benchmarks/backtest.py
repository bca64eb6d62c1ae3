"""The backtest: a year of many symbols under twenty rules, against its limits and against evaluating every bar."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from barflow.alerts.rules_file import parse_rules
from barflow.backtest.result import Backtest
from barflow.backtest.run import run
from barflow.backtest.sources import from_lake
from barflow.lake.partitions import Lake
from benchmarks.figures import Chapter, Figure
from benchmarks.processes import call
from benchmarks.seed import LAST_CLOSE, fill_lake, sessions
from benchmarks.stores import Bench

SYMBOLS, DAYS, PROCESSES = 500, 252, 2
SECONDS, MEBIBYTES = 60.0, 2048.0
# Every bar of these symbols is evaluated, too.
PART = 8
MEANING = f"""
The archive holds one year of 5-minute bars of {SYMBOLS} symbols, and the sessions before it that the rules look back
at. Twenty rules, half of them conditions, are evaluated at every bar of the year by {PROCESSES} processes. The time
includes their start and the reading of the archive, on files that are in the page cache. The memory is the peak of the
program and of its processes together. The limits are {SECONDS:.0f} s and {MEBIBYTES:.0f} MiB.

The screen is compared with the evaluation of every bar of {PART} of the symbols in one process, which fires the same
alerts.
"""
RULES: Sequence[dict[str, Any]] = [
    {"kind": "move", "percent": 1.0, "minutes": 30},
    {"kind": "move", "percent": 2.0, "minutes": 60, "direction": "down"},
    {"kind": "gap", "percent": 5.0},
    {"kind": "level", "level": 100.0},
    {"kind": "volume", "times": 5.0, "sessions": 20},
    {"kind": "average", "sessions": 20, "cool_down_minutes": 240},
    {"kind": "average", "bars": 390, "cool_down_minutes": 240},
    {"kind": "extreme", "sessions": 10, "cool_down_minutes": 240},
    {"kind": "extreme", "sessions": 20, "cool_down_minutes": 240},
    {"kind": "silence", "minutes": 20},
    {"when": "crosses_above(close, vwap) && rsi(14) < 30.0 && volume_times(20) > 1.5"},
    {"when": "rsi(14) < 10.0 && change_pct < -1.0"},
    {"when": "close > sma(50) * 1.015 && volume > 100000.0"},
    {"when": "crosses_above(ema(12), ema(26)) && volume_times(20) > 2.0"},
    {"when": "session_high > daily_highest(20) && minutes_since_open > 30.0"},
    {"when": "atr(14) / close > 0.0025"},
    {"when": "close > earlier(12).close * 1.012"},
    {"when": "highest(78) - lowest(78) > 0.035 * close"},
    {"when": "stdev(20) > 0.006 * close || fall_pct(30) >= 1.2"},
    {"when": "volume_times(20) > 5.0 && close > prev_close"},
]


def measure(bench: Bench) -> Chapter:
    """Measure the seconds and the memory of a backtest, and what the screen saves."""
    names, lake = bench.symbols(SYMBOLS), str(bench.folder / "backtest")
    back = parse_rules({"rule": _rules()}).history + 5
    bench.log(f"backtest: writing a lake of {len(names)} symbols and {DAYS + back} days")
    fill_lake(Path(lake), names, DAYS + back)
    bench.log(f"backtest: {len(names)} symbols under {len(RULES)} rules")
    whole = call("backtest:backtest", lake=lake, symbols=names, processes=PROCESSES).result
    bench.log(f"backtest: every bar of {PART} symbols")
    part = {"lake": lake, "symbols": names[:PART], "processes": 1}
    screened = call("backtest:backtest", **part).result
    plain = call("backtest:backtest", **part, screened=False).result
    assert screened["alerts"] == plain["alerts"]
    what = f"backtest of {whole['bars']:,} bars × {len(RULES)} rules"
    figures = [
        Figure(what, whole["seconds"], "s", "the limit", SECONDS, 1.0),
        Figure(f"{what}: memory", whole["memory"], "MiB", "the limit", MEBIBYTES, 1.0),
        Figure(
            f"backtest of {PART} symbols",
            screened["seconds"],
            "s",
            "evaluating every bar",
            plain["seconds"],
            10.0,
            times_less=True,
        ),
    ]
    notes = [
        f"{whole['bars'] / whole['seconds']:,.0f} bars a second, {whole['alerts']:,} alerts, and "
        f"{whole['cooled_down']:,} that a cool-down dropped; {whole['cpu']:.0f} s of processor time"
    ]
    return Chapter("The backtest", MEANING, figures, notes)


def _rules() -> list[dict[str, Any]]:
    return [{"id": f"r{number:02}", **values} for number, values in enumerate(RULES)]


def backtest(lake: str, symbols: list[str], processes: int, *, screened: bool = True) -> dict[str, float]:
    """Run the backtest of the last days. Return the seconds, MiB, bars and alerts."""
    book, days = parse_rules({"rule": _rules()}), sessions(DAYS)
    first, last = days[0].session_date, days[-1].session_date
    begun = time.perf_counter()
    found: Backtest = run(
        book,
        from_lake(Lake(lake), symbols, book, (first, last)),
        LAST_CLOSE,
        first,
        screened=screened,
        processes=processes,
    )
    seconds = time.perf_counter() - begun
    own, other = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    memory = own.ru_maxrss + (processes * other.ru_maxrss if processes > 1 else 0)
    return {
        "seconds": seconds,
        "cpu": sum(each.ru_utime + each.ru_stime for each in (own, other)),
        "memory": memory / 1024,
        "bars": found.bars,
        "alerts": len(found.events),
        "cooled_down": len(found.cooled_down),
    }
