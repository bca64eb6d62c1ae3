"""Load: the aggregates into PostgreSQL, against a DataFrame library's upsert and against COPY alone."""

from __future__ import annotations

from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended, call
from benchmarks.stores import Bench

MEANING = """
Spark has computed and cached the rows of all five tables before. They go into an empty warehouse: one transaction
deletes the touched keys, streams the rows as binary COPY into the tables that readers see, counts the bars of every
session on the way, and writes the ledger. The JVM has been started before.

A bare COPY is the least work of any load: the same rows as ready text, on one connection and in one transaction, into
tables with the same keys, checks and generated column. It counts nothing. The peer is
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
        Figure(what, taken["seconds"], "s", "a bare COPY", least, 1.2),
    ]
    notes = [
        f"a bare COPY is itself {upsert.result['seconds'] / least:.1f}× less than the upsert",
    ]
    return Chapter("Load", MEANING, figures, notes)
