"""The warehouse's schema: the numbered files of sql/, which yoyo applies once each, in order.

yoyo marks a migration as applied in a second transaction. Files therefore use `if not exists`: a migration whose
process was killed before the mark is applied again without harm.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yoyo
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import parse_uri
from yoyo.exceptions import BadMigration

from barflow.errors import BadInputError, BarflowError
from barflow.progress import Log
from barflow.warehouse.connection import SYSTEM_NAMES, connect, locked, warehouse_errors

# The migrations of a checkout.
SQL = Path(__file__).parents[2] / "sql"
LOCK_SECONDS = 60
# An advisory lock's key that no other program uses on this database.
LOCK = 0x6D69_6772
# yoyo names its tables without a schema. A schema with this user's name counts only if this user owns it: a role that
# may create schemas could otherwise have its triggers run as the owner.
OWN_SCHEMA = """
select set_config('search_path', coalesce((
    select quote_ident(nspname) from pg_namespace where nspname = current_user and pg_get_userbyid(nspowner) = nspname
), 'public'), false)
"""


def _connect(dsn: str) -> psycopg.Connection[Any]:
    """Open a connection in autocommit that finds unqualified names in this user's own schema or in public."""
    connection = connect(dsn, SYSTEM_NAMES, autocommit=True)
    with warehouse_errors("prepare its migrations"):
        connection.execute(OWN_SCHEMA)
    return connection


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """The PostgreSQL backend of yoyo, connected by the DSN itself: yoyo's own URI would contain the password again."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        super().__init__(parse_uri("postgresql+psycopg:///"), "_yoyo_migration")

    def connect(self, dburi: object) -> Any:
        return _connect(self.dsn)

    def copy(self) -> _Backend:
        return _Backend(self.dsn)


@contextmanager
def _opened(dsn: str, directory: Path) -> Iterator[tuple[Any, list[Any]]]:
    """Return the backend and its pending migrations, in order, and lock out other processes for the block.

    Raises BusyError if another process migrates for over a minute.
    """
    logging.getLogger("yoyo.migrations").setLevel(logging.ERROR)
    if not any(directory.glob("[0-9]*.sql")):
        raise BadInputError(f"{directory} holds no migrations: run the command from a checkout of the project")
    with _connect(dsn) as connection, locked(connection, LOCK, LOCK_SECONDS, "migration"):
        backend = _Backend(dsn)
        try:
            with warehouse_errors("prepare its migrations"):
                _check_permissions(connection)
                backend.init_database()
                backend.break_lock()  # left by a process that died: the advisory lock is the one that counts
                waiting = list(backend.to_apply(yoyo.read_migrations(str(directory))))
            yield backend, waiting
        finally:
            backend.connection.close()


def _check_permissions(connection: psycopg.Connection[Any]) -> None:
    """Raise BarflowError without CREATE on the schema: yoyo takes a permission error to mean that its tables exist."""
    allowed = connection.execute("select current_user, has_schema_privilege(current_schema(), 'create')").fetchone()
    if allowed and not allowed[1]:
        raise BarflowError(
            f"the warehouse's user {allowed[0]} has no permission to create tables in its schema. Nothing was changed. "
            "Migrate as the database's owner, or grant it CREATE on the schema."
        )


def pending(dsn: str, directory: Path = SQL) -> list[str]:
    """Return the names of the pending migrations, in order."""
    with _opened(dsn, directory) as (_, waiting):
        return [item.id for item in waiting]


def migrate(dsn: str, directory: Path = SQL, log: Log = lambda line: None) -> list[str]:
    """Apply the pending migrations and return their names. Each one is applied whole or not at all.

    Raises BusyError if another process migrates for over a minute, BarflowError if a migration fails.
    """
    with _opened(dsn, directory) as (backend, waiting):
        for item in waiting:
            try:
                backend.apply_one(item)
            except (psycopg.Error, BadMigration) as error:
                first = str(error).splitlines()[0]
                raise BarflowError(
                    f"migration {item.id} failed and was rolled back: {first}. The migrations before it are kept. "
                    "Fix the file in sql/ or the database, then run `barflow migrate` again."
                ) from None
            log(f"migrated {item.id}")
        return [item.id for item in waiting]
