"""The page's prices are in the shares of today: candles, the watch list and events, against a query of DuckDB."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
import requests
from page_data import NOW, load, serve, session_bars, stage
from pymongo.database import Database

from barflow.market.actions import Action, Dividend, Split
from barflow.market.bars import SessionBars
from barflow.market.sessions import last_sessions
from barflow.staging.actions import Actions, Answer, Known, known_of
from barflow.staging.connection import Document, connect
from dashboard.staged import Staged

Served = Callable[..., AbstractContextManager[str]]
SESSIONS = last_sessions(NOW, 12)
DAYS = [item.session_date for item in SESSIONS]
TODAY = NOW.date()
LEARNED = datetime(2025, 7, 1, 12, tzinfo=UTC)
PRICES = ("open", "high", "low", "close", "vwap")


def split(day: date, ratio: float, symbol: str = "NVDA") -> Split:
    return Split(symbol, day, ratio, "endpoint", LEARNED)


def dividend(day: date, amount: float, symbol: str = "NVDA") -> Dividend:
    return Dividend(symbol, day, amount, "USD", "endpoint", LEARNED)


SPLITS = [
    split(DAYS[0] - timedelta(days=40), 4.0),  # before the first session
    split(DAYS[3], 1.281),
    split(DAYS[5], 0.125),
    split(DAYS[6], 1.0),  # says that there was none
    split(DAYS[-1], 10.0),  # today: between the two staged sessions
    split(TODAY + timedelta(days=5), 3.0),  # not in effect yet
]
DIVIDENDS = [dividend(DAYS[0], 1.0), dividend(DAYS[3], 2.0), dividend(DAYS[8], 3.5), dividend(DAYS[-1], 0.25)]


def store(database: Database[Document], symbol: str = "NVDA", **by_kind: Sequence[Action]) -> None:
    """Stage the answers of the endpoints. A kind that is not given was never fetched."""
    answers = [Answer(symbol, kind, found, "endpoint", LEARNED, LEARNED) for kind, found in by_kind.items()]  # type: ignore[arg-type]
    Actions(database).store(answers)


def raw_bars() -> list[SessionBars]:
    """Return the sessions of NVDA as stored: a level of about 100 dollars in the shares of today."""
    made = []
    for place, traded in enumerate(SESSIONS):
        back = len(SESSIONS) - 1 - place
        level = 100.0 + 3 * place
        for item in SPLITS:
            if traded.session_date < item.ex_date <= TODAY:
                level *= item.ratio
        bars = session_bars("NVDA", back, until=NOW if back == 0 else traded.closes, price=level)
        made.append(
            replace(bars, high=[close * 1.01 for close in bars.close], low=[close * 0.99 for close in bars.close])
        )
    return made


def rows_of(bars: SessionBars) -> list[dict[str, Any]]:
    """Return the 5-minute bars as rows. The vwap of one bar is its typical price."""
    columns = zip(bars.ts, bars.open, bars.high, bars.low, bars.close, bars.volume, strict=True)
    names = ("bar_start", "open", "high", "low", "close", "volume")
    rows = [dict(zip(names, values, strict=True), session_date=bars.session_date) for values in columns]
    return [row | {"vwap": (row["high"] + row["low"] + row["close"]) / 3} for row in rows]


def day_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the daily bar of 5-minute bars."""
    volume = sum(row["volume"] for row in rows)
    return rows[0] | {
        "high": max(row["high"] for row in rows),
        "low": min(row["low"] for row in rows),
        "close": rows[-1]["close"],
        "volume": volume,
        "vwap": sum(row["vwap"] * row["volume"] for row in rows) / volume,
    }


def insert(dsn: str, table: str, rows: Sequence[dict[str, Any]]) -> None:
    with psycopg.connect(dsn) as connection:
        for row in rows:
            found = {"symbol": "NVDA", "bar_count": 1, "expected_bars": 1, "load_id": "test", **row}
            names, places = ", ".join(found), ", ".join(f"%({name})s" for name in found)
            connection.execute(f"insert into market.{table} ({names}) values ({places})", found)


