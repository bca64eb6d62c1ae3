"""How fast are aggregates loaded? Against a DataFrame library's upsert, and against COPY alone."""

from __future__ import annotations

from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended, call
from benchmarks.stores import Bench

MEANING = """
Spark computes the rows of all five tables beforehand and holds them. The load into an empty warehouse has three
parts: the tasks COPY into staging tables, every session's bars are checked, and one transaction replaces the touched
keys and writes the ledger. The JVM and Spark's Python workers are already running.

A bare COPY is the minimum for any load: the same rows as prepared text, on one connection and in one transaction,
into tables with the same keys, checks and generated column, without staging and checks. The peer is
`awswrangler.postgresql.to_sql(mode="upsert")` with DataFrames of the same rows, into the same kind of tables. It runs
once, because it takes long.
"""


def measure(bench: Bench) -> Chapter:
    pipeline = bench.wide
    ours: list[Ended] = []
    bare: list[Ended] = []
    for turn in range(bench.repeats(3)):
        bench.say(f"loading the warehouse, turn {turn + 1}: ours, then a bare COPY")
        ours.append(call("ours:load", pipeline.environment, dsn=pipeline.dsn, lake=pipeline.lake))
        bare.append(call("peers:bare_copy", dsn=pipeline.dsn))
    bench.say("loading the warehouse by upsert")
    upsert = call("peers:upsert", dsn=pipeline.dsn)
    rows = upsert.result["rows"]
    assert {ended.result["rows"] for ended in (*ours, *bare)} == {rows}
    what = f"load {rows:,} rows"
    taken = {name: middle(ended.result[name] for ended in ours) for name in ours[0].result}
    least = middle(ended.result["seconds"] for ended in bare)
    figures = [
        Figure(what, taken["seconds"], "s", "awswrangler's upsert", upsert.result["seconds"], 10, times_less=True),
        Figure(what, taken["seconds"], "s", "a bare COPY", least, 2),
    ]
    seen = [
        "Barflow's time: " + ", ".join(f"{name} {taken[name]:.1f} s" for name in ("copy", "check", "commit")),
        f"a bare COPY takes {upsert.result['seconds'] / least:.1f}× less time than the upsert",
        f"not included: the start of Spark's Python workers, {taken['workers']:.1f} s",
    ]
    return Chapter("Load", MEANING, figures, seen)
