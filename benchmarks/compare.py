"""Barflow against the tools that users would pick instead: the same rows in the same run, time and memory."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from barflow.errors import BarflowError
from barflow.market.bars import BAR_TABLES
from benchmarks.chart import Bar, Chart, Panel, bars
from benchmarks.figures import Chapter, Figure, markdown_table, middle
from benchmarks.processes import ROOT, Ended, call, calling, run
from benchmarks.stores import Bench, Pipeline

PYTHON = ROOT / "build" / "peers" / "bin" / "python"
KEYS = {**{name: ["symbol", "bar_start"] for name in BAR_TABLES}, "daily_metrics": ["symbol", "session_date"]}
# dlt reports its use over the network unless told not to.
QUIET = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL", "PYTHONWARNINGS": "ignore"}
TYPES = {
    "text": pa.string(),
    "date": pa.date32(),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "double precision": pa.float64(),
    "bigint": pa.int64(),
    "smallint": pa.int16(),
}
ADBC, DUCKDB, MERGE = "ADBC, INSERT … ON CONFLICT", "DuckDB, INSERT … ON CONFLICT", "dlt, Arrow, merge"
APPEND, ROWS, UPSERT = "dlt, Arrow, append", "dlt, rows, append", "awswrangler, upsert"
LOADS = {ADBC: "adbc_upsert", DUCKDB: "duckdb_upsert", MERGE: "dlt_arrow_merge", APPEND: "dlt_arrow"}
PYMONGOARROW, ARROW_FILES, ROW_FILES, SPARK = "PyMongoArrow and PyArrow", "dlt, Arrow", "dlt, rows", "plain Spark"
FILES = {PYMONGOARROW: "pymongoarrow_to_parquet", ARROW_FILES: "dlt_arrow_to_parquet"}
TARGETS = {ADBC: 1.5, DUCKDB: 1.5, PYMONGOARROW: 0.0}
MEANING = """
Each tool gets the same rows in the same run, and is used as its documentation shows, in its own process. Memory is the
peak of all processes of a tool together (PSS): Python, the JVM, and what they start. It does not include the database
servers. Barflow and the fast tools take turns three times, and the figure is the median. dlt with rows, awswrangler and
plain Spark run once, because they take long.

**Into PostgreSQL.** The rows of all five tables go into empty tables. Time runs from rows in memory to the last commit.
Barflow starts from a cached frame of Spark, the others from Arrow tables or Python objects. Barflow's memory includes
Spark, which has computed these rows; the others get computed rows. awswrangler, ADBC and DuckDB load into tables with
our keys and constraints. dlt makes its own tables.

| | Barflow | ADBC, DuckDB | awswrangler | dlt, merge | dlt, append |
| --- | --- | --- | --- | --- | --- |
| keys and constraints | yes | yes | yes | no | no |
| counts per session checked | yes | no | no | no | no |
| new rows appear | all at once | all at once | table by table | table by table | file by file |
| run again | same rows | same rows | same rows | same rows | every row twice |
| removes what vanished at the source | yes | no | no | no | no |
| records the load | in the same transaction | no | no | after the load | after the load |

**MongoDB to Parquet.** Time and memory are those of the whole program, with its imports and the JVM's start. All tools
read our session documents, except plain Spark, which reads one document per bar.

| | Barflow | PyMongoArrow | dlt | plain Spark |
| --- | --- | --- | --- | --- |
| files | per symbol and month | per symbol and month | one table | per symbol and month |
| counts per session checked | yes | no | no | no |
| synced to disk | yes | no | no | no |
| new files appear | whole, named by the manifest | while they grow | file by file | whole |
| run again | only what changed | refuses a folder with files | every row twice | refuses the folder |

