"""Migrations bring the warehouse up to date once: repeated, run at the same time, or killed at any point."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from barflow.errors import BadInputError, BarflowError, BusyError
from barflow.market.bars import sql_columns
from barflow.pipeline.status import BAR_TABLES
from barflow.warehouse import migrations
from barflow.warehouse.load import TABLES
from barflow.warehouse.migrations import migrate, pending

SQL = Path(__file__).parents[2] / "sql"
NAMES = [path.stem for path in sorted(SQL.glob("[0-9]*.sql")) if "rollback" not in path.name]
# Everything that a migration creates, except yoyo's own tables.
SCHEMA = """
select table_schema || '.' || table_name || '.' || column_name, data_type || ' ' || is_nullable || ' ' || is_generated
from information_schema.columns where table_schema in ('market', 'ops')
union all
select schemaname || '.' || indexname, indexdef from pg_indexes where schemaname in ('market', 'ops')
union all
select conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) from pg_constraint
where connamespace in ('market'::regnamespace, 'ops'::regnamespace)
union all
select c.oid::regclass || ' is', obj_description(c.oid) from pg_class c
where relnamespace in ('market'::regnamespace, 'ops'::regnamespace) and relkind in ('r', 'v')
order by 1
"""


def schema(dsn: str) -> list[tuple[str, str]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(SCHEMA).fetchall()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a copy of the migrations that a test can add files to."""
    return Path(shutil.copytree(SQL, tmp_path / "sql"))


def test_a_second_run_changes_nothing(empty_warehouse_dsn: str) -> None:
    assert pending(empty_warehouse_dsn, SQL) == NAMES
    assert migrate(empty_warehouse_dsn, SQL) == NAMES
    first = schema(empty_warehouse_dsn)
    assert (pending(empty_warehouse_dsn, SQL), migrate(empty_warehouse_dsn, SQL)) == ([], [])
    assert schema(empty_warehouse_dsn) == first


def test_two_concurrent_runs_apply_each_migration_once(empty_warehouse_dsn: str, warehouse_dsn: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: migrate(empty_warehouse_dsn, SQL), range(2))
    assert sorted((one, two)) == [[], NAMES]
    assert schema(empty_warehouse_dsn) == schema(warehouse_dsn)


@pytest.mark.parametrize("applied", range(1, len(NAMES) + 1))
def test_a_migration_that_was_applied_but_not_marked_is_applied_again(
    empty_warehouse_dsn: str, warehouse_dsn: str, applied: int
) -> None:
    """A process that is killed between the two transactions leaves this state."""
    with psycopg.connect(empty_warehouse_dsn) as connection:
        for name in NAMES[:applied]:
            connection.execute((SQL / f"{name}.sql").read_bytes())
    assert migrate(empty_warehouse_dsn, SQL) == NAMES
    assert schema(empty_warehouse_dsn) == schema(warehouse_dsn)


def test_the_lock_of_a_dead_process_does_not_block_the_next_run(empty_warehouse_dsn: str) -> None:
    migrate(empty_warehouse_dsn, SQL)
    with psycopg.connect(empty_warehouse_dsn) as connection:
        connection.execute("insert into yoyo_lock (locked, ctime, pid) values (1, now(), 1)")
    assert migrate(empty_warehouse_dsn, SQL) == []


def test_a_failed_migration_is_named_and_rolled_back(empty_warehouse_dsn: str, directory: Path) -> None:
    (directory / "0098_good.sql").write_text(f"-- depends: {NAMES[-1]}\ncreate table if not exists ops.good (a int);\n")
    bad = directory / "0099_bad.sql"
    bad.write_text("-- depends: 0098_good\ncreate table ops.half (a int);\ncreate tabel ops.other (a int);\n")
    with pytest.raises(BarflowError, match="migration 0099_bad failed and was rolled back: syntax error") as raised:
        migrate(empty_warehouse_dsn, directory)
    assert "\n" not in str(raised.value)
    names = {name for name, _ in schema(empty_warehouse_dsn)}
    assert "ops.good.a" in names
    assert "ops.half.a" not in names
    bad.write_text("-- depends: 0098_good\ncreate table if not exists ops.half (a int);\n")
    assert migrate(empty_warehouse_dsn, directory) == ["0099_bad"]


def test_a_user_without_permission_to_create_tables_gets_a_clear_error(empty_warehouse_dsn: str) -> None:
    with psycopg.connect(empty_warehouse_dsn, autocommit=True) as connection:
        connection.execute("drop role if exists reader")
        connection.execute("create role reader login")
    reader = empty_warehouse_dsn.replace("postgres@", "reader@")
    with pytest.raises(BarflowError, match="user reader has no permission to create tables"):
        migrate(reader, SQL)


