"""Gate: a trigger that pauses a load at its first insert into one table of the warehouse.

While the gate is closed, an insert of the transaction that replaces what readers see waits on an advisory lock in the
server.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import psycopg

KEY = 7007
WAIT_SECONDS = 300.0
WAIT_FUNCTION = f"""
create function public.wait_at_gate() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock({KEY});
    return new;
end $$
"""
TRIGGER = "create trigger gate before insert on {table} for each row execute function public.wait_at_gate()"


class Gate:
    """A closed gate before one table: ``with Gate(dsn, "market.bar_1h") as gate``. Leaving the block opens it."""

    def __init__(self, dsn: str, table: str) -> None:
        self.table = table
        self._connection: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True)

    def __enter__(self) -> Gate:
        self._connection.execute("select pg_advisory_lock(%s)", [KEY])
        self._connection.execute(WAIT_FUNCTION)
        self._connection.execute(TRIGGER.format(table=self.table))
        return self

    def wait(self) -> int:
        """Wait until an insert is blocked by the gate. Return the process id of its server backend."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            waiting = self._connection.execute(
                "select pid from pg_locks where locktype = 'advisory' and objid = %s and not granted", [KEY]
            ).fetchone()
            if waiting:
                return int(waiting[0])
            time.sleep(0.02)
        raise AssertionError(f"no insert into {self.table} within {WAIT_SECONDS:.0f} s")

    def terminate(self) -> None:
        """Terminate the backend that waits at the gate, and wait until it has ended."""
        ended = self._connection.execute("select pg_terminate_backend(%s, 60000)", [self.wait()]).fetchone()
        assert ended == (True,)

    def open(self) -> None:
        self._connection.execute("select pg_advisory_unlock_all()")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()
        self._connection.execute("drop function public.wait_at_gate() cascade")
        self._connection.close()
