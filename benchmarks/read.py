"""Reading the archive: against a bare read of the same files with PyArrow, and against DuckDB's."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq

from barflow.lake.partitions import REPEATED
from benchmarks.figures import Chapter, Figure, middle
from benchmarks.processes import Ended, call
from benchmarks.seed import fill_lake
from benchmarks.stores import Bench

DAYS = 252
FILES = 200
MEANING = """
The archive holds one year of 5-minute bars of 500 symbols in monthly files. `barflow.read` returns all of them as one
Arrow table, adjusted for splits and sorted by symbol and open. The bare read is `pyarrow.dataset`'s `to_table()` of the
same files, which sorts nothing and checks nothing. DuckDB's is `select *` from the same files into an Arrow table, not
sorted either. Each read runs in its own process after its imports, on files that are in the page cache.

The memory is the peak of the whole process over what it had before it read. A small selection of the same archive
shows that it follows the result, not the archive: one symbol, and daily bars of all symbols.

The space of a bar is compared with that of the same files without `known_from`, whose times are stored plainly. In the
archive, times are stored as differences.
"""


def measure(bench: Bench) -> Chapter:
    """Measure our read and the two others, and the memory of ours."""
    names, lake = bench.symbols(500), str(bench.folder / "year")
    bench.log(f"writing a lake of {len(names)} symbols and {DAYS} days")
    bars = fill_lake(Path(lake), names, DAYS)
    call("peers:bare_dataset", lake=lake)  # fills the page cache
    ours: list[Ended] = []
    bare: list[Ended] = []
    duckdb: list[Ended] = []
    for turn in range(bench.repeats(3)):
        bench.log(f"reading the archive, turn {turn + 1}")
        ours.append(call("ours:read_archive", lake=lake, symbols=names))
        bare.append(call("peers:bare_dataset", lake=lake))
        duckdb.append(call("peers:duckdb_table", lake=lake))
    assert {ended.result["rows"] for ended in (*ours, *bare, *duckdb)} == {bars}
    one = call("ours:read_archive", lake=lake, symbols=names[:1])
    daily = call("ours:read_archive", lake=lake, symbols=names, interval="1d")
    what = f"barflow.read of {bars:,} bars"
    seconds, memory = _median(ours, "seconds"), _median(ours, "memory")
    figures = [
        Figure(what, seconds, "s", "a bare pyarrow.dataset read", _median(bare, "seconds"), 1.5),
        Figure(what, seconds, "s", "DuckDB's read", _median(duckdb, "seconds"), 1.0),
        Figure(f"{what}: memory", memory, "MiB", "the result", _median(ours, "size"), 1.5),
        Figure("a bar in the archive", *_space(Path(lake)), 1.25),
    ]
    notes = [
        f"memory of the bare read {_median(bare, 'memory'):.0f} MiB, of DuckDB's {_median(duckdb, 'memory'):.0f} MiB",
        f"one symbol: {one.result['seconds'] * 1000:.0f} ms and {one.result['memory']:.0f} MiB for a result of "
        f"{one.result['size']:.1f} MiB",
        f"daily bars of all symbols: {daily.result['seconds']:.1f} s and {daily.result['memory']:.0f} MiB for a result "
        f"of {daily.result['size']:.0f} MiB",
    ]
    return Chapter("Reading the archive", MEANING, figures, notes)


def _space(lake: Path) -> tuple[float, str, str, float]:
    """Return the bytes of a bar in some files, and in the same files without known_from and with plain times."""
    rows = held = plain = 0
    for path in sorted(lake.glob("bars_5min/*/*/*.parquet"))[:FILES]:
        bars = pq.read_table(path, partitioning=None)
        buffer = io.BytesIO()
        without = bars.drop_columns(["known_from"])
        pq.write_table(without, buffer, compression="snappy", use_dictionary=REPEATED)
        rows, held, plain = rows + bars.num_rows, held + path.stat().st_size, plain + buffer.tell()
    return held / rows, "bytes", "without known_from, plain times", plain / rows


def _median(runs: list[Ended], name: str) -> float:
    return middle(float(run.result[name]) for run in runs)
