"""How fast do staged bars become Parquet? Against a plain way, and against the least that any way has to do."""

from __future__ import annotations

from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended, call
from benchmarks.seed import seed_plain
from benchmarks.stores import DAYS, Bench

MEANING = """
`spark/bars_to_parquet.py` writes all partitions of a new lake from MongoDB. The simple program stores one document
per bar, reads all of them into the driver with `list(collection.find())`, builds a frame with `createDataFrame` (with
a schema, because inference takes longer) and writes it with `partitionBy("symbol", "month")`, with the same Spark
settings. Both times include the start of the JVM. The driver's memory is the peak of Python plus the peak of its JVM.

The limit reads the same session documents raw, without decoding, and writes all rows once as one Parquet table with
PyArrow. Both parts are whole processes, without the time that prepared the table. The limit needs no JVM, so this
comparison excludes the start of Barflow's JVM. It includes everything else: the plan (MongoDB counts the bars of each
document), the start of the workers, a synced file per partition, the check of every count against MongoDB, the
manifest, the ledger, and the end of the JVM.
"""


def measure(bench: Bench) -> Chapter:
    pipeline = bench.wide
    names = bench.symbols(500)
    given = {"uri": pipeline.mongodb_uri, "name": pipeline.name}
    ours: list[Ended] = []
    limit: list[Ended] = []
    for turn in range(bench.repeats(3)):
        bench.say(f"MongoDB to Parquet, turn {turn + 1}: ours, then the limit")
        pipeline.new_lake()
        ours.append(pipeline.process())
        limit.append(
            call("peers:least_to_parquet", **given, lake=pipeline.lake, path=str(bench.folder / "least.parquet"))
        )
    bench.say("staging the same bars as one document each")
    bars = seed_plain(pipeline.database, names, DAYS)
    bench.say("MongoDB to Parquet, the simple program")
    plain = call("peers:plain_to_parquet", pipeline.environment, **given, path=str(bench.folder / "plain"))
    assert {ended.result["rows"] for ended in (*ours, *limit, plain)} == {bars}
    what = f"{bars:,} bars, MongoDB to {ours[0].result['partitions']:,} files of Parquet"
    figures = [
        Figure(
            what,
            middle(ended.seconds for ended in ours),
            "s",
            "the simple program, JVM included",
            plain.seconds,
            5,
            times_less=True,
        ),
        Figure(
            f"{what}: the driver's memory",
            middle(ended.peak for ended in ours),
            "MiB",
            "the simple program",
            plain.peak,
            4,
            times_less=True,
        ),
        Figure(
            what,
            middle(ended.seconds_without_jvm_start for ended in ours),
            "s",
            "the limit, no JVM",
            middle(ended.seconds - ended.result["made"] for ended in limit),
            3,
        ),
    ]
    return Chapter("MongoDB to Parquet", MEANING, figures, _seen(ours, limit, plain))


def _seen(ours: list[Ended], limit: list[Ended], plain: Ended) -> list[str]:
    parts = {name: middle(ended.result[name] for ended in limit) for name in ("drain", "write")}
    planned = middle(ended.said[0][0] for ended in ours)
    written = middle(ended.said[-1][0] - ended.said[-2][0] for ended in ours)
    ending = middle(ended.seconds - ended.said[-1][0] for ended in ours)
    start = middle(ended.jvm_start for ended in ours)
    peaks = {name: middle(ended.peaks[name] for ended in ours) for name in ours[0].peaks}
    return [
        f"Barflow's time: {planned:.1f} s for imports and the plan, {start:.1f} s for the start of the JVM, "
        f"{written:.1f} s to read, write, check and publish, {ending:.1f} s for the ledger and the end",
        f"the limit: {parts['drain']:.1f} s to read, {parts['write']:.1f} s to write",
        "the simple program: " + ", ".join(f"{name} {plain.result[name]:.0f} s" for name in ("find", "frame", "write")),
        f"driver memory: Barflow's Python {peaks['program']:.0f} MiB and JVM {peaks['java']:.0f} MiB, "
        f"the simple program Python {plain.peaks['program']:.0f} MiB and JVM {plain.peaks['java']:.0f} MiB",
    ]
