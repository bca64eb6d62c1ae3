"""Helpers of several test files: run the pipeline's programs, and read every store."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from pymongo.database import Database

from barflow.lake.actions import promote_actions, stage_actions
from barflow.lake.partitions import Lake
from barflow.market.actions import KINDS, Action, Kind, Version
from barflow.market.arrow import arrow_schema
from barflow.market.bars import OF_A_BAR, SessionBars
from barflow.market.sessions import NEW_YORK, session
from barflow.market.validation import FIELD_NAMES, Validated, validate
from barflow.staging.connection import Document, connect
from barflow.staging.ledger import Ledger
from barflow.staging.sessions import Staging
from barflow.warehouse.load import TABLES

ROOT = Path(__file__).parents[1]
PROCESS, AGGREGATE = "spark/bars_to_parquet.py", "glue/aggregate_bars.py"
# The request time of staged answers: long before any test.
ASKED = datetime(2026, 1, 1, tzinfo=UTC)
# After the last recorded bar.
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended: its exit code, the JSON object it printed, and its stderr."""

    code: int
    result: dict[str, Any]
    stderr: str

    @property
    def error(self) -> str:
        """Return the error of the last line. There must be no traceback."""
        lines = self.stderr.splitlines()
        assert lines, "the program printed nothing to stderr"
        assert lines[-1].startswith("error: "), self.stderr
        assert "Traceback" not in self.stderr, self.stderr
        return lines[-1].removeprefix("error: ")


