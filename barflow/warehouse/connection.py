"""The warehouse: connections with clear errors, read-only queries, and what it holds of each symbol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from barflow.errors import BadInputError, BarflowError, BusyError, UnavailableError
from barflow.market.bars import BAR_TABLES

if TYPE_CHECKING:
    from barflow.pipeline.status import Held

CONNECT_SECONDS = 10
QUERY_SECONDS = 60


@contextmanager
def warehouse_errors(what: str) -> Iterator[None]:
    """Turns a driver's error into one line that shows neither DSN nor values."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise UnavailableError(
            f"the warehouse could not {what}: {_reason(error)}. What it held before is unchanged. "
            "Check BARFLOW_WAREHOUSE_DSN and that the server answers, then run the same command again."
        ) from None
    except psycopg.errors.UndefinedTable as error:
        raise BarflowError(f"the warehouse could not {what}: {_reason(error)}. Run `barflow migrate` first.") from None
    except psycopg.Error as error:
        raise BarflowError(
            f"the warehouse could not {what}: {_reason(error)}. What it held before is unchanged."
        ) from None


def _reason(error: psycopg.Error) -> str:
    if error.diag.message_primary:
        return error.diag.message_primary
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def connect(dsn: str, settings: str = "", **options: Any) -> psycopg.Connection[Any]:
    """Opens a connection in UTC; ``settings`` are further server settings (``-c name=value``).

    Raises BadInputError for what is no DSN, UnavailableError when nobody answers.
    """
    _check_form(dsn)
    with warehouse_errors("be reached"):
        return psycopg.connect(
            dsn,
            connect_timeout=CONNECT_SECONDS,
            application_name="barflow",
            options=f"-c timezone=UTC {settings}",
            keepalives_idle=30,
            **options,
        )


def _check_form(dsn: str) -> None:
    """The driver's own words on a malformed DSN show it, or a part of a password whose @ or / splits it wrongly."""
    try:
        parts = conninfo_to_dict(dsn)
        whole = "@" not in str(parts.get("host", "")) and str(parts.get("port", "0")).replace(",", "").isdigit()
    except psycopg.ProgrammingError:
        whole = False
    if not whole:
        raise BadInputError(
            "BARFLOW_WAREHOUSE_DSN is not a PostgreSQL DSN: it looks like postgresql://USER:PASSWORD@HOST:5432/DB, "
            "with @ / : % ? # and spaces of the password percent-encoded"
        )


@contextmanager
def locked(connection: psycopg.Connection[Any], key: int, wait_seconds: float, what: str) -> Iterator[None]:
    """Holds an advisory lock for a block, on a connection in autocommit; the server frees it should that break.

    Raises BusyError when another process keeps it for longer than ``wait_seconds``.
    """
    deadline = time.monotonic() + wait_seconds
    with warehouse_errors(f"start the {what}"):
        while not connection.execute("select pg_try_advisory_lock(%s)", [key]).fetchone()[0]:  # type: ignore[index]
            if time.monotonic() > deadline:
                raise BusyError(f"another {what} is at work. Nothing was changed. Wait for it to end, then run again.")
            time.sleep(0.2)
    yield
    with warehouse_errors(f"end the {what}"):
        connection.execute("select pg_advisory_unlock(%s)", [key])


def query_read_only(dsn: str, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Runs one statement in a read-only transaction. Returns its column names and rows.

    Raises BadInputError for a statement that is wrong, writes, or returns nothing.
    """
    with connect(dsn) as connection:
        connection.read_only = True
        try:
            # The extended protocol takes a single statement, so none can end the read-only transaction.
            connection.execute(sql.SQL("set local statement_timeout = {}").format(sql.Literal(QUERY_SECONDS * 1000)))
            cursor = connection.execute(query.encode(), (), prepare=True)
            if cursor.description is None:
                raise BadInputError("the query returned no rows to show: give a SELECT")
            return [column.name for column in cursor.description], cursor.fetchall()
        except psycopg.errors.ReadOnlySqlTransaction:
            raise BadInputError("the query would change the warehouse: only reading is allowed here") from None
        except psycopg.errors.QueryCanceled:
            raise BadInputError(f"the query took over {QUERY_SECONDS} s: narrow it by symbol or date") from None
        except psycopg.OperationalError:
            with warehouse_errors("answer the query"):
                raise
        except psycopg.Error as error:
            raise BadInputError(f"the query is wrong: {_reason(error)}") from None


def held_bars(connection: psycopg.Connection[Any]) -> tuple[dict[str, Held], dict[str, dict[str, int]]]:
    """Per bar table the sum of bar_count by (symbol, session) with the newest bar, and the rows by symbol."""
    from barflow.pipeline.status import Held  # brings pyarrow along, which migrations and Spark's tasks do without

    held: dict[str, Held] = {}
    rows: dict[str, dict[str, int]] = {}
    with warehouse_errors("say what it holds"):
        for name in BAR_TABLES:
            statement = sql.SQL(
                "select symbol, session_date, sum(bar_count), max(bar_start), count(*) from {} group by 1, 2"
            ).format(sql.Identifier("market", name))
            held[name], rows[name] = Held(), {}
            for symbol, day, bars, newest, count in connection.execute(statement):
                held[name].bars[symbol, day.isoformat()] = int(bars)
                held[name].newest[symbol] = max(held[name].newest.get(symbol, newest), newest)
                rows[name][symbol] = rows[name].get(symbol, 0) + count
    return held, rows


def consumed_manifests(connection: psycopg.Connection[Any]) -> set[str]:
    """The run ids of all manifests that a successful load has taken."""
    with warehouse_errors("read its load ledger"):
        found = connection.execute("select unnest(manifests) from ops.load_run where outcome = 'loaded'")
        return {run_id for (run_id,) in found}


def loaded_rows(connection: psycopg.Connection[Any], load_id: str) -> dict[str, int]:
    """The rows by table of the loads whose id is ``load_id`` and a number, ``LOAD_ID-1``: one for each try."""
    with warehouse_errors("read its load ledger"):
        found = connection.execute(
            "select key, sum(value::bigint) from ops.load_run, jsonb_each_text(rows) "
            "where outcome = 'loaded' and starts_with(load_id, %s) group by 1",
            (f"{load_id}-",),
        )
        return {table: int(rows) for table, rows in found}


def last_load(connection: psycopg.Connection[Any]) -> dict[str, Any] | None:
    """The newest load and how it ended, for the operator; None before the first."""
    with warehouse_errors("read its load ledger"):
        found = connection.execute(
            "select load_id, started_at, outcome, error from ops.load_run order by started_at desc limit 1"
        ).fetchone()
    if found is None:
        return None
    load_id, started_at, outcome, error = found
    run = {"run_id": load_id, "started_at": started_at.isoformat(), "outcome": outcome}
    return run | ({"error": error} if error else {})
