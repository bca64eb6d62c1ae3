"""Load: the aggregates into PostgreSQL, against a DataFrame library's upsert and against COPY alone."""

from __future__ import annotations

from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended, call
from benchmarks.stores import Bench

MEANING = """
Spark has computed and cached the rows of all five tables before. They go into an empty warehouse: the tasks COPY them
into staging tables, every session's bars are checked, and one transaction replaces the touched keys and writes the
ledger. The JVM and Spark's Python workers have been started before.

A bare COPY is the least work of any load: the same rows as ready text, on one connection and in one transaction, into
tables with the same keys, checks and generated column. It uses no staging tables and checks nothing. The peer is
`awswrangler.postgresql.to_sql(mode="upsert")`, with DataFrames of the same rows, into the same kind of tables. It runs
once, because it takes long.
"""


def measure(bench: Bench) -> Chapter:
    """Measure our load, the upsert and a bare COPY."""
    pipeline = bench.wide
    ours: list[Ended] = []
    bare: list[Ended] = []
    for turn in range(bench.repeats(3)):
        bench.log(f"loading the warehouse, turn {turn + 1}: ours, then a bare COPY")
        ours.append(call("ours:load", pipeline.environment, dsn=pipeline.dsn, lake=pipeline.lake))
        bare.append(call("peers:bare_copy", dsn=pipeline.dsn))
    upsert = bench.upsert
    rows = upsert.result["rows"]
    assert {ended.result["rows"] for ended in (*ours, *bare)} == {rows}
    what = f"load {rows:,} rows"
    taken = {name: middle(ended.result[name] for ended in ours) for name in ours[0].result}
    least = middle(ended.result["seconds"] for ended in bare)
    figures = [
        Figure(what, taken["seconds"], "s", "awswrangler's upsert", upsert.result["seconds"], 10, times_less=True),
        Figure(what, taken["seconds"], "s", "a bare COPY", least, 2),
    ]
    notes = [
        "ours in parts: " + ", ".join(f"{name} {taken[name]:.1f} s" for name in ("copy", "check", "commit")),
        f"a bare COPY is itself {upsert.result['seconds'] / least:.1f}× less than the upsert",
        f"not counted: the start of Spark's Python workers, {taken['workers']:.1f} s",
    ]
    return Chapter("Load", MEANING, figures, notes)
