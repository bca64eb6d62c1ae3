"""Connections to the warehouse: open them, lock them, and report their errors in one line."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from barflow.errors import BadInputError, BarflowError, BusyError, UnavailableError
from barflow.warehouse.authorities import trusted

CONNECT_SECONDS = 10
# Session settings of the owner's connections: a schema that another role creates cannot replace a name of the system.
SYSTEM_NAMES = {"search_path": "pg_catalog"}
# What barflow chooses where neither the DSN nor libpq's environment variables do.
DRIVER_DEFAULTS = {
    "connect_timeout": CONNECT_SECONDS,
    "fallback_application_name": "barflow",
    "keepalives_idle": 30,
}
# The words of PgBouncer and of RDS Proxy.
POOLER_REFUSAL = re.compile(r"unsupported startup parameter|support command-line options")


@contextmanager
def warehouse_errors(what: str) -> Iterator[None]:
    """Raise a driver error inside the block as one line without the DSN or any value.

    ``what`` completes "the warehouse could not …". Raises UnavailableError if the server does not answer, else
    BarflowError.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        reason = reason_of(error)
        what_next = (
            "The server is a pooler, such as PgBouncer or RDS Proxy, that refuses a startup option. Remove it from "
            "BARFLOW_WAREHOUSE_DSN and PGOPTIONS and set it for the database user, or connect to PostgreSQL itself."
            if POOLER_REFUSAL.search(reason)
            else "Check BARFLOW_WAREHOUSE_DSN and that the server answers, then run the same command again."
        )
        raise UnavailableError(
            f"the warehouse could not {what}: {reason}. What it held before is unchanged. {what_next}"
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


def connect(
    dsn: str, settings: Mapping[str, str] = MappingProxyType({}), *, autocommit: bool = False
) -> psycopg.Connection[Any]:
    """Open a connection in UTC; ``settings`` are further settings of the server's session.

    Raises BadInputError for text that is not a DSN, UnavailableError when the server does not answer.
    """
    _check_form(dsn)
    with warehouse_errors("be reached"):
        connection = psycopg.connect(dsn, autocommit=True, **driver_options(dsn))
        try:
            set_session(connection, settings)
            connection.autocommit = autocommit
        except BaseException:
            connection.close()
            raise
        return connection


def driver_options(dsn: str) -> dict[str, Any]:
    """Return the driver's options that the DSN and libpq's environment variables leave open.

    They include the authorities that a DSN trusts which verifies the server.
    """
    from_environment = {item.keyword.decode() for item in Conninfo.get_defaults() if item.val is not None}
    given = {*conninfo_to_dict(dsn), *from_environment}
    return trusted(dsn) | {name: value for name, value in DRIVER_DEFAULTS.items() if name not in given}


def set_session(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Set the time zone UTC and ``settings`` for a session in autocommit.

    This happens after connecting: a pooler refuses startup options, and those of the DSN would be replaced.
    """
    calls = [
        sql.SQL("pg_catalog.set_config({}, {}, false)").format(sql.Literal(name), sql.Literal(value))
        for name, value in {"timezone": "UTC", **settings}.items()
    ]
    connection.execute(sql.SQL("select {}").format(sql.SQL(", ").join(calls)))


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
            "with @ / : % ? # and spaces of the password percent-encoded: @ is %40"
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
