"""Read-only connections to the warehouse, in a psycopg_pool that lives as long as its server answers.

While a server is down, a pool only times out. So one direct connection is made before a pool is opened: it raises
the reason at once. A pool whose connection broke is closed, and the next read opens another one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed

from barflow.errors import UnavailableError
from barflow.warehouse.connection import CONNECT_SECONDS, connect, driver_options, set_session, warehouse_errors

MAX_CONNECTIONS = 4
# How long a read waits for one of them.
WAIT_SECONDS = 30.0
# The server stops a write, and a statement that takes longer than a reader waits.
READ_ONLY = {"default_transaction_read_only": "on", "statement_timeout": "5s"}

Connection = psycopg.Connection[Any]
Pool = ConnectionPool[Connection]

# The reader gets every failure as one line; the pool's warnings would repeat it on stderr.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class Connections:
    """Connections to one warehouse for several threads, opened on demand, at most MAX_CONNECTIONS at once."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._closed = False
        self._failure, self._failed_at = "", 0.0

    def close(self) -> None:
        """Close every connection: an idle one at once, one in use when its read ends."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool:
            pool.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection in autocommit that cannot write.

        Raises BadInputError for text that is not a DSN, UnavailableError if the warehouse does not answer or every
        connection stays in use, BarflowError if it rejects the statement.
        """
        with warehouse_errors("be read"):
            pool, connection = self._take()
            try:
                yield connection
            finally:
                broken = connection.broken
                pool.putconn(connection)
                if broken:
                    self._discard(pool)

    def _take(self) -> tuple[Pool, Connection]:
        while True:
            pool = self._open()
            with suppress(PoolClosed):  # another read found a broken connection
                return pool, pool.getconn()

    def _open(self) -> Pool:
        """Return the open pool, or open one.

        Reads that wait for another one's attempt share its failure: an unreachable host takes CONNECT_SECONDS.
        """
        asked = time.monotonic()
        with self._lock:
            if self._closed:
                raise UnavailableError(
                    "the warehouse could not be read: the page's server is stopping. Reload the page later."
                )
            if self._failed_at > asked:
                raise UnavailableError(self._failure)
            if self._pool is None:
                try:
                    connect(self._dsn, READ_ONLY).close()
                except UnavailableError as error:
                    self._failure, self._failed_at = str(error), time.monotonic()
                    raise
                self._pool = ConnectionPool(
                    self._dsn,
                    kwargs=driver_options(self._dsn) | {"autocommit": True},
                    configure=lambda connection: set_session(connection, READ_ONLY),
                    min_size=1,
                    max_size=MAX_CONNECTIONS,
                    timeout=WAIT_SECONDS,
                    reconnect_timeout=CONNECT_SECONDS,
                    open=True,
                )
            return self._pool

    def _discard(self, pool: Pool) -> None:
        """Close a pool: its idle connections are as dead as the one that broke."""
        with self._lock:
            if self._pool is pool:
                self._pool = None
        pool.close(timeout=0)