@pytest.fixture(scope="module")
def sessions() -> list[SessionBars]:
    return raw_bars()


@pytest.fixture(scope="module")
def url(mongodb_uri: str, module_warehouse_dsn: str, sessions: list[SessionBars]) -> Iterator[str]:
    """The page with NVDA: ten loaded sessions, and two staged ones with a split between them. Tests only read it."""
    database = connect(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}")
    loaded = [rows_of(bars) for bars in sessions[:-2]]
    insert(module_warehouse_dsn, "bar_1d", [day_of(rows) for rows in loaded])
    insert(module_warehouse_dsn, "bar_5min", [row for rows in loaded[-3:] for row in rows])
    metrics = {"symbol": "NVDA", "session_date": DAYS[-3], "close": 1270.0, "prev_close": 1240.0, "sma_20": 1200.0}
    with psycopg.connect(module_warehouse_dsn) as connection:
        connection.execute(
            "insert into market.daily_metrics (symbol, session_date, close, prev_close, sma_20, load_id) values "
            "(%(symbol)s, %(session_date)s, %(close)s, %(prev_close)s, %(sma_20)s, 'test')",
            metrics,
        )
    stage(database, *sessions[-2:])
    store(database, split=SPLITS, dividend=DIVIDENDS)
    with serve(database, module_warehouse_dsn) as served:
        yield served
    database.client.close()


def get(url: str, path: str, **params: object) -> Any:
    return requests.get(f"{url}/api/{path}", params=params, timeout=20).json()


def oracle(bars: Sequence[SessionBars], adjust: str, minutes: int, first: date) -> list[dict[str, Any]]:
    """Return adjusted candles: each 5-minute bar is adjusted first, and then aggregated from its session's open."""
    bar = pa.Table.from_pylist([row for item in bars for row in rows_of(item)])
    close = pa.Table.from_pylist([{"session_date": item.session_date, "close": item.close[-1]} for item in bars])
    action = pa.Table.from_pylist(
        [
            {"kind": item.kind, "ex_date": item.ex_date, "value": item.value}
            for item in [*SPLITS, *DIVIDENDS]
            if first < item.ex_date <= TODAY
        ]
    )
    opens = pa.Table.from_pylist([{"session_date": item.session_date, "opens": item.opens} for item in SESSIONS])
    query = """
        with dividend as (
            select a.ex_date, 1 - a.value / (
                (select last(c.close order by c.session_date) from close c where c.session_date < a.ex_date)
                / coalesce((select product(s.value) from action s where s.kind = 'split' and s.ex_date = a.ex_date), 1)
            ) as factor
            from action a where a.kind = 'dividend'
        ),
        factor as (
            select c.session_date,
                coalesce((select product(value) from action where kind = 'split' and ex_date > c.session_date), 1) as s,
                coalesce((select product(d.factor) from dividend d where d.ex_date > c.session_date), 1) as d
            from close c
        ),
        adjusted as (
            select b.bar_start, b.session_date, floor(epoch(b.bar_start - o.opens) / (60 * $minutes)) as bucket,
                case $adjust when 'none' then 1 when 'splits' then 1 / f.s else d / f.s end as p,
                case $adjust when 'none' then 1 else f.s end as v,
                b.open * p as open, b.high * p as high, b.low * p as low, b.close * p as close, b.vwap * p as vwap,
                b.volume * v as volume
            from bar b join factor f using (session_date) join opens o using (session_date)
        )
        select epoch(min(bar_start)) as time, first(open order by bar_start) as open, max(high) as high,
            min(low) as low, last(close order by bar_start) as close, sum(vwap * volume) / sum(volume) as vwap,
            sum(volume) as volume
        from adjusted group by session_date, bucket order by 1"""
    with duckdb.connect() as connection:
        for name, table in (("bar", bar), ("close", close), ("action", action), ("opens", opens)):
            connection.register(name, table)
        found = connection.execute(query, {"adjust": adjust, "minutes": minutes}).fetchall()
    return [dict(zip(("time", *PRICES, "volume"), row, strict=True)) for row in found]


