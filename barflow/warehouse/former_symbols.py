"""The table of former symbols, from which the adjusted views make one series of a renamed share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import psycopg

from barflow.warehouse.connection import warehouse_errors

# The present symbol and the last day of each former symbol.
Former = Mapping[str, tuple[str, date]]


def keep_former_symbols(connection: psycopg.Connection[Any], former: Former) -> set[str]:
    """Make the table equal to the instruments, in the connection's transaction. Write only what differs.

    Return the present symbols of the shares whose names changed: their series have other sessions now.
    """
    with warehouse_errors("write its former symbols"):
        stored = {
            name: (symbol, last_day)
            for name, symbol, last_day in connection.execute(
                "select former, symbol, last_day from market.former_symbol"
            )
        }
        changed = {*stored.items()} ^ {*former.items()}
        if gone := sorted(stored.keys() - former.keys()):
            connection.execute("delete from market.former_symbol where former = any(%s)", [gone])
        for name, (symbol, last_day) in former.items():
            if stored.get(name) != (symbol, last_day):
                connection.execute(
                    "insert into market.former_symbol (former, symbol, last_day) values (%s, %s, %s) "
                    "on conflict (former) do update set symbol = excluded.symbol, last_day = excluded.last_day",
                    [name, symbol, last_day],
                )
    return {symbol for _, (symbol, _) in changed}
