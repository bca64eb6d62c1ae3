"""Connections to the warehouse: open them, lock them, and report their errors in one line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from barflow.errors import BadInputError, BarflowError, BusyError, UnavailableError
from barflow.warehouse.authorities import trusted

CONNECT_SECONDS = 10
# Server settings of the owner's connections: a schema that another role creates cannot replace a name of the system.
SYSTEM_NAMES = "-c search_path=pg_catalog"


@contextmanager
def warehouse_errors(what: str) -> Iterator[None]:
    """Raise a driver error inside the block as one line without the DSN or any value.

    ``what`` completes "the warehouse could not …". Raises UnavailableError if the server does not answer, else
    BarflowError.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        raise UnavailableError(
            f"the warehouse could not {what}: {reason_of(error)}. What it held before is unchanged. "
            "Check BARFLOW_WAREHOUSE_DSN and that the server answers, then run the same command again."
        ) from None
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise BarflowError(
            f"the warehouse could not {what}: {reason_of(error)}. Run `barflow migrate` first."
        ) from None
    except psycopg.Error as error:
        raise BarflowError(
            f"the warehouse could not {what}: {reason_of(error)}. What it held before is unchanged."
        ) from None


def reason_of(error: psycopg.Error) -> str:
    """Return the server's message, or the first line of the driver's."""
    if error.diag.message_primary:
        return error.diag.message_primary
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def connect(dsn: str, settings: str = "", **options: Any) -> psycopg.Connection[Any]:
    """Open a connection in UTC; ``settings`` are further server settings (``-c name=value``).

    Raises BadInputError for text that is not a DSN, UnavailableError when the server does not answer.
    """
    _check_form(dsn)
    with warehouse_errors("be reached"):
        return psycopg.connect(dsn, **connection_options(dsn, settings), **options)


def connection_options(dsn: str, settings: str = "") -> dict[str, Any]:
    """Return the driver's options of a connection with the DSN; ``settings`` are further server settings."""
    return {
        **trusted(dsn),
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "barflow",
        "options": f"-c timezone=UTC {settings}",
        "keepalives_idle": 30,
    }


def _check_form(dsn: str) -> None:
    """Raise BadInputError for a malformed DSN: the driver's own message would show parts of the password."""
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
    """Hold an advisory lock for a block. The connection is in autocommit; the server frees the lock if it breaks.

    Raises BusyError when another process holds the lock for longer than ``wait_seconds``.
    """
    deadline = time.monotonic() + wait_seconds
    with warehouse_errors(f"start the {what}"):
        while not connection.execute("select pg_try_advisory_lock(%s)", [key]).fetchone()[0]:  # type: ignore[index]
            if time.monotonic() > deadline:
                raise BusyError(f"another {what} is running. Nothing was changed. Wait for it to end, then run again.")
            time.sleep(0.2)
    yield
    with warehouse_errors(f"end the {what}"):
        connection.execute("select pg_advisory_unlock(%s)", [key])
