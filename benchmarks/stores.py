"""Where do the figures read and write? In one MongoDB and one PostgreSQL of their own, in a folder that goes away.

A pipeline is a MongoDB database, a lake and a warehouse that belong together; figures share what was made before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import psycopg
from pymongo.database import Database

from barflow.staging.connection import Document, connect
from barflow.warehouse import migrations
from benchmarks import seed
from benchmarks.processes import ROOT, Ended, run
from local.services import Services
from local.state import State

Say = Callable[[str], None]
DAYS = 20


@dataclass
class Pipeline:
    """One pipeline's stores, as its programs find them in their environment."""

    name: str
    mongodb_uri: str
    dsn: str
    folder: Path
    environment: dict[str, str]

    def __post_init__(self) -> None:
        self.environment = self.environment | {
            "BARFLOW_MONGODB_DATABASE": self.name,
            "BARFLOW_WAREHOUSE_DSN": self.dsn,
        }
        self.new_lake()

    @property
    def database(self) -> Database[Document]:
        return connect(self.mongodb_uri, self.name)

    @property
    def lake(self) -> str:
        return self.environment["BARFLOW_LAKE_URI"]

    def new_lake(self) -> None:
        """Turns to an empty lake: the next process run writes every partition."""
        number = sum(1 for _ in self.folder.glob(f"{self.name}-*"))
        lake = self.folder / f"{self.name}-{number}"
        lake.mkdir()
        self.environment["BARFLOW_LAKE_URI"] = str(lake)

    def process(self) -> Ended:
        return run([sys.executable, "spark/bars_to_parquet.py"], self.environment)

    def aggregate(self) -> Ended:
        return run([sys.executable, "glue/aggregate_bars.py"], self.environment)

    @property
    def loaded_bars(self) -> int:
        """The 5-minute bars in the warehouse."""
        with psycopg.connect(self.dsn) as connection:
            return int(connection.execute("select count(*) from market.bar_5min").fetchall()[0][0])


@dataclass
class Bench:
    """What every figure is given: the servers, whether to be quick, and who hears of progress."""

    services: Services
    folder: Path
    quick: bool
    say: Say
    _pipelines: dict[str, Pipeline] = field(default_factory=dict)

    def symbols(self, count: int) -> list[str]:
        """So many symbols, or a tenth of them in a quick run."""
        return seed.symbols(count // 10 if self.quick else count)

    def repeats(self, count: int) -> int:
        return 1 if self.quick else count

    def pipeline(self, name: str) -> Pipeline:
        """The pipeline of that name, with empty stores when it is new."""
        if name not in self._pipelines:
            dsn = _new_warehouse(self.services.warehouse_dsn, name)
            environment = self.services.environment()
            self._pipelines[name] = Pipeline(name, self.services.mongodb_uri, dsn, self.folder, environment)
        return self._pipelines[name]

    @cached_property
    def wide(self) -> Pipeline:
        """500 symbols and 20 days, staged in MongoDB and in the lake."""
        pipeline = self.pipeline("wide")
        names = self.symbols(500)
        self.say(f"seeding {len(names)} symbols of {DAYS} days")
        seed.seed_sessions(pipeline.database, names, DAYS)
        self.say("filling the lake")
        pipeline.process()
        return pipeline


@contextmanager
def opened(quick: bool, say: Say) -> Iterator[Bench]:
    """Starts the servers and stops them. Never those that the environment names: a benchmark may drop what it likes."""
    for name in [name for name in os.environ if name.startswith("BARFLOW_")]:
        del os.environ[name]
    with TemporaryDirectory(prefix="barflow-bench-") as made:
        folder = Path(made)
        state = State.create(folder / "state", source={"kind": "synthetic"}, as_of=None)
        with Services(state, say) as services:
            yield Bench(services, folder, quick, say)


def _new_warehouse(dsn: str, name: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    made = urlsplit(dsn)._replace(path=f"/{name}").geturl()
    migrations.migrate(made, ROOT / "sql")
    return made
