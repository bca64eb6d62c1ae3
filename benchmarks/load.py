"""How fast are aggregates loaded? Against a DataFrame library's upsert, and against COPY alone."""

from __future__ import annotations

from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended, call
from benchmarks.stores import Bench

# What the upsert is measured on: it takes half a minute for these.
SLICE = 100
MEANING = f"""
The rows of all five tables, computed and held by Spark beforehand, go into an empty warehouse: COPY by the tasks into
staging tables, the check of every session's bars, then one transaction that replaces the touched keys and writes the
ledger. A bare COPY is the least that any way has to do: the same rows as ready text, on one connection and in one
transaction, into tables of the same keys, indexes, checks and generated column, with no staging and no check.

The peer is `awswrangler.postgresql.to_sql(mode="upsert")` of DataFrames of the same rows. It is measured, like ours
next to it, on the rows of {SLICE} of the 500 symbols, since all of them would take it minutes.
"""


def measure(bench: Bench) -> Chapter:
    pipeline = bench.wide
    given = {"dsn": pipeline.dsn}
    part = bench.symbols(SLICE)
    ours: list[Ended] = []
    bare: list[Ended] = []
    sliced: list[Ended] = []
    for turn in range(bench.repeats(3)):
        bench.say(f"loading the warehouse, turn {turn + 1}: ours, then a bare COPY, then ours of a part")
        ours.append(call("ours:load", pipeline.environment, **given, lake=pipeline.lake, symbols=None))
        bare.append(call("peers:bare_copy", **given))
        sliced.append(call("ours:load", pipeline.environment, **given, lake=pipeline.lake, symbols=part))
    bench.say("loading the same part by upsert")
    upsert = call("peers:upsert", **given)
    rows, some = ours[0].result["rows"], sliced[0].result["rows"]
    assert {ended.result["rows"] for ended in (*ours, *bare)} == {rows}
    assert upsert.result["rows"] == some
    figures = [
        Figure(
            f"load {some:,} rows",
            middle(ended.result["seconds"] for ended in sliced),
            "s",
            "awswrangler's upsert",
            upsert.result["seconds"],
            10,
            times_less=True,
        ),
        Figure(
            f"load {rows:,} rows",
            middle(ended.result["seconds"] for ended in ours),
            "s",
            "a bare COPY",
            middle(ended.result["seconds"] for ended in bare),
            2,
        ),
    ]
    parts = {name: middle(ended.result[name] for ended in ours) for name in ("copy", "check", "commit")}
    seen = [
        "where ours goes: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items()),
        f"rows a second: ours {rows / figures[1].ours:,.0f}, a bare COPY {rows / figures[1].theirs:,.0f}, "
        f"the upsert {some / figures[0].theirs:,.0f}",
    ]
    return Chapter("Load", MEANING, figures, seen)