def test_a_run_waits_for_another_migration_and_then_fails(
    empty_warehouse_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.1)
    with psycopg.connect(empty_warehouse_dsn, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", [migrations.LOCK])
        with pytest.raises(BusyError, match=r"another migration is running\. Nothing was changed"):
            migrate(empty_warehouse_dsn, SQL)


def test_a_folder_without_migrations_is_rejected(empty_warehouse_dsn: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="holds no migrations: run the command from a checkout"):
        migrate(empty_warehouse_dsn, tmp_path)


def test_the_bar_tables_have_the_columns_of_a_bar(warehouse_dsn: str) -> None:
    with psycopg.connect(warehouse_dsn) as connection:
        for table in BAR_TABLES:
            found = connection.execute(
                "select column_name, data_type from information_schema.columns "
                "where table_schema = 'market' and table_name = %s order by ordinal_position",
                [table],
            ).fetchall()
            assert sql_columns().items() <= dict(found).items(), table
            assert [name for name, _ in found] == [
                *("symbol", *sql_columns(), "vwap", "bar_count", "expected_bars", "is_complete", "load_id")
            ]
            keys = connection.execute(
                "select pg_get_constraintdef(oid) from pg_constraint where contype = 'p' and conrelid = %s::regclass",
                [f"market.{table}"],
            ).fetchall()
            assert keys == [("PRIMARY KEY (symbol, bar_start)",)]


def test_every_table_and_view_has_a_comment(warehouse_dsn: str) -> None:
    with psycopg.connect(warehouse_dsn) as connection:
        without_comment = connection.execute(
            "select oid::regclass::text from pg_class where relkind in ('r', 'v') and obj_description(oid) is null "
            "and relnamespace in ('market'::regnamespace, 'ops'::regnamespace)"
        ).fetchall()
    assert without_comment == []


def test_an_invalid_bar_violates_a_check(warehouse_dsn: str) -> None:
    row = "insert into market.bar_1h values ('A', now(), now(), {}, {}, {}, {}, {}, null, {}, 12, default, 'x')"
    with psycopg.connect(warehouse_dsn, autocommit=True) as connection:
        connection.execute(row.format(10, 12, 9, 11, 5, 12))
        for wrong in ((10, 9, 8, 9, 5, 12), (10, 12, 11, 11, 5, 12), (10, 12, 9, 11, -1, 12), (10, 12, 9, 11, 5, 13)):
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(row.format(*wrong))


def test_latest_trend_shows_the_last_session_of_each_symbol_and_its_age(warehouse_dsn: str) -> None:
    day = "('{}', '2025-07-0{}', {}, {}, 0.1, 0.1, 0.1, 0.1, 10, {}, null, null, 55, 1, null, 'x')"
    bar = "('{}', '2025-07-0{} 13:30Z', '2025-07-03', 1, 1, 1, 1, 1, 1, 1, 1, default, 'x')"
    with psycopg.connect(warehouse_dsn) as connection:
        days = [day.format("AAPL", 2, 9, "null", "null"), day.format("AAPL", 3, 11, 9, 10)]
        connection.execute(f"insert into market.daily_metrics values {', '.join(days)}".encode())
        bars = [bar.format("AAPL", 2), bar.format("AAPL", 3)]
        connection.execute(f"insert into market.bar_5min values {', '.join(bars)}".encode())
        found = connection.execute(
            "select symbol, last_close, change, round(above_sma_20::numeric, 9)::float8, above_sma_50, rsi_14, "
            "data_until = '2025-07-03 13:35Z', age > interval '1 day' from market.latest_trend"
        ).fetchall()
    assert found == [("AAPL", 11, 2, 0.1, None, 55, True, True)]


def test_a_rolled_back_migration_can_be_applied_again(empty_warehouse_dsn: str, warehouse_dsn: str) -> None:
    migrate(empty_warehouse_dsn, SQL)
    with psycopg.connect(empty_warehouse_dsn) as connection:
        for name in reversed(NAMES):
            connection.execute((SQL / f"{name}.rollback.sql").read_bytes())
        remaining = connection.execute("select 1 from pg_namespace where nspname in ('market', 'ops')").fetchall()
        connection.execute("delete from _yoyo_migration")
    assert remaining == []
    assert migrate(empty_warehouse_dsn, SQL) == NAMES
    assert schema(empty_warehouse_dsn) == schema(warehouse_dsn)


def test_daily_metrics_are_unique_per_symbol_and_session(warehouse_dsn: str) -> None:
    assert TABLES[-1] == "daily_metrics"
    with psycopg.connect(warehouse_dsn) as connection:
        (definition,) = connection.execute(
            "select indexdef from pg_indexes where schemaname = 'market' and indexname = 'daily_metrics_pkey'"
        ).fetchone() or ("",)
    assert re.search(r"UNIQUE .*\(symbol, session_date\)", definition)
