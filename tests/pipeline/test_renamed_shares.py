"""A load joins a renamed share in the views. Every row keeps the name under which its bars arrived."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from harness import AGGREGATE, Pipeline, random_session

from barflow.market.actions import Split
from barflow.staging.actions import Actions, Answer

LEARNED = datetime(2025, 7, 2, tzinfo=UTC)
DAYS = ("2025-06-27", "2025-06-30", "2025-07-01", "2025-07-02")
RENAMED = '[[instrument]]\nsymbol = "NEW"\nformer = [{ symbol = "OLD", last_day = 2025-06-30 }]\n'


def series(pipeline: Pipeline, interval: str) -> list[tuple[object, ...]]:
    """Return the rows of NEW in a view of adjusted bars."""
    query = f"select bar_start, open, close, volume from market.bar_{interval}_adjusted where symbol = 'NEW' order by 1"
    with psycopg.connect(pipeline.warehouse_dsn, options="-c timezone=UTC") as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def file(pipeline: Pipeline, tmp_path: Path) -> Path:
    """Return the instruments of the pipeline."""
    path = tmp_path / "instruments.toml"
    path.write_text(RENAMED)
    pipeline.settings["BARFLOW_INSTRUMENTS_FILE"] = str(path)
    return path


def test_the_views_show_one_series_after_a_load(pipeline: Pipeline, file: Path) -> None:
    arrived = [random_session("OLD" if day <= "2025-06-30" else "NEW", day, bars=4) for day in DAYS]
    pipeline.stage(arrived)
    pipeline.process()
    pipeline.aggregate()
    expected = [
        row for bars in arrived for row in zip(bars.ts, bars.open, bars.close, map(float, bars.volume), strict=True)
    ]
    assert series(pipeline, "5min") == expected
    assert [row[2] for row in series(pipeline, "1d")] == [bars.close[-1] for bars in arrived]
    assert set(pipeline.load_ids("bar_5min")) == {(bars.symbol, bars.session_date) for bars in arrived}

    # A file that is wrong stops the load before it changes anything.
    before = pipeline.warehouse(), pipeline.rows("market.former_symbol"), pipeline.rows("ops.load_run")
    file.write_text(RENAMED + "listed = 1")
    failed = pipeline.run(AGGREGATE)
    assert (failed.code, failed.error) == (
        2,
        f"instruments {file}: instrument NEW: listed: unknown field; allowed are symbol, former, first_session, "
        "last_session",
    )
    assert (pipeline.warehouse(), pipeline.rows("market.former_symbol"), pipeline.rows("ops.load_run")) == before

    # The next load follows the file, also without new bars. Raw rows stay as they are.
    file.write_text("")
    assert pipeline.aggregate()["outcome"] == "nothing new"
    assert [row[2] for row in series(pipeline, "1d")] == [bars.close[-1] for bars in arrived[2:]]
    assert pipeline.warehouse() == before[0]

    # The factors follow the file, too: a split is within the series as soon as the former sessions belong to it.
    known = Split("NEW", date(2025, 6, 30), 2.0, "endpoint", LEARNED)
    Actions(pipeline.database).store([Answer("NEW", "split", [known], "endpoint", LEARNED, LEARNED)])
    pipeline.process()
    pipeline.aggregate()
    assert [row[2] for row in series(pipeline, "1d")] == [bars.close[-1] for bars in arrived[2:]]
    file.write_text(RENAMED)
    assert pipeline.aggregate()["outcome"] == "nothing new"
    closes = [bars.close[-1] for bars in arrived]
    assert [row[2] for row in series(pipeline, "1d")] == [closes[0] / 2, *closes[1:]]
