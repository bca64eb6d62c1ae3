"""The stores of the benchmarks: one MongoDB and one PostgreSQL, in a temporary folder.

A pipeline is a MongoDB database, a lake and a warehouse that belong together. Chapters share prepared pipelines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import psycopg
from pymongo.database import Database

from barflow.market.sessions import utc_now
from barflow.pipeline.stores import Stores
from barflow.progress import Log
from barflow.settings import load_settings
from barflow.staging.connection import Document, connect
from barflow.warehouse import migrations
from benchmarks import memory, seed
from benchmarks.figures import middle
from benchmarks.processes import ROOT, Ended, call, run
from local.services import Services
from local.state import State

DAYS = 20


@dataclass
class Pipeline:
    """The stores of one pipeline. Its programs find them in their environment."""

    name: str
    mongodb_uri: str
    dsn: str
    folder: Path
    environment: dict[str, str]

    def __post_init__(self) -> None:
        """Complete the environment and make an empty lake."""
        self.environment = self.environment | {
            "BARFLOW_MONGODB_DATABASE": self.name,
            "BARFLOW_WAREHOUSE_DSN": self.dsn,
        }
        self.new_lake()

    @property
    def database(self) -> Database[Document]:
        """Return the MongoDB database."""
        return connect(self.mongodb_uri, self.name)

    def stores(self) -> Stores:
        """Return the stores as the project's own functions take them."""
        given = {"mongodb_uri": self.mongodb_uri, "mongodb_database": self.name, "warehouse_dsn": self.dsn}
        return Stores(load_settings(**given, lake_uri=self.lake))

    def make_older(self) -> None:
        """Let what is stored be an hour older. What is ten minutes old is compared again, as if it had changed."""
        older = utc_now() - timedelta(hours=1)
        self.database["bars"].update_many({}, {"$set": {"updated_at": older}})
        times = {"started_at": older, "finished_at": older}
        self.database["ledger"].update_many({"started_at": {"$gt": older}}, {"$set": times})
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "update ops.load_run set started_at = %(older)s, finished_at = %(older)s where started_at > %(older)s",
                {"older": older},
            )

    @property
    def lake(self) -> str:
        """Return the folder of the current lake."""
        return self.environment["BARFLOW_LAKE_URI"]

    def new_lake(self) -> None:
        """Switch to an empty lake, so that the next process run writes every partition."""
        number = sum(1 for _ in self.folder.glob(f"{self.name}-*"))
        lake = self.folder / f"{self.name}-{number}"
        lake.mkdir()
        self.environment["BARFLOW_LAKE_URI"] = str(lake)

    def process(self) -> Ended:
        """Run process and measure it."""
        return run([sys.executable, "spark/bars_to_parquet.py"], self.environment)

    def aggregate(self) -> Ended:
        """Run aggregate and measure it."""
        return run([sys.executable, "glue/aggregate_bars.py"], self.environment)

    def status(self, names: Sequence[str]) -> Ended:
        """Run `barflow status` of these symbols and measure it."""
        command = [str(Path(sys.executable).with_name("barflow")), "status", "--json"]
        return run(command, {**self.environment, "BARFLOW_SYMBOLS": ",".join(names)})

    @property
    def loaded_bars(self) -> int:
        """Return the number of 5-minute bars in the warehouse."""
        with psycopg.connect(self.dsn) as connection:
            return int(connection.execute("select count(*) from market.bar_5min").fetchall()[0][0])


@dataclass
class Bench:
    """What every chapter gets: the servers, whether the run is quick, and the log of progress."""

    services: Services
    folder: Path
    quick: bool
    log: Log
    _pipelines: dict[str, Pipeline] = field(default_factory=dict)

    def symbols(self, count: int) -> list[str]:
        """Return so many symbols, or a tenth of them in a quick run."""
        return seed.symbols(count // 10 if self.quick else count)

    def repeats(self, count: int) -> int:
        """Return the number of repeats, or 1 in a quick run."""
        return 1 if self.quick else count

    def pipeline(self, name: str) -> Pipeline:
        """Return the pipeline of that name. A new one has empty stores."""
        if name not in self._pipelines:
            dsn = _new_warehouse(self.services.superuser_dsn, name)
            environment = self.services.environment()
            self._pipelines[name] = Pipeline(name, self.services.mongodb_uri, dsn, self.folder, environment)
        return self._pipelines[name]

    def servers(self) -> dict[str, int]:
        """Return the process ids of the servers."""
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in memory.children(os.getpid())}
        marks = {"MongoDB": "secantus", "PostgreSQL": "bin/postgres"}
        return {name: pid for name, mark in marks.items() for pid, text in commands.items() if mark in text}

    @cached_property
    def wide(self) -> Pipeline:
        """Return the pipeline with 500 symbols and 20 days in MongoDB and in the lake."""
        pipeline = self.pipeline("wide")
        names = self.symbols(500)
        self.log(f"seeding {len(names)} symbols of {DAYS} days")
        seed.seed_sessions(pipeline.database, names, DAYS)
        self.log("filling the lake")
        pipeline.process()
        return pipeline

    @cached_property
    def plain_spark(self) -> Ended:
        """Return the run of the plain way from MongoDB to Parquet, for the bars of ``wide``. It runs once."""
        pipeline = self.wide
        self.log("staging the same bars as one document each")
        seed.seed_plain(pipeline.database, self.symbols(500), DAYS)
        self.log("MongoDB to Parquet, the plain way")
        stores = {"uri": pipeline.mongodb_uri, "name": pipeline.name}
        return call("peers:plain_to_parquet", pipeline.environment, **stores, path=str(self.folder / "plain"))

    @cached_property
    def spark_alone(self) -> float:
        """Return the seconds of a program that starts a Spark session and ends."""
        return middle(call("ours:spark_alone").seconds for _ in range(self.repeats(5)))

    @cached_property
    def upsert(self) -> Ended:
        """Return the load of the rows of the warehouse of ``wide`` by awswrangler's upsert. It runs once."""
        self.log("loading the warehouse by upsert")
        return call("peers:upsert", dsn=self.wide.dsn)


@contextmanager
def opened(quick: bool, log: Log) -> Iterator[Bench]:
    """Start the servers and stop them after the block.

    They are never those that the environment names, because benchmarks drop data.
    """
    for name in [name for name in os.environ if name.startswith("BARFLOW_")]:
        del os.environ[name]
    with TemporaryDirectory(prefix="barflow-bench-") as made:
        folder = Path(made)
        state = State.create(folder / "state", source={"kind": "synthetic"}, as_of=None)
        with Services(state, log) as services:
            yield Bench(services, folder, quick, log)


def _new_warehouse(dsn: str, name: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    made = urlsplit(dsn)._replace(path=f"/{name}").geturl()
    migrations.migrate(made, ROOT / "sql")
    return made
