"""How fast are aggregates loaded? Against a DataFrame library's upsert, and against COPY alone."""

from __future__ import annotations

from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended, call
from benchmarks.stores import Bench

MEANING = """
The rows of all five tables, computed and held by Spark beforehand, go into an empty warehouse: COPY by the tasks into
staging tables, the check of every session's bars, then one transaction that replaces the touched keys and writes the
ledger. Spark's Python workers have been started, as the JVM has.

A bare COPY is the least that any way has to do: the same rows as ready text, on one connection and in one transaction,
into tables of the same keys, checks and generated column, with no staging and nothing checked. The peer is
`awswrangler.postgresql.to_sql(mode="upsert")` of DataFrames of the same rows, into tables like those; once, for it
takes long.
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
        "where ours goes: " + ", ".join(f"{name} {taken[name]:.1f} s" for name in ("copy", "check", "commit")),
        f"a bare COPY is itself {upsert.result['seconds'] / least:.1f}× less than the upsert",
        f"left out: the start of Spark's Python workers, {taken['workers']:.1f} s",
    ]
    return Chapter("Load", MEANING, figures, seen)
