"""One new bar per symbol: the cost of a run on a short and on a long history."""

from __future__ import annotations

from benchmarks import seed
from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended
from benchmarks.stores import Bench, Pipeline

SYMBOLS = 50
SHORT, LONG = 20, 400
MEANING = f"""
{SYMBOLS} symbols have {SHORT} or {LONG} days of history in MongoDB, in the lake and in the warehouse. One new bar of
each is staged, and `spark/bars_to_parquet.py` and `glue/aggregate_bars.py` run, as after a tick. The two histories
take turns. The start of the JVM does not count: it is the same for both and would hide a difference.
"""


def measure(bench: Bench) -> Chapter:
    """Measure process and aggregate after one new bar, on both histories."""
    names = bench.symbols(SYMBOLS)
    turns = bench.repeats(3)
    pipelines = {days: _history(bench, names, days, turns) for days in (SHORT, LONG)}
    runs: dict[int, list[tuple[Ended, Ended]]] = {SHORT: [], LONG: []}
    for turn in range(turns):
        for days, pipeline in pipelines.items():
            bench.log(f"one new bar on {days} days, turn {turn + 1}")
            seed.add_bars(pipeline.database, names, days, turns - 1 - turn)
            processed, loaded = pipeline.process(), pipeline.aggregate()
            assert processed.result["sessions"] == loaded.result["sessions"] == len(names)
            runs[days].append((processed, loaded))
    figures = [
        Figure(
            f"one new bar of {len(names)} symbols: {what}",
            _seconds(runs[LONG], hops),
            "s",
            f"the same on {SHORT} days",
            _seconds(runs[SHORT], hops),
            1.3,
        )
        for what, hops in (("process and aggregate", (0, 1)), ("process", (0,)), ("aggregate", (1,)))
    ]
    start = {days: middle(ended.jvm_start for run in runs[days] for ended in run) for days in runs}
    rows = {days: pipelines[days].loaded_bars for days in runs}
    notes = [
        f"history: {rows[LONG]:,} bars in the warehouse against {rows[SHORT]:,}",
        f"not counted: the start of the JVM, {start[LONG]:.1f} s and {start[SHORT]:.1f} s a program",
    ]
    return Chapter(f"One new bar, on {LONG} days of history against {SHORT}", MEANING, figures, notes)


def _history(bench: Bench, names: list[str], days: int, but_last: int) -> Pipeline:
    pipeline = bench.pipeline(f"days{days}")
    bench.log(f"generating {days} days of history")
    seed.seed_sessions(pipeline.database, names, days, but_last)
    pipeline.process()
    pipeline.aggregate()
    return pipeline


def _seconds(runs: list[tuple[Ended, Ended]], hops: tuple[int, ...]) -> float:
    return middle(sum(run[hop].seconds_without_jvm_start for hop in hops) for run in runs)
