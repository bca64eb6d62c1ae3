"""The warehouse's schema: the numbered files of sql/, applied by yoyo, each once and in order."""

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
from yoyo.exceptions import LockTimeout

from barflow.errors import BadInputError, BarflowError, BusyError
from barflow.warehouse import connect

LOCK_SECONDS = 60


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's own backend, connected by the DSN itself: a URI of yoyo's would have to spell the password again."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        super().__init__(parse_uri("postgresql+psycopg:///"), "_yoyo_migration")

    def connect(self, dburi: object) -> Any:
        return psycopg.connect(self.dsn, autocommit=True, connect_timeout=10)


@contextmanager
def _opened(dsn: str, directory: Path) -> Iterator[tuple[Any, Any]]:
    logging.getLogger("yoyo.migrations").setLevel(logging.ERROR)
    if not any(directory.glob("[0-9]*.sql")):
        raise BadInputError(f"{directory} holds no migrations: run the command from a checkout of the project")
    connect(dsn).close()  # says clearly what is wrong with the DSN or the server
    backend = _Backend(dsn)
    try:
        yield backend, yoyo.read_migrations(str(directory))
    finally:
        backend.connection.close()


def pending(dsn: str, directory: Path) -> list[str]:
    """The names of the migrations that are not applied yet, in order."""
    with _opened(dsn, directory) as (backend, migrations):
        return [item.id for item in backend.to_apply(migrations)]


def migrate(dsn: str, directory: Path) -> list[str]:
    """Applies what is pending and returns its names. A migration is applied whole or not at all.

    Raises BusyError when another migration runs for a minute, BarflowError when one fails.
    """
    with _opened(dsn, directory) as (backend, migrations):
        try:
            with backend.lock(timeout=LOCK_SECONDS):
                waiting = backend.to_apply(migrations)
                names = [item.id for item in waiting]
                backend.apply_migrations(waiting)
                return names
        except LockTimeout:
            raise BusyError(
                "another migration holds the lock. If none is running, `delete from yoyo_lock` and run again."
            ) from None
        except psycopg.Error as error:
            first = str(error).splitlines()[0]
            raise BarflowError(
                f"a migration failed and was rolled back: {first}. The warehouse is as it was before it. "
                "Mend the file in sql/ or the database, then run `barflow migrate` again."
            ) from None

