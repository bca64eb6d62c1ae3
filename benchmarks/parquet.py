"""MongoDB to Parquet: against a plain implementation, and against the least work that any implementation has."""

from __future__ import annotations

from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended, call
from benchmarks.stores import Bench

MEANING = """
`spark/bars_to_parquet.py` writes all partitions of a new lake from MongoDB. The plain way stores one document per bar,
pulls all of them through the driver with `list(collection.find())`, makes a frame with `createDataFrame` (with a
schema: inferring one takes longer) and writes it with `partitionBy("symbol", "month")`, in a Spark session with the
same settings as ours. Both times include the start of the JVM. The driver is Python and its JVM; their peaks are added.

The limit reads the same session documents raw, without decoding them, and writes all rows once as one Parquet table
with PyArrow. Both sides are whole processes; the time that prepares the limit's table does not count. The limit needs
no JVM. So a program that only starts a Spark session and ends is measured too, and its time is subtracted from ours.
Everything else counts: the plan (MongoDB counts the bars of each document), the start of the workers, a synced file per
partition, the check of every count against MongoDB's, the manifest and the ledger.
"""


def measure(bench: Bench) -> Chapter:
    """Measure our process run, the plain way and the limit."""
    pipeline = bench.wide
    given = {"uri": pipeline.mongodb_uri, "name": pipeline.name}
    ours: list[Ended] = []
    limit: list[Ended] = []
    for turn in range(bench.repeats(3)):
        bench.log(f"MongoDB to Parquet, turn {turn + 1}: ours, then the limit")
        pipeline.new_lake()
        ours.append(pipeline.process())
        limit.append(
            call("peers:least_to_parquet", **given, lake=pipeline.lake, path=str(bench.folder / "least.parquet"))
        )
    plain = bench.plain_spark
    bars = plain.result["rows"]
    assert {ended.result["rows"] for ended in (*ours, *limit)} == {bars}
    what = f"{bars:,} bars, MongoDB to {ours[0].result['partitions']:,} files of Parquet"
    figures = [
        Figure(
            what,
            middle(ended.seconds for ended in ours),
            "s",
            "the plain way, JVM included",
            plain.seconds,
            5.5,
            times_less=True,
        ),
        Figure(
            f"{what}: the driver's memory",
            middle(ended.peak for ended in ours),
            "MiB",
            "the plain way",
            plain.peak,
            4,
            times_less=True,
        ),
        Figure(
            f"{what}: less an empty Spark program",
            middle(ended.seconds for ended in ours) - bench.spark_alone,
            "s",
            "the limit",
            middle(ended.seconds - ended.result["made"] for ended in limit),
            1.8,
        ),
    ]
    return Chapter("MongoDB to Parquet", MEANING, figures, _notes(ours, limit, plain, bench.spark_alone))


def _notes(ours: list[Ended], limit: list[Ended], plain: Ended, spark_alone: float) -> list[str]:
    parts = {name: middle(ended.result[name] for ended in limit) for name in ("drain", "write")}
    begun = middle(ended.lines[0][0] for ended in ours)
    planned = middle(ended.lines[-2][0] - ended.lines[0][0] for ended in ours)
    written = middle(ended.lines[-1][0] - ended.lines[-2][0] for ended in ours)
    ending = middle(ended.seconds - ended.lines[-1][0] for ended in ours)
    peaks = {name: middle(ended.peaks[name] for ended in ours) for name in ours[0].peaks}
    return [
        f"ours in parts: {begun:.1f} s until Spark starts, {planned:.1f} s for the start of Spark beside the plan, "
        f"{written:.1f} s to read, write, check and publish, {ending:.1f} s for the ledger and the end",
        f"a program that only starts a Spark session: {spark_alone:.1f} s",
        f"the limit: {parts['drain']:.1f} s to read, {parts['write']:.1f} s to write",
        "the plain way: " + ", ".join(f"{name} {plain.result[name]:.0f} s" for name in ("find", "frame", "write")),
        f"driver memory: ours Python {peaks['program']:.0f} MiB and JVM {peaks['java']:.0f} MiB, "
        f"the plain way Python {plain.peaks['program']:.0f} MiB and JVM {plain.peaks['java']:.0f} MiB",
    ]
