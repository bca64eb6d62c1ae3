"""The page shows a renamed share as one: its chart, its row of the watch list, its alerts and its missing bars."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest
import requests
from page_data import NOW, load, record_load, session_bars, stage
from pymongo.database import Database

from barflow.alerts.message import Message
from barflow.market.instruments import Instruments, parse_instruments
from barflow.market.sessions import last_sessions
from barflow.staging.connection import Document

Served = Callable[..., AbstractContextManager[str]]
# The newest session is that of NOW. NEW was OLD until the session before the last two.
DAYS = [item.session_date for item in last_sessions(NOW, 6)]
LAST_OLD = DAYS[3]


def renamed(**given: object) -> Instruments:
    entry = {"symbol": "NEW", "former": [{"symbol": "OLD", "last_day": LAST_OLD}], **given}
    return parse_instruments({"instrument": [entry]})


def get(url: str, path: str, **query: object) -> Any:
    answer = requests.get(f"{url}/api/{path}", params=query, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def stored(database: Database[Document], warehouse_dsn: str) -> None:
    """Store six sessions. Both names hold the last one of OLD, and OLD is another share's name after it."""
    load(warehouse_dsn, "OLD", 5, price=90.0)
    load(warehouse_dsn, "NEW", 2, price=95.0)
    with psycopg.connect(warehouse_dsn) as connection:
        connection.execute("delete from market.bar_1d where symbol = 'NEW' and session_date = %s", [DAYS[4]])
        connection.execute("update market.bar_1d set bar_count = bar_count - 1 where symbol = 'OLD'")
    record_load(warehouse_dsn, "load-1")
    stage(
        database,
        session_bars("OLD", 2, until=NOW, price=91.0),
        session_bars("OLD", 1, until=NOW, price=20.0),
        session_bars("NEW", 2, until=NOW, price=95.0),
        session_bars("NEW", 1, until=NOW, price=96.0),
        session_bars("NEW", 0, until=NOW, price=97.0),
    )


@pytest.mark.usefixtures("stored")
class TestRenamedShare:
    def test_the_chart_of_either_name_is_one_series(self, served: Served) -> None:
        sessions = last_sessions(NOW, 6)
        with served(instruments=renamed()) as url:
            found = get(url, "bars/NEW", interval="1d")
            assert found == get(url, "bars/old", interval="1d")
            assert found["symbol"] == "NEW"
            assert found["time"] == [int(item.opens.timestamp()) for item in sessions]
            # The newest name of the session that both hold counts.
            newer = (session_bars("NEW", back, until=NOW, price=97.0 - back) for back in (2, 1, 0))
            assert found["close"] == [90.0] * 3 + [bars.close[-1] for bars in newer]
            # Pages hold each candle once, also where one ends at the rename.
            for limit in (1, 2, 4):
                page = get(url, "bars/NEW", interval="1d", limit=limit)
                times = page["time"]
                while page["older"]:
                    page = get(url, "bars/NEW", interval="1d", limit=limit, before=page["older"])
                    times = page["time"] + times
                assert times == found["time"], limit

    def test_the_watch_list_has_one_row(self, served: Served) -> None:
        with served(instruments=renamed()) as url:
            [row] = get(url, "watchlist")["rows"]
        assert (row["symbol"], row["freshness"]) == ("NEW", "fresh")
        assert row["last"] == session_bars("NEW", price=97.0).close[-1]
        assert row["prev_close"] == session_bars("NEW", 1, price=96.0).close[-1]

    def test_the_alerts_of_either_name_are_those_of_both(self, served: Served, database: Database[Document]) -> None:
        for name in ("OLD", "NEW", "MSFT"):
            message = Message.model_construct(
                id=f"gap|{name}", rule="gap", kind="gap", symbol=name, severity="info", session_date=DAYS[0],
                bar_start=NOW, direction="up", value=5.0, unit="percent", reference=1.0, price=2.0, text=name,
                created_at=NOW,
            )  # fmt: skip
            document = {"_id": f"gap|{name}", "symbol": name, "bar_start": NOW, "created_at": NOW}
            database["alerts"].insert_one(document | {"message": message.model_dump(mode="json")})
        with served(instruments=renamed()) as url:
            for name in ("OLD", "NEW"):
                found = get(url, "alerts", symbol=name)["alerts"]
                assert {item["message"]["symbol"] for item in found} == {"OLD", "NEW"}

    def test_no_bar_is_missing_under_a_name_that_the_share_does_not_have(self, served: Served) -> None:
        with served(instruments=renamed()) as url:
            gaps = [(gap["symbol"], gap["session_date"]) for gap in get(url, "health")["gaps"]]
        assert gaps == [("OLD", str(day)) for day in DAYS[2::-1]]

    def test_a_delisted_share_is_not_stale(self, served: Served, database: Database[Document]) -> None:
        stage(database, session_bars("GONE", 2, until=NOW, price=50.0))
        gone = parse_instruments({"instrument": [{"symbol": "GONE", "last_session": LAST_OLD}]})
        with served(instruments=gone) as url:
            assert {row["symbol"]: row["freshness"] for row in get(url, "watchlist")["rows"]}["GONE"] == "closed"
            assert "GONE" not in get(url, "health")["stale"]
