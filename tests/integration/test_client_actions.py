"""The client reads splits and dividends, derives splits from daily bars, and rejects what contradicts itself."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from clients import Waits, client
from twelvedata_calls import CLOCK, DAY_CLOSES, limit

from barflow.errors import DayIsSpentError, NotInPlanError
from barflow.twelvedata import action_answers
from barflow.twelvedata.action_answers import Found
from barflow.twelvedata.client import Answer, SymbolError
from emulators.twelvedata.actions import ScriptedDividend, ScriptedSplit
from emulators.twelvedata.server import TwelveDataEmulator

LISTED = datetime(2025, 3, 3, tzinfo=UTC)
TEN = ScriptedSplit(date(2025, 6, 10), 10)
EIGHTH = ScriptedSplit(date(2025, 5, 12), 1, 8)
SPIN_OFF = ScriptedSplit(date(2025, 4, 7), 1281, 1000)
EXPECTED = {SPIN_OFF.ex_date: 1.281, EIGHTH.ex_date: 0.125, TEN.ex_date: 10.0}


@pytest.fixture
def api(market: TwelveDataEmulator) -> TwelveDataEmulator:
    """Return the emulator with three splits of AAPL, which is listed since March 2025."""
    market.switches.listed = {"AAPL": LISTED, "MSFT": LISTED}
    market.switches.splits = {"AAPL": [TEN, EIGHTH, SPIN_OFF]}
    return market


def splits(api: TwelveDataEmulator) -> Found:
    answer = client(api).listing("AAPL", "split")
    assert isinstance(answer, Answer)
    return action_answers.splits(answer, CLOCK())


def derived(api: TwelveDataEmulator) -> Found:
    found = [next(iter(client(api).daily(["AAPL"], adjust))) for adjust in ("none", "splits")]
    return action_answers.derived_splits(*found, CLOCK())


def by_day(found: Found) -> dict[date, float]:
    assert found.problems == []
    return {item.ex_date: item.value for item in found.actions}


@pytest.mark.parametrize("other_direction", [False, True])
def test_splits_are_read_whatever_the_direction_of_ratio_and_factors(
    api: TwelveDataEmulator, other_direction: bool
) -> None:
    api.switches.other_direction = other_direction
    assert by_day(splits(api)) == EXPECTED
    assert [(call.path, call.credits) for call in api.requests] == [("/splits", 20)]


def test_splits_derived_from_daily_bars_are_those_of_the_endpoint(api: TwelveDataEmulator) -> None:
    found = derived(api)
    assert by_day(found) == EXPECTED
    assert {item.source for item in found.actions} == {"derived"}
    assert found.covers is not None
    assert found.covers[1] == date(2025, 7, 2)
    assert [call.credits for call in api.requests] == [1, 1]


def test_dividends_are_asked_for_as_paid(api: TwelveDataEmulator) -> None:
    api.switches.dividends = {
        "AAPL": [ScriptedDividend(date(2025, 5, 20), 2.5), ScriptedDividend(date(2025, 6, 20), 0.3)]
    }
    answer = client(api).listing("AAPL", "dividend")
    assert by_day(action_answers.dividends(answer, CLOCK())) == {date(2025, 5, 20): 2.5, date(2025, 6, 20): 0.3}
    assert api.requests[-1].params["adjust"] == "false"
    same_day = [ScriptedDividend(date(2025, 6, 20), amount) for amount in (0.3, 0.3, 2.0)]
    api.switches.dividends = {"AAPL": same_day}
    again = action_answers.dividends(client(api).listing("AAPL", "dividend"), CLOCK())
    assert by_day(again) == {date(2025, 6, 20): 2.3}, "different amounts of a day are added, equal ones are one"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ratio": 0.2}, r"2025-06-10 contradicts itself: description '10-for-1 split', ratio 0.2"),
        ({"factors": (7, 1)}, r"contradicts itself: .*, factors 7"),
        ({"description": "4-for-1 split"}, r"description '4-for-1 split', ratio 0.1 and factors 10"),
        ({"description": "10-for-1 reverse split"}, r"contradicts itself: description '10-for-1 reverse split'"),
        ({"description": "a split"}, r"does not say its direction: description 'a split'"),
    ],
)
def test_a_split_that_contradicts_itself_is_a_problem_with_its_date(
    api: TwelveDataEmulator, wrong: dict[str, Any], message: str
) -> None:
    api.switches.splits = {"AAPL": [ScriptedSplit(TEN.ex_date, 10, **wrong), EIGHTH]}
    found = splits(api)
    [(day, text)] = found.problems
    assert day == TEN.ex_date
    assert [item.ex_date for item in found.actions] == [EIGHTH.ex_date]
    assert re.search(message, text)


def test_a_wrong_day_of_the_daily_bars_is_a_problem_and_no_split(api: TwelveDataEmulator) -> None:
    api.switches.wrong_days = {("AAPL", date(2025, 6, 24)): 3.0}
    found = derived(api)
    assert [day for day, _ in found.problems] == [date(2025, 6, 24)]
    assert {item.ex_date for item in found.actions} == set(EXPECTED)
    api.switches.wrong_days = {("AAPL", date(2025, 7, 2)): 3.0}
    assert [text for _, text in derived(api).problems] == [
        "the newest raw price is 3 times the adjusted one, not equal"
    ]


def test_an_answer_for_another_symbol_or_in_another_currency_is_a_problem() -> None:
    rows = [{"date": "2025-06-10", "description": "10-for-1 split", "ratio": 0.1}]
    for meta, words in (({"symbol": "MSFT"}, "is for 'MSFT'"), ({"currency": "CAD"}, "is in 'CAD'")):
        found = action_answers.splits(Answer("AAPL", meta, rows, CLOCK()), CLOCK())
        assert found.actions == []
        assert words in found.problems[0][1]


@pytest.mark.parametrize("code", [403, 404])
def test_a_plan_without_the_endpoint_is_told_apart_from_no_splits(api: TwelveDataEmulator, code: int) -> None:
    assert client(api).listing("MSFT", "split").values == []
    api.switches.actions_refused = code
    if code == 403:
        with pytest.raises(NotInPlanError, match=r"/splits is available exclusively with grow"):
            client(api).listing("AAPL", "split")
    else:
        refused = client(api).listing("AAPL", "split")
        assert isinstance(refused, SymbolError)
        assert "plan" in refused.message


def test_a_listing_waits_for_its_twenty_credits(api: TwelveDataEmulator) -> None:
    limit(api, per_minute=55, per_day=50)
    waits = Waits()
    own = client(api, waits, credits_per_minute=30, credits_per_day=50)
    assert len(own.listing("AAPL", "split").values) == 3
    assert own.listing("MSFT", "split").values == []
    assert len(waits.seconds) == 1
    with pytest.raises(DayIsSpentError, match="used up before AAPL"):
        own.listing("AAPL", "dividend")
    assert len(api.requests) == 2
    assert CLOCK() - DAY_CLOSES < timedelta(minutes=2)


def test_a_listing_beyond_the_credits_of_the_plan_is_refused_without_a_call(api: TwelveDataEmulator) -> None:
    with pytest.raises(NotInPlanError, match="costs 20 API credits, and the plan has 8 a minute"):
        client(api, credits_per_minute=8).listing("AAPL", "split")
    assert api.requests == []
