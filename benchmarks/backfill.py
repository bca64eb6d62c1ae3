"""A backfill: its rate against the credits of Twelve Data's plans, its CPU, and its memory."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from barflow.pipeline.capacity import plan_credits
from barflow.text import counted
from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended, call
from benchmarks.stores import Bench
from emulators.twelvedata.server import TwelveDataEmulator
from local.synthetic import SyntheticBars

FIRST, LAST, SESSIONS = "2025-01-02", "2025-12-31", 250
# A request has whole sessions of 78 bars, at most 5,000 bars, and costs a credit.
BARS_PER_CREDIT = 64 * 78
MEANING = """
A backfill fetches a year of 20 symbols from the API emulator, in another process without latency, into the embedded
MongoDB. It runs with several processes, as for a large plan, and with one. The seconds are compared with the time
in which a plan's credits allow the same bars: below 1×, the credits are the limit, and not barflow. The CPU is that of
barflow alone. It does not include the start of Python and the embedded database server, which uses the same cores.
Memory is the peak of one process, compared with a backfill of 10 symbols.
"""


def measure(bench: Bench) -> Chapter:
    """Measure backfills by several processes and by one, of many and of few symbols."""
    many, few = bench.symbols(20), bench.symbols(10)
    source = SyntheticBars(cached_sessions=len(many) * (SESSIONS + 2))
    runs: dict[str, list[Ended]] = {"several": [], "one": [], "few": []}
    with TwelveDataEmulator(source) as api:
        for turn in range(1 + bench.repeats(2)):
            bench.log(f"backfills of {len(many)} symbols" + (f", turn {turn}" if turn else ", to warm up"))
            for name, symbols in (("several", many), ("one", many), ("few", few)):
                given = {"url": api.url, "uri": bench.services.mongodb_uri, "name": f"backfill_{turn}_{name}"}
                ended = call("backfill:fetch", **given, symbols=symbols, alone=name != "several")
                if turn:
                    runs[name].append(ended)
    bars = runs["one"][0].result["bars"]
    seconds = middle(ended.result["seconds"] for ended in runs["several"])
    cpu = middle(ended.result["cpu"] for ended in runs["one"])
    allowed = {name: bars / BARS_PER_CREDIT / credits * 60 for name, credits in plan_credits().items()}
    what = f"backfill of {bars:,} bars"
    peak, least = (middle(ended.peak for ended in runs[name]) for name in ("one", "few"))
    figures = [
        Figure(what, seconds, "s", "the credits of Grow", allowed["Grow"], 1.0),
        Figure(f"{what}: CPU of barflow", cpu, "s", "two cores, the credits of Pro", 2 * allowed["Pro"], 1.0),
        Figure(
            f"{what}: memory of a process", peak, "MiB", f"a backfill of {counted(len(few), 'symbol')}", least, 1.25
        ),
    ]
    notes = [
        f"several processes store {bars / seconds:,.0f} bars/s, one "
        f"{bars / middle(ended.result['seconds'] for ended in runs['one']):,.0f}; the credits allow "
        + ", ".join(f"{name} {bars / taken:,.0f}" for name, taken in allowed.items()),
        f"a bar takes {cpu / bars * 1e6:.1f} µs of barflow's CPU: Ultra's credits keep {cpu / allowed['Ultra']:.1f} "
        "cores busy",
    ]
    return Chapter("A backfill", MEANING, figures, notes)


def fetch(url: str, uri: str, name: str, symbols: list[str], alone: bool) -> dict[str, Any]:
    """Backfill the symbols. Return the bars, the seconds, and the CPU seconds of this process."""
    from barflow.pipeline.backfill import run
    from barflow.pipeline.stores import Stores
    from barflow.settings import load_settings

    settings = load_settings(
        twelvedata_url=url,
        twelvedata_api_key="emulator-key",
        mongodb_uri=uri,
        mongodb_database=name,
        credits_per_minute=10**6,
        credits_per_day=10**9 if alone else None,  # under a daily cap, one process fetches
        batch_size=120,
    )
    begun, cpu = time.perf_counter(), time.process_time()
    report = run(
        Stores(settings),
        symbols,
        date.fromisoformat(FIRST),
        date.fromisoformat(LAST),
        lambda line: None,
        lambda count: None,
    )
    return {"bars": report.total.new, "seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
