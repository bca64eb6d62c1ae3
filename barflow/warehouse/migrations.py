"""The warehouse's schema: the numbered files of sql/, applied by yoyo, each once and in order.

yoyo marks a migration in a transaction of its own, after the migration's. A file therefore says `if not exists`:
one that was applied by a process killed before the mark is applied again without harm.
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
from barflow.warehouse.connection import connect, locked, warehouse_errors

LOCK_SECONDS = 60
# Any number that no other program locks on this database.
LOCK = 0x6D69_6772


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's own backend, connected by the DSN itself: a URI of yoyo's would have to spell the password again."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        super().__init__(parse_uri("postgresql+psycopg:///"), "_yoyo_migration")

    def connect(self, dburi: object) -> Any:
        return connect(self.dsn, autocommit=True)

    def copy(self) -> _Backend:
        return _Backend(self.dsn)


@contextmanager
def _opened(dsn: str, directory: Path) -> Iterator[tuple[Any, list[Any]]]:
    """yoyo's backend and what it has not applied yet, in order, while no other process migrates.

    Raises BusyError when another one does for a minute.
    """
    logging.getLogger("yoyo.migrations").setLevel(logging.ERROR)
    if not any(directory.glob("[0-9]*.sql")):
        raise BadInputError(f"{directory} holds no migrations: run the command from a checkout of the project")
    with connect(dsn, autocommit=True) as connection, locked(connection, LOCK, LOCK_SECONDS, "migration"):
        backend = _Backend(dsn)
        try:
            with warehouse_errors("prepare its migrations"):
                _check_rights(connection)
                backend.init_database()
                backend.break_lock()  # of a process that died: this one holds the lock that counts
                waiting = list(backend.to_apply(yoyo.read_migrations(str(directory))))
            yield backend, waiting
        finally:
            backend.connection.close()


def _check_rights(connection: psycopg.Connection[Any]) -> None:
    """yoyo takes a refusal to make its tables for a sign that they are there."""
    allowed = connection.execute("select current_user, has_schema_privilege(current_schema(), 'create')").fetchone()
    if allowed and not allowed[1]:
        raise BarflowError(
            f"the warehouse's user {allowed[0]} may not create tables in its schema. Nothing was changed. "
            "Migrate as the database's owner, or grant it CREATE on the schema."
        )


def pending(dsn: str, directory: Path) -> list[str]:
    """The names of the migrations that are not applied yet, in order."""
    with _opened(dsn, directory) as (_, waiting):
        return [item.id for item in waiting]


def migrate(dsn: str, directory: Path) -> list[str]:
    """Applies what is pending and returns its names. A migration is applied whole or not at all.

    Raises BusyError when another migration runs for a minute, BarflowError when one fails.
    """
    with _opened(dsn, directory) as (backend, waiting):
        for item in waiting:
            try:
                backend.apply_one(item)
            except (psycopg.Error, BadMigration) as error:
                first = str(error).splitlines()[0]
                raise BarflowError(
                    f"migration {item.id} failed and was rolled back: {first}. The warehouse is as it was before it. "
                    "Mend the file in sql/ or the database, then run `barflow migrate` again."
                ) from None
        return [item.id for item in waiting]
