"""How does a test catch a load in the middle of its work? By a gate before a table of the warehouse.

While it is closed, every insert into the table waits at its first row, in the server itself: in the COPY of a task
(``load.TABLE``) or within the transaction that readers must see nothing of (``market.TABLE``).
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import psycopg

KEY = 7007
SECONDS = 300.0
WAITS = f"""
create function public.wait_at_the_gate() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock({KEY});
    return new;
end $$
"""
TRIGGER = "create trigger gate before insert on {table} for each row execute function public.wait_at_the_gate()"
# The tables of the schema load come and go: each gets its trigger when it is made.
ON_CREATION = """
create function public.build_the_gate() returns event_trigger language plpgsql as $$
begin
    if to_regclass('{table}') is not null
        and not exists (select from pg_trigger where tgname = 'gate' and tgrelid = to_regclass('{table}'))
    then
        {trigger};
    end if;
end $$;
create event trigger build_the_gate on ddl_command_end when tag in ('CREATE TABLE')
    execute function public.build_the_gate()
"""


class Gate:
    """``with Gate(dsn, "market.bar_1h") as gate: …; gate.wait(); …; gate.open()``. Leaving the block opens it."""

    def __init__(self, dsn: str, table: str) -> None:
        self.table = table
        self._keeper: psycopg.Connection[Any] = psycopg.connect(dsn, autocommit=True)

    def __enter__(self) -> Gate:
        self._keeper.execute("select pg_advisory_lock(%s)", [KEY])
        self._keeper.execute(WAITS)
        trigger = TRIGGER.format(table=self.table)
        passing = self.table.startswith("load.")
        self._keeper.execute(ON_CREATION.format(table=self.table, trigger=trigger) if passing else trigger)
        return self

    def wait(self) -> int:
        """Until somebody stands before the gate; returns the process id of the server's backend that does."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            waiting = self._keeper.execute(
                "select pid from pg_locks where locktype = 'advisory' and objid = %s and not granted", [KEY]
            ).fetchone()
            if waiting:
                return int(waiting[0])
            time.sleep(0.02)
        raise AssertionError(f"nobody came to {self.table}")

    def terminate(self) -> None:
        """Has the server end the connection that waits, and waits for that end."""
        ended = self._keeper.execute("select pg_terminate_backend(%s, 60000)", [self.wait()]).fetchone()
        assert ended == (True,)

    def open(self) -> None:
        self._keeper.execute("select pg_advisory_unlock_all()")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()
        self._keeper.execute("drop event trigger if exists build_the_gate")
        self._keeper.execute("drop function public.wait_at_the_gate() cascade")
        self._keeper.close()
