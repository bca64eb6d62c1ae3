"""One tick: bars per second and memory, against the API emulator without latency."""

from __future__ import annotations

from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended, call
from benchmarks.seed import LAST_CLOSE
from benchmarks.stores import DAYS, Bench
from emulators.twelvedata.server import TwelveDataEmulator
from local.synthetic import SyntheticBars

MEANING = f"""
The first tick of 500 symbols fetches {DAYS} sessions of each from the API emulator, 50 symbols per request. It stores
the answers as received, validates them and stores the sessions in MongoDB. The emulator runs in another process and
has generated its bars before. Memory is the peak of the ingesting process. It is compared with a tick of 50 symbols,
because the memory of a tick must not grow with the number of symbols.
"""


def measure(bench: Bench) -> Chapter:
    """Measure ticks of many and of few symbols."""
    many, few = bench.symbols(500), bench.symbols(50)
    source = SyntheticBars(cached_sessions=len(many) * (DAYS + 2))
    runs: dict[int, list[Ended]] = {len(many): [], len(few): []}
    with TwelveDataEmulator(source, clock=lambda: LAST_CLOSE) as api:
        for turn in range(1 + bench.repeats(2)):
            bench.log(f"ticks of {len(few)} and {len(many)} symbols" + (f", turn {turn}" if turn else ", to warm up"))
            for symbols in (few, many):
                name = f"tick_{turn}_{len(symbols)}"
                given = {"url": api.url, "uri": bench.services.mongodb_uri, "name": name, "symbols": symbols}
                ended = call("ours:tick", **given, now=LAST_CLOSE.isoformat(), days=DAYS)
                if turn:
                    runs[len(symbols)].append(ended)
    large, small = runs[len(many)], runs[len(few)]
    taken = {name: middle(ended.result[name] for ended in large) for name in large[0].result}
    figures = [
        Figure(f"one tick of {len(many)} symbols", taken["bars"] / taken["first"], "bars/s"),
        Figure(
            f"one tick of {len(many)} symbols: peak memory",
            middle(ended.peak for ended in large),
            "MiB",
            f"one of {len(few)} symbols",
            middle(ended.peak for ended in small),
            1.5,
        ),
    ]
    notes = [
        f"the first tick: {taken['bars']:,.0f} bars in {taken['first']:.1f} s",
        f"the next tick, which fetches the last two sessions again: {taken['bars_again']:,.0f} bars in "
        f"{taken['again']:.1f} s, all unchanged",
    ]
    return Chapter("One tick", MEANING, figures, notes)