@lru_cache
def program(path: str) -> ModuleType:
    """Return a program of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Pipeline:
    """The staging, lake and warehouse of one test, and the programs that move bars between them."""

    mongodb_uri: str
    database_name: str
    warehouse_dsn: str
    lake_uri: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Return the settings of the programs as environment variables."""
        return {
            "BARFLOW_MONGODB_URI": self.mongodb_uri,
            "BARFLOW_MONGODB_DATABASE": self.database_name,
            "BARFLOW_WAREHOUSE_DSN": self.warehouse_dsn,
            "BARFLOW_LAKE_URI": self.lake_uri,
            **self.settings,
        }

    @cached_property
    def database(self) -> Database[Document]:
        return connect(self.mongodb_uri, self.database_name)

    @property
    def lake(self) -> Lake:
        return Lake(self.lake_uri)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.database)

    def stage(self, sessions: Iterable[SessionBars]) -> None:
        """Stage sessions in MongoDB as ingest does. A staged bar with other values is revised."""
        staging = Staging(self.database)
        staging.ensure()
        staging.save([(bars, ASKED) for bars in sessions], "test")

    def process(self, *arguments: str) -> dict[str, Any]:
        """Run process, which must succeed, and return its result."""
        return succeeded(self.run(PROCESS, *arguments))

    def aggregate(self, *arguments: str) -> dict[str, Any]:
        """Run aggregate, which must succeed, and return its result."""
        return succeeded(self.run(AGGREGATE, *arguments))

    def run(self, path: str, *arguments: str) -> ProgramResult:
        """Run a program in this process, on the shared Spark."""
        stderr, stdout = io.StringIO(), io.StringIO()
        with self.in_environment(), contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stdout):
            code = program(path).main(list(arguments))
        return ProgramResult(code, _last_object(stdout.getvalue()), stderr.getvalue())

    def run_at_once(self, path: str, count: int) -> list[int]:
        """Run a program several times at once, in threads of this process. Return the exit codes."""
        with self.in_environment(), ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda _: program(path).main([]), range(count)))

    @contextlib.contextmanager
    def in_environment(self) -> Iterator[None]:
        """Set the settings in this process's environment."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            yield

    def start(self, path: str, *arguments: str, under: Iterable[str] = ()) -> subprocess.Popen[str]:
        """Start a program in its own process. ``under`` is a program that runs it, with its arguments."""
        return subprocess.Popen(
            [sys.executable, *under, str(ROOT / path), *arguments],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Return all rows of a table of the warehouse, in the order of its key."""
        with psycopg.connect(self.warehouse_dsn, options="-c timezone=UTC") as connection:
            return connection.execute(f"select * from {table} order by 1, 2").fetchall()

    def warehouse(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return all rows of the tables that readers see."""
        return {table: self.rows(f"market.{table}") for table in TABLES}

    def load_ids(self, table: str) -> dict[tuple[str, date], set[str]]:
        """Return by symbol and session the load ids of its rows of a table."""
        found: dict[tuple[str, date], set[str]] = {}
        with psycopg.connect(self.warehouse_dsn) as connection:
            query = f"select symbol, session_date, load_id from market.{table}"
            for symbol, day, load_id in connection.execute(query):
                found.setdefault((symbol, day), set()).add(load_id)
        return found

    def counts(self) -> dict[str, dict[tuple[str, str], int]]:
        """Return by hop the bars of every (symbol, session)."""
        staged = {(item["symbol"], item["session_date"]): len(item["ts"]) for item in self.database["bars"].find()}
        parquet = {(symbol, day): rows for symbol, day, rows, _ in self.lake.session_counts()}
        held: dict[str, dict[tuple[str, str], int]] = {"staged": staged, "parquet": parquet}
        with psycopg.connect(self.warehouse_dsn) as connection:
            for table in TABLES[:-1]:
                query = f"select symbol, session_date::text, sum(bar_count) from market.{table} group by 1, 2"
                held[table] = {(symbol, day): bars for symbol, day, bars in connection.execute(query)}
        return held


def succeeded(ran: ProgramResult) -> dict[str, Any]:
    """Return the result of a program that must have succeeded."""
    assert ran.code == 0, ran.stderr
    return ran.result


def finished(child: subprocess.Popen[str], seconds: float = 120) -> ProgramResult:
    """Wait for a started program."""
    stdout, stderr = child.communicate(timeout=seconds)
    return ProgramResult(child.returncode, _last_object(stdout), stderr)


def _last_object(stdout: str) -> dict[str, Any]:
    lines = stdout.splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


def random_session(symbol: str, day: str, *, bars: int | None = None, seed: int = 0) -> SessionBars:
    """Return a session's random walk, for its first ``bars`` slots or all. Equal arguments give equal bars."""
    traded = session(date.fromisoformat(day))
    assert traded is not None, f"{day} is not a session"
    dice = random.Random(f"{symbol} {day} {seed}")
    made = SessionBars(symbol, traded.session_date)
    price = dice.uniform(20, 400)
    for ts in traded.slots[:bars]:
        opened, closed = price, price * dice.uniform(0.995, 1.005)
        made.ts.append(ts)
        made.open.append(opened)
        made.close.append(closed)
        made.high.append(max(opened, closed) * dice.uniform(1, 1.002))
        made.low.append(min(opened, closed) * dice.uniform(0.998, 1))
        made.volume.append(dice.randrange(1, 5_000_000))
        made.revision.append(0)
        price = closed
    return made


def lake_table(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Return rows as a table of the lake. Without it, they get revision 0 and are known from after their close."""
    made = []
    for row in rows:
        ts = row["ts"]
        assert isinstance(ts, datetime)
        made.append({"revision": 0, "known_from": ts + timedelta(minutes=5, seconds=4), **row})
    return pa.Table.from_pylist(made, arrow_schema())


def publish_actions(lake: Lake, symbol: str, *versions: Action | Version, kinds: Iterable[Kind] = KINDS) -> None:
    """Write a symbol's actions to the archive as process does. ``kinds`` are those that were ever fetched."""
    known = [item if isinstance(item, Version) else Version(item) for item in versions]
    stage_actions(lake, "test", symbol, known, kinds)
    promote_actions(lake, "test", [symbol])


def revised(bars: SessionBars, slot: int, **values: float) -> SessionBars:
    """Return the same session with other values in one bar."""
    columns: Mapping[str, list[Any]] = {name: [*getattr(bars, name)] for name in OF_A_BAR}
    for name, value in values.items():
        columns[name][slot] = value
    return SessionBars(bars.symbol, bars.session_date, **columns)


def received(symbol: str, file: Path) -> Validated:
    """Validate a recording (time, open, high, low, close, volume; New York time) as ingest does."""
    with file.open(newline="") as text:
        rows = list(csv.reader(text))[1:]
    values = [
        dict(zip(FIELD_NAMES, (_as_utc(when), opened, high, low, close, volume), strict=True))
        for when, opened, high, low, close, volume, *_ in rows
    ]
    return validate(symbol, {"symbol": symbol}, values, NOW)


def _as_utc(wall_clock: str) -> str:
    moment = datetime.fromisoformat(wall_clock).replace(tzinfo=NEW_YORK).astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}"