@pytest.mark.parametrize("adjust", ["none", "splits", "all"])
@pytest.mark.parametrize(
    ("interval", "minutes", "kept"), [("1d", 1440, 12), ("5min", 5, 5), ("30min", 30, 2), ("1h", 60, 2)]
)
def test_candles_are_those_of_the_oracle(
    url: str, sessions: list[SessionBars], adjust: str, interval: str, minutes: int, kept: int
) -> None:
    page = get(url, "bars/NVDA", adjust=adjust, interval=interval, limit=2000)
    first = DAYS[-kept]
    expected = [
        row for row in oracle(sessions, adjust, minutes, first) if row["time"] >= SESSIONS[-kept].opens.timestamp()
    ]
    assert page["time"] == [row["time"] for row in expected]
    for name in (*PRICES, "volume"):
        assert page[name] == pytest.approx([row[name] for row in expected], rel=1e-9, abs=0), name
    assert (page["adjust"], page["splits_fetched"], page["dividends_fetched"]) == (adjust, True, True)
    assert page["basis"] == DAYS[-1].isoformat()
    assert datetime.fromisoformat(page["actions_known_from"]) == LEARNED
    shown = [
        (item["kind"], item["ex_date"], item["ratio"] or item["amount"], item["applied"]) for item in page["actions"]
    ]
    in_range = [item for item in [*SPLITS, *DIVIDENDS] if first < item.ex_date <= TODAY and item.value != 1.0]
    applied = {"none": (), "splits": ("split",), "all": ("split", "dividend")}[adjust]
    assert sorted(shown) == sorted((x.kind, x.ex_date.isoformat(), x.value, x.kind in applied) for x in in_range)


def test_pages_of_older_candles_are_in_the_same_shares(url: str) -> None:
    whole = get(url, "bars/NVDA", adjust="all", interval="1d")
    joined: list[float] = []
    before = None
    while True:
        page = get(url, "bars/NVDA", adjust="all", interval="1d", limit=3, before=before)
        joined = page["close"] + joined
        before = page["older"]
        if before is None:
            break
    assert joined == whole["close"]


def test_the_watch_list_compares_like_with_like_across_a_split(url: str, sessions: list[SessionBars]) -> None:
    (row,) = get(url, "watchlist")["rows"]
    before, today = sessions[-2:]
    prev = before.close[-1] / 10
    assert row["last"] == today.close[-1]
    assert row["prev_close"] == pytest.approx(prev, rel=1e-9)
    assert row["change_pct"] == pytest.approx((today.close[-1] / prev - 1) * 100, rel=1e-9)
    assert abs(row["change_pct"]) < 5
    assert row["sma_20"] == pytest.approx(120.0, rel=1e-9)
    assert max(row["spark"]) / min(row["spark"]) < 1.05
    assert row["volume"] == sum(today.volume)


@pytest.mark.parametrize(
    ("stored", "adjust", "text"),
    [
        ({"split": []}, "all", "adjust=all needs the splits and dividends of AAPL, and they were never fetched"),
        ({}, "all", "they were never fetched. Run `barflow actions refresh --symbols AAPL`"),
        ({"split": [], "dividend": [dividend(DAYS[4], 900.0, "AAPL")]}, "all", "not below the close before it"),
        (
            {"split": [], "dividend": [dividend(DAYS[6], 1.0, "AAPL")]},
            "all",
            f"before the dividend on {DAYS[6]}, and the session of {DAYS[5]} is not stored",
        ),
    ],
)
def test_what_cannot_be_adjusted_is_one_clear_answer(
    served: Served,
    database: Database[Document],
    warehouse_dsn: str,
    stored: dict[str, Sequence[Action]],
    adjust: str,
    text: str,
) -> None:
    load(warehouse_dsn, "AAPL", 10)
    with psycopg.connect(warehouse_dsn) as connection:
        connection.execute("delete from market.bar_1d where session_date = %s", [DAYS[5]])
    if stored:
        store(database, "AAPL", **stored)
    with served() as url:
        answer = requests.get(f"{url}/api/bars/AAPL", params={"adjust": adjust, "interval": "1d"}, timeout=20)
        assert answer.status_code == 400
        assert text in answer.json()["detail"]
        assert "adjust=splits" in answer.json()["detail"]
        page = get(url, "bars/AAPL", interval="1d")
        assert page["close"] == [90.0] * 9
        assert (page["adjust"], page["splits_fetched"]) == (("splits", True) if stored else ("none", False))
        assert requests.get(f"{url}/api/bars/AAPL?adjust=both", timeout=20).status_code == 422


