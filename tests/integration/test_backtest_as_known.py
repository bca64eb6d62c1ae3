"""A backtest as known gives exactly the live alerts (guarantees G6 and G9), also after ticks that went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from alert_ticks import rules
from past_month import FIRST, INSTRUMENTS, LAST, LEVEL, RULES, SYMBOLS, WEAK, Month
from pymongo.database import Database

from barflow.backtest.as_known import as_known
from barflow.backtest.known_bars import KnownBars
from barflow.backtest.result import Backtest
from barflow.staging.connection import Document, connect

Mongo = Database[Document]


def backtest(database: Mongo, **options: Any) -> Backtest:
    given = {"book": RULES, "symbols": SYMBOLS, "start": FIRST, "end": LAST, **options}
    return as_known(KnownBars(database, None, INSTRUMENTS), **given)


def live(database: Mongo) -> dict[str, tuple[Any, ...]]:
    messages = [item["message"] for item in database["alerts"].find()]
    return {item["id"]: (item["value"], item["reference"], item["price"], item["direction"]) for item in messages}


def found(result: Backtest) -> dict[str, tuple[Any, ...]]:
    return {item.id: (item.value, item.reference, item.price, item.direction) for item in result.events}


@pytest.mark.parametrize(("seed", "ticks"), [pytest.param(3, 3, marks=pytest.mark.minutes), (4, 2)])
def test_a_backtest_as_known_of_a_hard_month_gives_the_live_alerts(database: Mongo, seed: int, ticks: int) -> None:
    month = Month(database, seed, ticks=ticks)
    month.run()
    result = backtest(database)
    assert found(result) == live(database), month.done
    assert all(note.startswith("TSLA: ") for note in result.notes), "what live ticks noted of the split"
    assert {event.rule.id for event in result.events} >= {rule.id for rule in RULES.all} - {"level"}
    assert {event.symbol for event in result.events} == {*SYMBOLS, "FB", "*"}
    alone = {name: values for name, values in found(backtest(database, symbols=["AAPL"])).items() if "|*|" not in name}
    assert alone == {name: values for name, values in live(database).items() if "|AAPL|" in name}


@pytest.fixture(scope="module")
def calm(mongodb_uri: str) -> Iterator[Mongo]:
    """Return the stores after a month in which all ticks succeed."""
    database = connect(mongodb_uri, "calm_month")
    Month(database, 7, calm=True, ticks=2).run()
    yield database
    database.client.drop_database(database.name)


def test_where_no_journal_is_bars_are_evaluated_when_they_were_known(calm: Mongo) -> None:
    """Silences are evaluated more often than these ticks did."""
    kept = list(calm["alert_evaluations"].find())
    calm["alert_evaluations"].drop()
    result = backtest(calm)
    assert "AAPL, BRK.B, META, FB, TSLA: no tick has recorded what it saw" in " ".join(result.notes)
    without = {item for item in found(result) if not item.startswith("stale|")}
    assert without == {item for item in live(calm) if not item.startswith("stale|")}
    half = [item for item in kept if item["now"].date() >= date(2025, 7, 10)]
    calm["alert_evaluations"].insert_many(half)
    later = {"start": date(2025, 7, 11)}
    assert (
        found(backtest(calm, **later)).items()
        == {name: values for name, values in live(calm).items() if name.split("|")[2] >= "2025-07-11"}.items()
    )
    [note] = [note for note in backtest(calm, **later).notes if "recorded since" in note]
    assert note.startswith("AAPL, BRK.B, FB, TSLA: what ticks saw is recorded since 2025-07-10 ")
    calm["alert_evaluations"].drop()
    calm["alert_evaluations"].insert_many(kept)
    assert found(backtest(calm)) == live(calm)


def test_other_rules_are_evaluated_on_what_ticks_saw(calm: Mongo) -> None:
    result = backtest(calm, book=rules(LEVEL, WEAK))
    expected = {name: values for name, values in live(calm).items() if name.startswith(("level|", "weak|"))}
    assert found(result) == expected
    [note] = [note for note in result.notes if "other rules" in note]
    assert note.startswith("from 2025-07-01 ")
