"""The page's connections to the warehouse: read-only, limited in number, replaced when broken, closed at the end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import psycopg
import pytest

from barflow.errors import BadInputError, BarflowError, UnavailableError
from dashboard import connections
from dashboard.connections import MAX_CONNECTIONS, Connections


@pytest.fixture
def pool(module_warehouse_dsn: str) -> Iterator[Connections]:
    opened = Connections(module_warehouse_dsn)
    yield opened
    opened.close()


def terminate_backends(dsn: str) -> None:
    """End every other connection of the warehouse, as a restart of the server does."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )


def test_closing_closes_every_connection(pool: Connections) -> None:
    with pool.reading() as one, pool.reading() as two, pool.reading() as three:
        pass
    with pool.reading() as in_use:
        pool.close()
        assert not in_use.closed
    assert [one.closed, two.closed, three.closed, in_use.closed] == [True] * 4


def test_no_read_opens_a_connection_after_closing(pool: Connections) -> None:
    pool.close()
    with pytest.raises(UnavailableError, match="is stopping"), pool.reading():
        pass


def test_a_connection_cannot_write(pool: Connections) -> None:
    with pytest.raises(BarflowError, match="read-only"), pool.reading() as connection:
        connection.execute("delete from market.bar_1d")


def test_a_connection_is_in_utc_and_in_autocommit_and_stops_a_long_statement(pool: Connections) -> None:
    with pool.reading() as connection:
        assert connection.autocommit
        assert connection.execute("show statement_timeout").fetchall() == [("5s",)]
        assert connection.execute("show timezone").fetchall() == [("UTC",)]


def test_a_read_waits_while_every_connection_is_in_use(pool: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WAIT_SECONDS", 0.5)
    with ExitStack() as held:
        used = [held.enter_context(pool.reading()) for _ in range(MAX_CONNECTIONS)]
        with pytest.raises(UnavailableError, match="couldn't get a connection"), pool.reading():
            pass
    with pool.reading() as freed:
        assert freed in used


def test_broken_connections_are_replaced(pool: Connections, module_warehouse_dsn: str) -> None:
    with pool.reading() as first, pool.reading() as second:
        pass
    terminate_backends(module_warehouse_dsn)
    with pytest.raises(UnavailableError, match="could not be read"), pool.reading() as broken:
        broken.execute("select 1")
    with pool.reading() as connection:
        assert connection.execute("select 1").fetchall() == [(1,)]
        assert connection not in (first, second)


def test_a_read_that_waits_for_a_broken_pool_gets_a_connection_of_the_next_one(
    pool: Connections, module_warehouse_dsn: str
) -> None:
    answers: list[int] = []

    def read() -> None:
        with pool.reading() as connection:
            answers.append(connection.execute("select 1").fetchall()[0][0])

    waiting = threading.Thread(target=read)
    with ExitStack() as held:
        used = [held.enter_context(pool.reading()) for _ in range(MAX_CONNECTIONS)]
        waiting.start()
        while waiting.is_alive() and not (pool._pool and pool._pool.get_stats()["requests_waiting"]):
            waiting.join(0.01)
        terminate_backends(module_warehouse_dsn)
        with suppress(psycopg.OperationalError):
            used[-1].execute("select 1")
    waiting.join(30)
    assert answers == [1]


def test_a_warehouse_that_is_down_is_reported_with_the_reason_and_is_read_once_it_is_up(
    module_warehouse_dsn: str,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens on it
        pool = Connections(f"postgresql://reader:secret@127.0.0.1:{taken.getsockname()[1]}/barflow")
        with pytest.raises(UnavailableError, match=r"could not be reached: .*refused") as failed, pool.reading():
            pass
    assert "secret" not in str(failed.value)
    pool._dsn = module_warehouse_dsn
    with closing(pool), pool.reading() as connection:
        assert connection.execute("select 1").fetchall() == [(1,)]


class WatchedLock:
    """A lock that counts who asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.asked = threading.Semaphore(0)

    def __enter__(self) -> None:
        self.asked.release()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def test_reads_that_wait_for_one_attempt_share_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, lock = Connections("postgresql://"), WatchedLock()
    attempts: list[str] = []
    failures: list[str] = []
    readers = 3

    def connect(dsn: str, settings: str) -> None:
        attempts.append(dsn)
        for _ in range(readers):
            assert lock.asked.acquire(timeout=30)
        raise UnavailableError("the warehouse could not be reached: timeout")

    def read() -> None:
        try:
            with pool.reading():
                pass
        except UnavailableError as error:
            failures.append(str(error))

    monkeypatch.setattr(connections, "connect", connect)
    monkeypatch.setattr(pool, "_lock", lock)
    threads = [threading.Thread(target=read) for _ in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == ["the warehouse could not be reached: timeout"] * readers
    assert len(attempts) == 1


def test_text_that_is_not_a_dsn_is_rejected_without_being_shown() -> None:
    pool = Connections("postgresql://reader:se@cret@host/barflow")
    with pytest.raises(BadInputError, match="BARFLOW_WAREHOUSE_DSN") as rejected, pool.reading():
        pass
    assert "cret" not in str(rejected.value)