PyMongoArrow and plain Spark hold all rows in memory. So their memory grows with the data; Barflow's memory is
bounded by its batches. Only Barflow keeps superseded versions of bars. Only Barflow and dlt record what they did.
"""


def measure(bench: Bench) -> Chapter:
    """Measure loads into PostgreSQL and writes of Parquet, with ours and with the other tools."""
    if not PYTHON.exists():
        raise BarflowError("The tools to compare with are not installed. Run `make build/peers/.ready`.")
    loads, files = _loads(bench), _files(bench)
    rows, bars_ = loads["Barflow"][0].result["rows"], files["Barflow"][0].result["rows"]
    panels = [
        _panel(f"load {rows:,} rows into PostgreSQL", loads, lambda ended: float(ended.result["seconds"])),
        _panel(f"{bars_:,} bars, MongoDB to Parquet", files, lambda ended: ended.seconds),
    ]
    figures = [figure for panel in panels for figure in _figures(panel)]
    heads = ("tool", "time", "to ours", "memory", "to ours")
    tables = [markdown_table(panel.title, heads, _rows(panel)) for panel in panels]
    chart = Chart("peers.svg", "Time and memory of each tool for the same rows; less is better", bars(panels))
    return Chapter("Other tools", MEANING, figures, [_versions()], tables, chart)


def _versions() -> str:
    pins = re.findall(r"^([\w-]+)(?:\[.*\])?==(.+)$", (ROOT / "requirements-peers.in").read_text(), re.MULTILINE)
    ours = [(name, metadata.version(name)) for name in ("awswrangler", "pyspark")]
    return "versions: " + ", ".join(f"{name} {version}" for name, version in [*pins, *ours])


def _loads(bench: Bench) -> dict[str, list[Ended]]:
    pipeline, turn = bench.wide, count(1)
    rows = bench.folder / "rows"
    rows.mkdir()
    runs: dict[str, list[Ended]] = {}
    for repeat in range(bench.repeats(3)):
        bench.log(f"other tools: loading, turn {repeat + 1}")
        ours = call("ours:load", pipeline.environment, dsn=pipeline.dsn, lake=pipeline.lake)
        runs.setdefault("Barflow", []).append(ours)
        if not repeat:
            _export(pipeline, rows)
        for tool, function in LOADS.items():
            runs.setdefault(tool, []).append(_load(bench, function, f"tool_{next(turn)}", rows))
    bench.log(f"other tools: loading, {ROWS}")
    runs[ROWS] = [_load(bench, "dlt_rows", f"tool_{next(turn)}", rows)]
    runs[UPSERT] = [bench.upsert]
    assert len({ended.result["rows"] for each in runs.values() for ended in each}) == 1
    return runs


def _load(bench: Bench, function: str, schema: str, rows: Path) -> Ended:
    """Load all tables into a new schema, check that it has all rows, then drop it."""
    pipeline = bench.wide
    given: dict[str, Any] = {"dsn": pipeline.dsn, "schema": schema, "rows": str(rows), "keys": KEYS}
    with psycopg.connect(pipeline.dsn, autocommit=True) as connection:
        if function.startswith("dlt"):
            given["home"] = str(bench.folder / schema)
        else:
            connection.execute(f"create schema {schema}".encode())
            for name in KEYS:
                connection.execute(f"create table {schema}.{name} (like market.{name} including all)".encode())
        ended = run(calling(f"other_tools:{function}", given, str(PYTHON)), QUIET)
        stored = sum(
            row[0] for name in KEYS for row in connection.execute(f"select count(*) from {schema}.{name}".encode())
        )
        assert stored == ended.result["rows"], f"{function} stored {stored} rows"
        connection.execute(f"drop schema {schema} cascade".encode())
    return ended


def _files(bench: Bench) -> dict[str, list[Ended]]:
    pipeline = bench.wide
    runs: dict[str, list[Ended]] = {}
    for turn in range(bench.repeats(3)):
        bench.log(f"other tools: Parquet, turn {turn + 1}")
        pipeline.new_lake()
        runs.setdefault("Barflow", []).append(pipeline.process())
        for tool, function in FILES.items():
            runs.setdefault(tool, []).append(_write(bench, function, turn))
    bench.log(f"other tools: Parquet, {ROW_FILES}")
    runs[ROW_FILES] = [_write(bench, "dlt_rows_to_parquet", 0)]
    runs[SPARK] = [bench.plain_spark]
    assert len({ended.result["rows"] for each in runs.values() for ended in each}) == 1
    return runs


def _write(bench: Bench, function: str, turn: int) -> Ended:
    pipeline, folder = bench.wide, bench.folder / f"{function}-{turn}"
    home = {"home": str(folder / "home")} if function.startswith("dlt") else {}
    given = {"uri": pipeline.mongodb_uri, "database": pipeline.name, "path": str(folder / "lake"), **home}
    return run(calling(f"other_tools:{function}", given, str(PYTHON)), QUIET)


def _export(pipeline: Pipeline, folder: Path) -> None:
    """Write the rows of the warehouse's tables to FOLDER/TABLE.parquet, without generated columns."""
    with psycopg.connect(pipeline.dsn) as connection:
        connection.execute("set time zone 'UTC'")
        for name in KEYS:
            found = connection.execute(
                "select column_name, data_type from information_schema.columns where table_schema = 'market' "
                "and table_name = %s and is_generated = 'NEVER' order by ordinal_position",
                [name],
            ).fetchall()
            columns = {column: TYPES[kind] for column, kind in found}
            listed = ", ".join(columns)
            with connection.cursor().copy(f"copy (select {listed} from market.{name}) to stdout csv".encode()) as copy:
                text = io.BytesIO(b"".join(copy))
            options = pyarrow.csv.ConvertOptions(column_types=columns, strings_can_be_null=True)
            names = pyarrow.csv.ReadOptions(column_names=list(columns))
            pq.write_table(pyarrow.csv.read_csv(text, names, convert_options=options), folder / f"{name}.parquet")


def _panel(title: str, runs: Mapping[str, Sequence[Ended]], seconds: Callable[[Ended], float]) -> Panel:
    made = [
        Bar(tool, middle(map(seconds, ended)), middle(each.tree for each in ended), ours=tool == "Barflow")
        for tool, ended in runs.items()
    ]
    return Panel(title, sorted(made, key=lambda bar: bar.seconds))


def _figures(panel: Panel) -> list[Figure]:
    """Return the figures of the fastest comparable tools. The tables have the others."""
    (ours,) = (bar for bar in panel.bars if bar.ours)
    return [
        Figure(panel.title, ours.seconds, "s", bar.name, bar.seconds, TARGETS[bar.name], times_less=True)
        for bar in panel.bars
        if bar.name in TARGETS
    ]


def _rows(panel: Panel) -> list[tuple[str, ...]]:
    (ours,) = (bar for bar in panel.bars if bar.ours)
    return [
        (
            bar.name,
            f"{bar.seconds:.1f} s",
            f"{bar.seconds / ours.seconds:.2f}×",
            f"{bar.mebibytes:,.0f} MiB",
            f"{bar.mebibytes / ours.mebibytes:.2f}×",
        )
        for bar in panel.bars
    ]
