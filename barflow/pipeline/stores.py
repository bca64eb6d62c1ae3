"""The stores that a hop runs on, opened from the settings on first use."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from pymongo.database import Database

from barflow.alerts.channels import open_channels
from barflow.alerts.rules_file import load_rules
from barflow.alerts.tick import Alerts
from barflow.market.instruments import Instruments, load_instruments
from barflow.market.sessions import new_york, utc_now
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.staging.connection import Document, connect
from barflow.staging.ledger import Ledger
from barflow.staging.raw_answers import RawAnswers
from barflow.staging.sessions import Staging


@dataclass
class Stores:
    """Settings, the market's clock, and the stores opened from them.

    ``environment`` holds variables for child programs, on top of this process's own. ``on_child`` receives each child
    process that starts. ``warehouse_reader`` is the DSN of a database user that can only read, if there is one.
    ``lineage_parent`` names the run that started this one, as barflow.pipeline.lineage.parse_parent describes.
    """

    settings: Settings
    clock: Callable[[], datetime] = utc_now
    environment: Mapping[str, str] = field(default_factory=dict)
    on_child: Callable[[subprocess.Popen[str]], None] = lambda child: None
    warehouse_reader: str | None = None
    lineage_parent: str | None = None

    @cached_property
    def database(self) -> Database[Document]:
        """Return the MongoDB database. Raise UnavailableError if the server does not answer."""
        uri = resolve(self.settings.mongodb_uri, "BARFLOW_MONGODB_URI")
        return connect(uri, self.settings.mongodb_database)

    @cached_property
    def alerts(self) -> Alerts:
        """Return the rules and channels of the settings. Raise BadInputError for invalid ones."""
        rules, channels = load_rules(self.settings.alerts_file), open_channels(self.settings)
        return Alerts(self.database, rules, channels, self.clock, self.instruments)

    @cached_property
    def instruments(self) -> Instruments:
        """Return the renames and listings of the settings. Raise BadInputError for an invalid file."""
        return load_instruments(self.settings.instruments_file)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols of the settings that are asked for today: the present ones, without delisted ones."""
        return self.instruments.to_ask(self.settings.symbols, new_york(self.clock()).date())[0]

    @property
    def staging(self) -> Staging:
        """Return the staged sessions."""
        return Staging(self.database)

    @property
    def raw_answers(self) -> RawAnswers:
        """Return Twelve Data's answers as received."""
        return RawAnswers(self.database)

    @property
    def ledger(self) -> Ledger:
        """Return the ledger of runs."""
        return Ledger(self.database)

    @property
    def warehouse_dsn(self) -> str:
        """Return the warehouse's DSN, resolved from Secrets Manager where it is a reference."""
        return resolve(self.settings.warehouse_dsn, "BARFLOW_WAREHOUSE_DSN")

    @property
    def reader_dsn(self) -> str:
        """Return the DSN for reading the warehouse: that of the reader if there is one, else ``warehouse_dsn``."""
        return self.warehouse_reader or self.warehouse_dsn
