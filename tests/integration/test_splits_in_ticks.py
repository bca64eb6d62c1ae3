"""A split is one alert with the true gap (guarantees G6 and G10), whenever it is learned and wherever a tick dies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import alert_ticks
import pytest
from alert_ticks import DAY, SYMBOLS, answer, at, hop, ids, rules
from processes import Waiting, run, run_killed, start
from pymongo.database import Database

from barflow.alerts.outbox import AlertStates
from barflow.market.actions import Action, Dividend, Kind, Split
from barflow.market.sessions import previous_session, utc_now
from barflow.pipeline.ingest_report import IngestReport
from barflow.staging.actions import Actions, Answer
from barflow.staging.connection import Document
from barflow.staging.sessions import Staging, StoredSession

Mongo = Database[Document]
RULES = [
    {"id": "gap_5pct", "kind": "gap", "percent": 5.0},
    {"id": "unknown_split", "kind": "split"},
    {"id": "low", "kind": "extreme", "sessions": 1, "direction": "down"},
]
BOOK = rules(*RULES)
night = previous_session(DAY)
assert night is not None
EVE = night.session_date
GAP = "gap_5pct|AAPL|2025-07-30T13:30:00Z"
LOW = "low|AAPL|2025-07-30T13:30:00Z"
UNKNOWN = "unknown_split|AAPL|2025-07-30T13:30:00Z"
FLAT = [1000.0, 1000.0]
# A 10-for-1 split with a true gap of -6 %.
SPLIT_OPEN = [94.0, 94.0]


def learn(database: Mongo, ratio: float | None, symbol: str = "AAPL", ex_date: date = DAY) -> None:
    """Stage what Twelve Data lists now: one split, or none. A dividend is staged too, and changes nothing."""
    now = utc_now()
    splits = [Split(symbol, ex_date, ratio, "endpoint", now)] if ratio else []
    dividends = [Dividend(symbol, ex_date, 500.0, "USD", "endpoint", now)]
    kinds: list[tuple[Kind, Sequence[Action]]] = [("split", splits), ("dividend", dividends)]
    Actions(database).store([Answer(symbol, kind, found, "endpoint", now, now) for kind, found in kinds])


def eve(database: Mongo, symbols: Sequence[str] = ("AAPL",)) -> None:
    """Tick at the end of the session before."""
    answers = [answer(symbol, FLAT, at(2, EVE), EVE) for symbol in symbols]
    hop(database, *answers, now=at(2, EVE), book=BOOK).tick(symbols)


def tick(database: Mongo, bars: int = 2, *, with_news: bool = True) -> IngestReport:
    """Tick on the ex-date, with or without an answer."""
    results = [answer("AAPL", SPLIT_OPEN[:1] * bars, at(bars))] if with_news else []
    return hop(database, *results, now=at(bars), book=BOOK).tick(["AAPL"])


def values(database: Mongo) -> dict[str, float]:
    return {item["_id"]: item["message"]["value"] for item in database["alerts"].find()}


def test_a_known_split_fires_the_true_gap_and_reads_no_history_back(
    database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(database, 10.0)
    eve(database)
    raw = database["alert_state"].find_one()
    read: list[str] = []
    queries: list[Sequence[str]] = []
    sessions, splits = Staging.sessions, Actions.splits

    def reading(staging: Staging, keys: Sequence[str]) -> Iterator[StoredSession]:
        read.extend(keys)
        return sessions(staging, keys)

    def asking(actions: Actions, symbols: Sequence[str]) -> dict[str, list[Split]]:
        queries.append(symbols)
        return splits(actions, symbols)

    monkeypatch.setattr(Staging, "sessions", reading)
    monkeypatch.setattr(Actions, "splits", asking)
    report = tick(database)
    assert values(database) == {GAP: -6.0, LOW: 94.0}
    assert "AAPL" not in report.notes or not any("no rule compares" in note for note in report.notes["AAPL"])
    assert read == []
    assert queries == [["AAPL"]]
    after = database["alert_state"].find_one()
    assert raw is not None
    assert after is not None
    assert after["sessions"][EVE.isoformat()] == raw["sessions"][EVE.isoformat()], "the state stays raw"
    assert after["splits"] == {"2025-07-30": 10.0}


@pytest.mark.parametrize("with_news", [False, True])
def test_a_split_learned_after_the_open_fires_the_true_gap_once(database: Mongo, with_news: bool) -> None:
    eve(database)
    for bars in (1, 2):
        report = tick(database, bars)
        assert ids(database) == [UNKNOWN]
        assert any("like a 10-for-1 split that is not known: no rule compares" in note for note in report.notes["AAPL"])
    run_of_tick = database["ledger"].find_one({"run_id": report.run_id})
    assert run_of_tick is not None
    assert any("no rule compares" in note for note in run_of_tick["notes"])
    learn(database, 10.0)
    for bars in (3, 4):
        report = tick(database, bars, with_news=with_news)
        assert values(database) == {UNKNOWN: -90.6, GAP: -6.0, LOW: 94.0}
        assert report.alerts == (2 if bars == 3 else 0)
    for ratio in (5.0, None, 10.0):
        learn(database, ratio)
        tick(database, 5, with_news=with_news)
    assert values(database) == {UNKNOWN: -90.6, GAP: -6.0, LOW: 94.0}, "nothing is withdrawn, nothing fires twice"


def test_a_split_that_is_never_listed_mutes_its_own_session_only(database: Mongo) -> None:
    eve(database)
    tick(database)
    after = date(2025, 7, 31)
    hop(database, answer("AAPL", [80.0], at(1, after), after), now=at(1, after), book=BOOK).tick(["AAPL"])
    next_gap, next_low = GAP.replace("30T", "31T"), LOW.replace("30T", "31T")
    assert values(database) == {UNKNOWN: -90.6, next_gap: -14.8936, next_low: 80.0}


DIES = {
    "between storing and evaluating": ("Staging.save", "after"),
    "before the state": ("AlertStates.save", "before"),
    "between the state and the outbox": ("AlertStates.save", "after"),
    "between the outbox and the end of the tick": ("Outbox.insert", "after"),
}


@pytest.mark.parametrize("learned", ["before the open", "after the open"])
@pytest.mark.parametrize("point", DIES)
def test_a_tick_killed_anywhere_leaves_the_true_gap_to_a_later_tick(
    database: Mongo, mongodb_uri: str, point: str, learned: str
) -> None:
    expected = {GAP: -6.0, LOW: 94.0}
    if learned == "after the open":
        eve(database)
        tick(database, 1)
        learn(database, 10.0)
        expected[UNKNOWN] = -90.6
    else:
        learn(database, 10.0)
        eve(database)
    settings: dict[str, Any] = {"now": at(2), "closes": {"AAPL": dict(enumerate(SPLIT_OPEN))}, "rules": RULES}
    killed = start(alert_ticks.prepare, uri=mongodb_uri, database=database.name, die=DIES[point], **settings)
    run_killed(killed)
    for bars in (3, 4):
        tick(database, bars)
        assert values(database) == expected


def test_two_ticks_at_once_repeat_a_session_and_fire_one_alert_per_event(database: Mongo, mongodb_uri: str) -> None:
    eve(database, SYMBOLS)
    opened = [answer(symbol, SPLIT_OPEN, at(2)) for symbol in SYMBOLS]
    hop(database, *opened, now=at(2), book=BOOK).tick(SYMBOLS)
    for symbol in SYMBOLS:
        learn(database, 10.0, symbol)

    def waiting(bars: int) -> Waiting:
        closes = {symbol: dict.fromkeys(range(bars), SPLIT_OPEN[0]) for symbol in SYMBOLS}
        settings: dict[str, Any] = {"now": at(bars), "closes": closes, "rules": RULES}
        return start(alert_ticks.prepare, uri=mongodb_uri, database=database.name, **settings)

    ticks = waiting(2), waiting(3)
    run(*ticks)
    assert [item.process.exitcode for item in ticks] == [0, 0]
    events = (("gap_5pct", -6.0), ("low", 94.0), ("unknown_split", -90.6))
    assert values(database) == {
        f"{rule}|{symbol}|2025-07-30T13:30:00Z": value for rule, value in events for symbol in SYMBOLS
    }
    states = AlertStates(database).load(SYMBOLS).values()
    assert [state.splits for state in states] == [{DAY: 10.0}] * len(SYMBOLS)


@pytest.mark.parametrize("moment", [(AlertStates, "load"), (AlertStates, "save")], ids=["before", "after"])
def test_a_tick_that_is_overtaken_does_not_undo_what_was_evaluated_with_newer_splits(
    database: Mongo, monkeypatch: pytest.MonkeyPatch, moment: tuple[type, str]
) -> None:
    """The slow tick starts when no split is known. The faster one has evaluated with it."""
    eve(database)
    owner, name = moment
    original, overtaken = getattr(owner, name), []

    def overtake(*arguments: Any) -> Any:
        if not overtaken:
            overtaken.append(True)
            learn(database, 10.0)
            tick(database, 3)
        return original(*arguments)

    monkeypatch.setattr(owner, name, overtake)
    tick(database, 2)
    state = AlertStates(database).load(["AAPL"])["AAPL"]
    assert state.splits == {DAY: 10.0}
    assert [*state.sessions.values()][-1].slots == bytes(range(3))
    assert {GAP: -6.0, LOW: 94.0}.items() <= values(database).items()


def test_a_level_that_a_split_left_behind_is_noted_once(database: Mongo) -> None:
    book = rules({"id": "target", "kind": "level", "level": 1300.0})
    hop(database, answer("AAPL", FLAT, at(2, EVE), EVE), now=at(2, EVE), book=book).tick(["AAPL"])
    learn(database, 10.0)
    hop(database, now=at(3, EVE), book=book).tick(["AAPL"])
    noted = []
    for bars in (1, 2, 3):
        report = hop(database, answer("AAPL", SPLIT_OPEN[:1] * bars, at(bars)), now=at(bars), book=book).tick(["AAPL"])
        noted += [note for note in report.notes.get("AAPL", ()) if "rule target" in note]
    [note] = noted
    assert "has had the level 1300 since 2025-07-29, and AAPL had a 10-for-1 split on 2025-07-30" in note
    assert "write as_of = 2025-07-29" in note
    assert ids(database) == []
