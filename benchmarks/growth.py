"""Growth: every hop at four numbers of symbols. Time must follow the data, and Python's memory must not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from barflow.errors import BarflowError
from barflow.market.recordings import Row
from benchmarks import memory
from benchmarks.dashboard import answered
from benchmarks.figures import Chapter, Figure, markdown_table
from benchmarks.processes import call
from benchmarks.seed import LAST_CLOSE
from benchmarks.stores import DAYS, Bench
from emulators.twelvedata.server import TwelveDataEmulator
from local.synthetic import SyntheticBars

SIZES = (500, 1000, 2000, 5000)
HOPS = ("first tick", "next tick", "process", "aggregate", "status", "watch list", "candles")
PROGRAMS = ("tick", "process", "aggregate", "status")
EXPONENT, MEMORY = 1.05, 1.5
MEANING = f"""
500, 1,000, 2,000 and 5,000 symbols run through all hops, each from empty stores: the first tick fetches {DAYS} sessions
of each symbol, the next tick the last two sessions again, then come `spark/bars_to_parquet.py`,
`glue/aggregate_bars.py`, an hour later `barflow status`, and the page's watch list and candles (p50). The exponent is
the slope of time over size on logarithmic scales, by least squares: 1 means that time is in proportion to size. The
limit is {EXPONENT}. Times include the start of Python and of the JVM, which weighs more at small sizes. All symbols
have the same bars, so the API emulator does not have to generate them.

The memory of a program is the peak of its Python process. JVM is the larger peak of both Spark programs. The memory of
the servers is the peak over all hops (PSS); they also hold the data of the smaller sizes. Another MongoDB server than
the embedded one has other limits.
"""


@dataclass(frozen=True)
class Run:
    """One size: seconds by hop, MiB by program and server, and the bars."""

    symbols: int
    bars: int
    seconds: dict[str, float]
    mebibytes: dict[str, float]


class SameBars(SyntheticBars):
    """A market whose symbols all have the bars of one."""

    def rows(self, symbol: str, start: datetime, end: datetime) -> list[Row]:
        """Return the bars that open in [start, end) (UTC), oldest first."""
        return super().rows("S000", start, end) if self.knows(symbol) else []


def measure(bench: Bench) -> Chapter:
    """Measure all sizes, or as many as succeed."""
    runs: list[Run] = []
    failed = ""
    for size in SIZES[:3] if bench.quick else SIZES:
        try:
            runs.append(run(bench, bench.symbols(size)))
        except BarflowError as error:
            failed = f"{len(bench.symbols(size)):,} symbols failed: {error}"
            break
    if len(runs) < 2:
        return Chapter("Growth", MEANING, [], [], failed=failed)
    small, large = runs[0], runs[-1]
    sizes = f"{small.symbols:,} to {large.symbols:,} symbols"
    figures = [
        Figure(f"{hop}, {sizes}: exponent of time", exponent(runs, hop), "", "the limit", EXPONENT, 1.0) for hop in HOPS
    ]
    figures += [
        Figure(
            f"{name} of {large.symbols:,} symbols: memory of Python",
            large.mebibytes[name],
            "MiB",
            f"{small.symbols:,} symbols",
            small.mebibytes[name],
            MEMORY,
        )
        for name in PROGRAMS
    ]
    return Chapter("Growth", MEANING, figures, [], _tables(runs), failed=failed)


def run(bench: Bench, names: Sequence[str]) -> Run:
    """Run these symbols through all hops. Raise BarflowError when a program fails."""
    pipeline = bench.pipeline(f"size{len(names)}")
    tick = {"uri": pipeline.mongodb_uri, "name": pipeline.name, "symbols": names, "days": DAYS}
    with memory.sampled(bench.servers()) as servers:
        bench.log(f"growth: ticks of {len(names)} symbols")
        with TwelveDataEmulator(SameBars(), clock=lambda: LAST_CLOSE) as api:
            ticked = call("ours:tick", **tick, url=api.url, now=LAST_CLOSE.isoformat())
        bench.log(f"growth: process and aggregate of {len(names)} symbols")
        processed, loaded = pipeline.process(), pipeline.aggregate()
        bench.log(f"growth: status and page of {len(names)} symbols")
        pipeline.make_older()
        status = pipeline.status(names)
        page = answered(pipeline, names, bench.repeats(100), ("watch-list", "candles of 5min"))
    ended = {"tick": ticked, "process": processed, "aggregate": loaded, "status": status}
    seconds = {
        "first tick": ticked.result["first"],
        "next tick": ticked.result["again"],
        **{hop: ended[hop].seconds for hop in PROGRAMS[1:]},
        "watch list": page["watch-list"]["p50"] / 1000,
        "candles": page["candles of 5min"]["p50"] / 1000,
    }
    python = {name: item.peaks["program"] for name, item in ended.items()}
    java = max(item.peaks.get("java", 0.0) for item in ended.values())
    return Run(len(names), ticked.result["bars"], seconds, {**python, "JVM": java, **servers})


def exponent(runs: Sequence[Run], hop: str) -> float:
    """Return the slope of a line through the logarithms of sizes and times, by least squares."""
    sizes = [math.log(each.symbols) for each in runs]
    return float(np.polyfit(sizes, [math.log(each.seconds[hop]) for each in runs], 1)[0])


def _tables(runs: Sequence[Run]) -> list[str]:
    heads = "symbols", "bars"
    first = [(f"{each.symbols:,}", f"{each.bars:,}") for each in runs]
    times = [tuple(f"{each.seconds[hop]:.3g} s" for hop in HOPS) for each in runs]
    kinds = tuple(runs[0].mebibytes)
    sizes = [tuple(f"{each.mebibytes[kind]:,.0f} MiB" for kind in kinds) for each in runs]
    return [
        markdown_table("time", (*heads, *HOPS), [(*one, *more) for one, more in zip(first, times, strict=True)]),
        markdown_table("memory", (*heads, *kinds), [(*one, *more) for one, more in zip(first, sizes, strict=True)]),
    ]
