"""A year with splits, dividends and a rename: raw bars stay, and everything adjusted equals DuckDB's own computation.

Actions are learned on time, late, changed and withdrawn. After each step, every reader agrees with what is known then.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import Pipeline
from scripted_year import FORMER, PRESENT, SYMBOLS, VENDOR, Learned, YearOracle, known, market

from barflow.alerts.rules_file import load_rules
from barflow.alerts.tick import Alerts
from barflow.market.bars import SessionBars
from barflow.market.sessions import session
from barflow.staging.actions import Actions, Answer
from barflow.staging.sessions import Staging

RELATIVE = 1e-9
Rows = Mapping[tuple[Any, ...], Mapping[str, Any]]


@dataclass
class Year:
    """The pipeline of the year, what was staged in it, and the evening up to which the vendor was asked."""

    pipeline: Pipeline
    staged: list[SessionBars] = field(default_factory=list)
    asked: date = date.min

    def trade(self, until: date) -> None:
        """Store each session up to a day as its ticks do, with alerts, and what the vendor shows on its evening."""
        database = self.pipeline.database
        staging = Staging(database)
        now = datetime.now(UTC)
        alerts = Alerts(database, load_rules(None), clock=lambda: now)
        alerts.ensure()
        staging.ensure()
        by_day: dict[date, list[SessionBars]] = {}
        for bars in market():
            by_day.setdefault(bars.session_date, []).append(bars)
        for day in sorted(by_day):
            if not self.asked < day <= until:
                continue
            traded = session(day)
            assert traded is not None
            now = traded.closes
            sessions = [(bars, now) for bars in by_day[day]]
            alerts.save([bars.key for bars, _ in sessions], "test", now, lambda s=sessions: staging.save(s, "test"))
            self.staged += by_day[day]
            self.ask(day)

    def ask(self, day: date) -> None:
        """Stage the actions that the vendor shows on the evening of a day, if it shows others than before."""
        if shown(day) != shown(self.asked):
            at = datetime.combine(day, time(21), UTC)
            for symbol in SYMBOLS:
                answers = [
                    Answer(symbol, kind, known(symbol, kind == "split", day), "endpoint", at, at)
                    for kind in ("split", "dividend")
                ]
                Actions(self.pipeline.database).store(answers)
        self.asked = day

    def load(self) -> None:
        self.pipeline.process()
        self.pipeline.aggregate()

    @property
    def oracle(self) -> YearOracle:
        return YearOracle(self.staged, shown(self.asked))

    def raw(self) -> dict[str, Any]:
        """Return a digest of every file of bars, and all rows of the tables of raw bars."""
        files = sorted(Path(self.pipeline.lake.root, "bars_5min").rglob("*.parquet"))
        found: dict[str, Any] = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        tables = ("bar_5min", "bar_30min", "bar_1h", "bar_1d")
        return found | {name: self.without_load(f"market.{name}") for name in tables}

    def without_load(self, table: str) -> list[str]:
        """Return the rows of a table of the warehouse as JSON text, without the loads that wrote them."""
        with psycopg.connect(self.pipeline.warehouse_dsn, options="-c timezone=UTC") as connection:
            query = f"select (to_jsonb(t) - 'load_id')::text from {table} t order by 1"
            return [row for (row,) in connection.execute(query)]

    def actions(self) -> dict[str, list[str]]:
        """Return all rows of the actions and of their factors."""
        return {name: self.without_load(name) for name in ("market.corporate_action", "market.adjustment")}

    def rows(self, query: str) -> Rows:
        """Return the rows of a query by their first two columns."""
        with psycopg.connect(self.pipeline.warehouse_dsn, options="-c timezone=UTC") as connection:
            cursor = connection.execute(query)
            names = [column.name for column in cursor.description or ()]
            return {row[:2]: dict(zip(names, row, strict=True)) for row in cursor}

    def check(self) -> None:
        """Assert that the views and the daily metrics equal the oracle's."""
        oracle = self.oracle
        for view, table in (("bar_5min_adjusted", "bars"), ("bar_1d_adjusted", "days")):
            rows = self.rows(f"select symbol, bar_start, * from market.{view}")
            assert differences(rows, oracle.adjusted(table)) == [], view
        metrics = self.rows("select * from market.daily_metrics where symbol not in ('FB', 'META')")
        expected = {key: row for key, row in oracle.metrics().items() if key[0] != PRESENT}
        assert differences(metrics, expected) == []


def shown(day: date) -> list[Learned]:
    return [item for item in VENDOR if item.shown <= day < item.withdrawn]


def differences(actual: Rows, expected: Rows) -> list[str]:
    """Return where rows differ from the expected ones by more than RELATIVE."""
    found = [f"missing {key}" for key in expected.keys() - actual.keys()]
    found += [f"surplus {key}" for key in actual.keys() - expected.keys()]
    for key in expected.keys() & actual.keys():
        for name, value in expected[key].items():
            mine = actual[key][name]
            if not is_same(mine, value):
                found.append(f"{key} {name}: {mine}, not {value}")
    return sorted(found)[:10]


def is_same(mine: Any, value: Any) -> bool:
    """Return whether two values are equal, numbers up to RELATIVE."""
    if isinstance(value, float) and mine is not None:
        return math.isclose(mine, value, rel_tol=RELATIVE, abs_tol=1e-12)
    return bool(mine == value)


def gap_alerts(year: Year) -> Iterable[str]:
    return [item["_id"] for item in year.pipeline.database["alerts"].find({"rule": "gap_5pct"})]


@pytest.fixture(scope="module")
def renames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("year") / "instruments.toml"
    file.write_text(
        f'[[instrument]]\nsymbol = "{PRESENT}"\nformer = [{{ symbol = "{FORMER}", last_day = 2025-06-06 }}]\n'
    )
    return file


@pytest.mark.minutes
def test_a_year_of_actions(pipeline: Pipeline, renames: Path) -> None:
    pipeline.settings["BARFLOW_INSTRUMENTS_FILE"] = str(renames)
    year = Year(pipeline)
    for until in (date(2025, 4, 30), date(2025, 6, 9), date(2025, 6, 10), date(2025, 8, 22), date(2025, 10, 17)):
        year.trade(until)
        year.load()
        year.check()
    # TSLA's split is learned two weeks late: no raw bar changes, and only the metrics that it reaches.
    before, metrics = year.raw(), year.rows("select * from market.daily_metrics")
    year.ask(date(2025, 10, 20))
    year.load()
    year.check()
    assert year.raw() == before
    after = year.rows("select * from market.daily_metrics")
    changed = {key for key, row in after.items() if row != metrics[key]}
    assert changed == {key for key in after if key[0] == "TSLA" and key[1] >= date(2025, 10, 6)}
    year.trade(date(2025, 12, 31))
    year.load()
    year.check()
    assert gap_alerts(year) == []
    # A load of everything changes nothing, but for the rounding of metrics.
    final = {**year.raw(), **year.actions()}
    pipeline.process("--full")
    pipeline.aggregate("--full")
    assert {**year.raw(), **year.actions()} == final
    year.check()
