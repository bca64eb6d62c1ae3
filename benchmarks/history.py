"""History: one new bar per symbol, on short and on long histories, and on two years of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psycopg

from barflow.market.sessions import utc_now
from barflow.operations.expiry import compact_manifests, expire_runs
from benchmarks import seed
from benchmarks.dashboard import answered, fill_outbox
from benchmarks.figures import Chapter, Figure, markdown_table, middle
from benchmarks.stores import Bench, Pipeline

SYMBOLS = 20
AGE = timedelta(days=730)
TICKS_A_RUN, ALERTS_A_RUN = 4, 5  # 40,000 ticks, one every 5 minutes of two years' sessions; 50,000 alerts
HOPS = ("process", "aggregate", "status", "watch list", "alerts")
LIMIT = 1.3
MEANING = f"""
{SYMBOLS} symbols have 20, 400 or 2,000 sessions in MongoDB, in the lake and in the warehouse, and records of 10 runs.
Other stores have 20 sessions and records of 10,000 runs. The records are spread over two years. Each run has a
manifest, a load and an entry in the ledger, {TICKS_A_RUN} ticks and {ALERTS_A_RUN} alerts. The sweep's work of a night
is done once: runs older than 90 days expire from the ledger, and manifests older than 40 days move to files by day.
One new bar per symbol is staged, and `spark/bars_to_parquet.py`, `glue/aggregate_bars.py` and `barflow status` run, as
after a tick. Then the page's watch list and alerts are requested (p50). All stores take turns, and the first turn does
not count. The seconds of a program that only starts a Spark session are subtracted: they are the same for all and would
hide a difference.
"""


@dataclass(frozen=True)
class History:
    """How much a pipeline has seen."""

    sessions: int
    runs: int

    @property
    def text(self) -> str:
        """Return the history in words."""
        return f"{self.sessions:,} sessions and {self.runs:,} runs"


SHORT, LONGER, LONG, BUSY = History(20, 10), History(400, 10), History(2000, 10), History(20, 10_000)


def measure(bench: Bench) -> Chapter:
    """Measure the hops after one new bar, on all histories."""
    names, turns = bench.symbols(SYMBOLS), bench.repeats(3)
    histories = (SHORT, LONGER, History(20, 1000)) if bench.quick else (SHORT, LONGER, LONG, BUSY)
    stores = {history: _stored(bench, names, history, turns + 1) for history in histories}
    taken: dict[History, list[dict[str, float]]] = {history: [] for history in histories}
    for turn in range(bench.quick, turns + 1):
        for history, pipeline in stores.items():
            bench.log(f"one new bar on {history.text}" + (f", turn {turn}" if turn else ", not counted"))
            seed.add_bars(pipeline.database, names, history.sessions, turns - turn)
            found = _turn(pipeline, names, 10 if bench.quick else 50, bench.spark_alone)
            if turn:
                taken[history].append(found)
    seconds = {
        history: {hop: middle(each[hop] for each in found) for hop in found[0]} for history, found in taken.items()
    }
    return Chapter("One new bar, on more history", MEANING, _figures(len(names), seconds), [], [_table(seconds)])


def repeat_runs(pipeline: Pipeline, names: Sequence[str], count: int) -> None:
    """Copy the records of the newest process run and of its load ``count`` times, spread over two years."""
    folder, newest = Path(pipeline.lake) / "manifests", utc_now()
    run = pipeline.database["ledger"].find_one({"hop": "process"}, sort=[("started_at", -1)])
    assert run is not None
    manifest = json.loads((folder / f"{run['manifest']}.json").read_text())
    moments = [newest - AGE * (count - number) / count for number in range(count)]
    ids = [f"{moment:%Y%m%dT%H%M%SZ}-process-{number:06x}" for number, moment in enumerate(moments)]
    for name, moment in zip(ids, moments, strict=True):
        copy = {**manifest, "run_id": name, "created_at": moment.isoformat()}
        (folder / f"{name}.json").write_text(json.dumps(copy))
    runs = [{**run, **_times(name, moment), "manifest": name} for name, moment in zip(ids, moments, strict=True)]
    ticks = [
        {**run, **_times(f"{name.replace('process', 'ingest')}-{number}", moment), "hop": "ingest"}
        for name, moment in zip(ids, moments, strict=True)
        for number in range(TICKS_A_RUN)
    ]
    for start in range(0, len(runs + ticks), 1000):
        pipeline.database["ledger"].insert_many((runs + ticks)[start : start + 1000], ordered=False)
    with psycopg.connect(pipeline.dsn) as connection:
        connection.cursor().executemany(
            "insert into ops.load_run (load_id, manifests, started_at, finished_at, rows, outcome) "
            "select %s, %s, %s, %s, rows, outcome from ops.load_run order by started_at desc limit 1",
            [
                (name.replace("process", "load"), [name], moment, moment)
                for name, moment in zip(ids, moments, strict=True)
            ],
        )
    fill_outbox(pipeline, names, count * ALERTS_A_RUN)


def _times(name: str, moment: datetime) -> dict[str, object]:
    return {"_id": name, "run_id": name, "started_at": moment, "finished_at": moment + timedelta(seconds=20)}


def _stored(bench: Bench, names: Sequence[str], history: History, but_last: int) -> Pipeline:
    """Return a pipeline with this history. Its newest session lacks its last ``but_last`` bars."""
    pipeline = bench.pipeline(f"history{history.sessions}x{history.runs}")
    bench.log(f"generating {history.text}")
    seed.seed_sessions(pipeline.database, names, history.sessions, but_last + 1)
    pipeline.process()
    pipeline.aggregate()
    seed.add_bars(pipeline.database, names, history.sessions, but_last)  # so that the copied runs are those of a tick
    pipeline.process()
    pipeline.aggregate()
    repeat_runs(pipeline, names, history.runs)
    pipeline.make_older()
    expire_runs(pipeline.stores())
    compact_manifests(pipeline.stores())
    return pipeline


def _turn(pipeline: Pipeline, names: Sequence[str], rounds: int, spark_alone: float) -> dict[str, float]:
    """Return the seconds of each hop after a new bar of each symbol."""
    processed, loaded = pipeline.process(), pipeline.aggregate()
    assert processed.result["sessions"] == loaded.result["sessions"] == len(names)
    page = answered(pipeline, names, rounds, ("watch-list", "alerts"))
    return {
        "process": processed.seconds - spark_alone,
        "aggregate": loaded.seconds - spark_alone,
        "status": pipeline.status(names).seconds,
        "watch list": page["watch-list"]["p50"] / 1000,
        "alerts": page["alerts"]["p50"] / 1000,
    }


def _figures(symbols: int, seconds: dict[History, dict[str, float]]) -> list[Figure]:
    """Compare the longest history and the most runs with the least of both."""
    least, *_, longest, busiest = seconds
    return [
        Figure(
            f"one new bar of {symbols} symbols, {what}: {hop}",
            seconds[large][hop] * scale,
            unit,
            least.text,
            seconds[least][hop] * scale,
            LIMIT,
        )
        for large, what in ((longest, f"{longest.sessions:,} sessions"), (busiest, f"{busiest.runs:,} runs"))
        for hop in HOPS
        for scale, unit in ((1000, "ms") if hop in ("watch list", "alerts") else (1, "s"),)
    ]


def _table(seconds: dict[History, dict[str, float]]) -> str:
    rows = [(history.text, *(f"{found[hop]:.3g} s" for hop in HOPS)) for history, found in seconds.items()]
    return markdown_table("time", ("stores", *HOPS), rows)