def test_a_split_that_is_learned_while_the_page_is_open_reaches_it(
    served: Served, database: Database[Document]
) -> None:
    stage(database, session_bars("AAPL", 1, until=SESSIONS[-2].closes, price=1000.0), session_bars("AAPL"))
    store(database, "OTHER", split=[split(DAYS[-1], 2.0, "OTHER")])  # a symbol without bars has no row
    with served() as url, requests.get(f"{url}/api/events", stream=True, timeout=20) as stream:
        (before,) = get(url, "watchlist")["rows"]
        assert before["prev_close"] == pytest.approx(1000.77)
        lines = stream.iter_lines(chunk_size=1, decode_unicode=True)
        store(database, "AAPL", split=[split(DAYS[-1], 10.0, "AAPL")])
        body = next(lines for line in lines if line == "event: bars")
        (row,) = json.loads(next(body).removeprefix("data: "))["rows"]
        assert (row["symbol"], row["last"]) == ("AAPL", 100.17)
        assert row["prev_close"] == pytest.approx(100.077)
        assert get(url, "bars/AAPL")["basis"] == DAYS[-1].isoformat()


def test_the_watcher_reads_each_version_of_the_actions_once(
    database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(database, session_bars("AAPL"))
    store(database, "AAPL", split=[split(DAYS[-1], 2.0, "AAPL")])
    read: list[str] = []

    def counted(document: Document) -> Known:
        read.append(document["_id"])
        return known_of(document)

    monkeypatch.setattr("dashboard.staged.known_of", counted)
    staged = Staged(database)
    staged.start(["AAPL"], NOW)
    assert (staged.refresh(), staged.refresh(), read) == (["AAPL"], [], ["AAPL"])
    store(database, "AAPL", split=[split(DAYS[-1], 4.0, "AAPL")])
    assert (staged.refresh(), read) == (["AAPL"], ["AAPL"] * 2)
    assert [item.ratio for item in staged.splits["AAPL"]] == [4.0]
    database["corporate_actions"].delete_one({"_id": "AAPL"})
    for ratio in (5.0, 6.0):  # back at the same version
        store(database, "AAPL", split=[split(DAYS[-1], ratio, "AAPL")])
    assert (staged.refresh(), read) == (["AAPL"], ["AAPL"] * 3)
    assert [item.ratio for item in staged.splits["AAPL"]] == [6.0]


def test_actions_that_this_version_cannot_read_are_counted_and_the_candles_shown(
    served: Served, database: Database[Document]
) -> None:
    stage(database, session_bars("AAPL"))
    document = {"_id": "AAPL", "version": 1, "updated_at": LEARNED, "actions": [{"kind": "merger"}]}
    database["corporate_actions"].insert_one(document)
    with served() as url:
        page = get(url, "bars/AAPL")
        assert (page["close"][-1], page["adjust"]) == (100.17, "none")
        assert {"collection": "corporate_actions", "count": 1} in get(url, "health")["unreadable"]


def test_the_api_document_names_the_choices_and_the_answer(url: str) -> None:
    document = get(url, "openapi.json")
    (adjust,) = [
        item for item in document["paths"]["/api/bars/{symbol}"]["get"]["parameters"] if item["name"] == "adjust"
    ]
    assert (adjust["schema"]["enum"], adjust["schema"]["default"]) == (["none", "splits", "all"], "splits")
    assert {"adjust", "actions", "basis", "splits_fetched"} <= document["components"]["schemas"]["Bars"][
        "properties"
    ].keys()
