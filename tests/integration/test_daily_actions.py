"""Corporate actions are asked for once a trading day before the open, and the vendor's daily bar after the close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database
from ticks import utc
from twelvedata_calls import CLOCK, MARKET, limit

from barflow.errors import DayIsSpentError, NotInPlanError
from barflow.operations.daily_actions import DailyReport, run_due
from barflow.pipeline.stores import Stores
from barflow.pipeline.vendor import ticks_left
from barflow.settings import Settings
from barflow.staging.actions import Actions
from barflow.staging.connection import Document
from emulators.slack.server import TOKEN, SlackEmulator
from emulators.twelvedata.actions import ScriptedSplit
from emulators.twelvedata.server import TwelveDataEmulator

Mongo = Database[Document]
Opened = Callable[..., Stores]
SYMBOLS = ("AAPL", "MSFT")
LISTED = datetime(2025, 5, 1, tzinfo=UTC)
MORNING, EVENING = utc("2025-07-02 12:00"), utc("2025-07-02 20:30")
TODAY, YESTERDAY = date(2025, 7, 2), date(2025, 7, 1)


@pytest.fixture
def api(market: TwelveDataEmulator) -> TwelveDataEmulator:
    market.switches.listed = dict.fromkeys(SYMBOLS, LISTED)
    return market


@pytest.fixture
def opened(api: TwelveDataEmulator, database: Mongo) -> Opened:
    """Return the function that opens the stores with some settings. The default is a plan with the endpoints."""

    def opened(**settings: Any) -> Stores:
        given = {"credits_per_minute": 10_000, "credits_per_day": None, "symbols": SYMBOLS, **settings}
        made = Stores(Settings(twelvedata_url=api.url, twelvedata_api_key="emulator-key", **given), CLOCK)
        made.database = database
        return made

    return opened


def run(stores: Stores, now: datetime, **given: Any) -> DailyReport:
    CLOCK.now = now
    return run_due(stores, lambda text: None, **given)


def asked(api: TwelveDataEmulator) -> Counter[str]:
    """Return the credits by endpoint, and forget the requests."""
    spent: Counter[str] = Counter()
    for call in api.requests:
        spent[call.path] += call.credits
    api.requests.clear()
    return spent


def days(database: Mongo) -> dict[str, float]:
    return {item["_id"]: item["close"] for item in database["vendor_days"].find()}


def close(symbol: str, day: date) -> float:
    rows = MARKET.rows(symbol, datetime(*day.timetuple()[:3], tzinfo=UTC), utc(f"{day} 23:00"))
    return float(rows[-1][4] or 0)


def test_a_day_asks_for_the_actions_before_the_open_and_for_the_daily_bar_after_the_close(
    api: TwelveDataEmulator, database: Mongo, opened: Opened
) -> None:
    stores = opened()
    assert run(stores, MORNING).outcome == "succeeded"
    # The daily bar of yesterday is missing too: 1 credit a symbol.
    assert asked(api) == Counter({"/splits": 40, "/dividends": 40, "/time_series": 2})
    assert set(days(database)) == {"AAPL|2025-07-01", "MSFT|2025-07-01"}
    for minutes in (5, 60, 89, 91, 200, 481, 499):  # also during the session, and too early after it
        assert run(stores, MORNING + timedelta(minutes=minutes)).outcome == "idle"
    assert asked(api) == Counter()
    assert run(stores, EVENING).vendor_days == 2
    assert asked(api) == Counter({"/time_series": 2})
    assert days(database)["AAPL|2025-07-02"] == pytest.approx(close("AAPL", TODAY))
    assert run(stores, EVENING + timedelta(minutes=5)).outcome == "idle"
    assert run(stores, MORNING + timedelta(days=1)).outcome == "succeeded"
    assert asked(api) == Counter({"/splits": 40, "/dividends": 40})
    for closed in ("2025-07-04 12:00", "2025-07-05 12:00"):  # a holiday and a Saturday: only a daily bar is due
        assert run(stores, utc(closed)).actions is None
    assert asked(api) == Counter({"/time_series": 2})  # of the half day on July 3


def test_the_derived_way_brings_the_daily_bar_at_no_further_credit(
    api: TwelveDataEmulator, database: Mongo, opened: Opened
) -> None:
    stores = opened(credits_per_minute=8, credits_per_day=800)
    api.switches.splits = {"AAPL": [ScriptedSplit(TODAY, 10)]}
    report = run(stores, MORNING)
    assert (report.outcome, report.vendor_days) == ("succeeded", 2)
    assert asked(api) == Counter({"/time_series": 4})
    # Before the open of the ex-date, the daily bars are adjusted for it already.
    known = Actions(database).of(["AAPL"])["AAPL"].actions
    assert [(item.ex_date, item.value, item.source) for item in known] == [(TODAY, 10.0, "derived")]
    [document] = database["vendor_days"].find({"symbol": "AAPL"})
    assert document["close"] == pytest.approx(close("AAPL", YESTERDAY))
    assert isinstance(document["volume"], int)
    assert document["requested_at"] <= document["updated_at"]
    assert run(stores, EVENING).vendor_days == 2
    assert asked(api) == Counter({"/time_series": 2})
    run(stores, MORNING + timedelta(days=1))
    assert [item.ex_date for item in Actions(database).of(["AAPL"])["AAPL"].actions] == [TODAY]


def test_a_daily_bar_that_changes_is_staged_again_and_older_ones_are_not_added(
    api: TwelveDataEmulator, database: Mongo, opened: Opened
) -> None:
    stores = opened(symbols=("AAPL",), credits_per_minute=8, credits_per_day=800)
    run(stores, EVENING)
    [before] = database["vendor_days"].find()
    assert before["_id"] == "AAPL|2025-07-02"
    run(stores, MORNING + timedelta(days=1))
    [same] = database["vendor_days"].find()
    assert same == before
    api.switches.wrong_days = {("AAPL", TODAY): 1.004}
    assert run(stores, utc("2025-07-03 18:00")).vendor_days == 2, "that of July 3, and the corrected one of July 2"
    changed = database["vendor_days"].find_one({"_id": before["_id"]})
    assert changed
    assert changed["close"] == pytest.approx(1.004 * before["close"])
    assert changed["updated_at"] > before["updated_at"]


def test_a_daily_bar_that_the_vendor_lacks_is_asked_for_twice(
    api: TwelveDataEmulator, database: Mongo, opened: Opened
) -> None:
    api.switches.listed = {"AAPL": utc("2025-07-03 13:30")}
    stores = opened(symbols=("AAPL",))
    run(stores, EVENING)
    assert asked(api)["/time_series"] == 1
    for minutes in (5, 10, 300):
        run(stores, EVENING + timedelta(minutes=minutes))
    assert asked(api)["/time_series"] == 0
    for minutes in (0, 5, 10):
        run(stores, MORNING + timedelta(days=1, minutes=minutes))
    assert asked(api)["/time_series"] == 1
    assert days(database) == {}


def test_runs_at_the_same_time_end_in_the_state_of_one(
    api: TwelveDataEmulator, database: Mongo, opened: Opened, slack_server: SlackEmulator
) -> None:
    wrong = ScriptedSplit(YESTERDAY, 10, ratio=0.2)
    api.switches.splits = {"AAPL": [ScriptedSplit(YESTERDAY, 4)], "MSFT": [wrong]}
    slack = {"slack_url": slack_server.url, "slack_token": TOKEN, "slack_channel": "#bars"}
    CLOCK.now = MORNING
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: run_due(opened(**slack), lambda text: None), range(4)))
    assert len(days(database)) == 2
    assert [item.action.value for item in Actions(database).of(["AAPL"])["AAPL"].versions] == [4.0]
    assert len(slack_server.posts) == 1


def test_ticks_come_first_when_the_credits_of_the_day_are_short(
    api: TwelveDataEmulator, database: Mongo, opened: Opened
) -> None:
    # Two symbols and 80 ticks need 160 credits: 4 are for the daily series of two symbols, 3 for one.
    basic = {"credits_per_minute": 8}
    assert run(opened(credits_per_day=159, **basic), MORNING).to_json()["left"] == [*SYMBOLS]
    assert asked(api) == Counter()
    report = run(opened(credits_per_day=163, **basic), MORNING)
    assert (report.outcome, report.left) == ("partial", ["MSFT"])
    assert asked(api) == Counter({"/time_series": 3})  # and the daily bar of the other one
    assert run(opened(credits_per_day=164, **basic), MORNING).outcome == "partial", "what was spent counts"
    assert asked(api) == Counter()
    assert run(opened(credits_per_day=165, **basic), MORNING).outcome == "succeeded"
    assert asked(api) == Counter({"/time_series": 2})


def test_the_ticks_of_the_day_that_are_left_are_counted() -> None:
    five, quarter = timedelta(minutes=5), timedelta(minutes=15)
    assert ticks_left(MORNING, five) == 80
    assert ticks_left(MORNING, quarter) == 27
    assert ticks_left(utc("2025-07-02 20:09"), five) == 1
    assert ticks_left(EVENING, five) == 0
    assert ticks_left(utc("2025-07-03 00:30"), five) == 44, "a half day"
    assert ticks_left(utc("2025-07-04 12:00"), five) == 0


def test_a_run_ends_before_the_open_and_the_next_one_resumes(
    api: TwelveDataEmulator, database: Mongo, opened: Opened
) -> None:
    stores = opened()
    assert run(stores, utc("2025-07-02 13:29")).outcome == "idle"
    report = run(stores, MORNING, longest=timedelta(0))
    assert (report.outcome, report.left) == ("partial", [*SYMBOLS])
    assert asked(api) == Counter()
    assert run(stores, MORNING, longest=timedelta(minutes=2)).outcome == "succeeded"


@pytest.mark.parametrize(
    ("switches", "settings", "error"),
    [
        ({"actions_refused": 403}, {"actions_source": "endpoint"}, NotInPlanError),
        ({}, {"credits_per_minute": 8, "credits_per_day": 800}, DayIsSpentError),
    ],
)
def test_a_refusal_is_raised_and_the_next_run_resumes(
    api: TwelveDataEmulator,
    database: Mongo,
    opened: Opened,
    switches: dict[str, Any],
    settings: dict[str, Any],
    error: type[Exception],
) -> None:
    vars(api.switches).update(switches)
    limit(api, per_day=2)
    with pytest.raises(error):
        run(opened(**settings), MORNING)
    limit(api)
    api.switches.actions_refused = None
    assert run(opened(**settings), MORNING).outcome == "succeeded"


def test_a_source_of_none_asks_nothing(api: TwelveDataEmulator, opened: Opened) -> None:
    assert run(opened(actions_source="none"), MORNING).outcome == "idle"
    assert asked(api) == Counter()


def test_a_contradiction_is_posted_once_a_day_and_asked_for_once(
    api: TwelveDataEmulator, database: Mongo, opened: Opened, slack_server: SlackEmulator
) -> None:
    api.switches.splits = {"AAPL": [ScriptedSplit(YESTERDAY, 10, ratio=0.2)]}
    slack = {"slack_url": slack_server.url, "slack_token": TOKEN, "slack_channel": "#bars"}
    stores = opened(**slack)
    assert run(stores, MORNING).outcome == "partial"
    asked(api)
    for minutes in (5, 10):
        run(stores, MORNING + timedelta(minutes=minutes))
    assert asked(api) == Counter()
    [text] = [post["text"] for post in slack_server.posts]
    assert text.startswith(
        ":warning: *splits and dividends* in local: Twelve Data contradicts itself\nAAPL: the split of"
    )
    assert text.endswith("Import the right ones with `barflow actions import`")
    run(stores, MORNING + timedelta(days=1))
    assert len(slack_server.posts) == 2


def test_a_withdrawn_action_is_withdrawn_by_the_next_day(
    api: TwelveDataEmulator, database: Mongo, opened: Opened
) -> None:
    api.switches.splits = {"AAPL": [ScriptedSplit(YESTERDAY, 10, withdrawn=EVENING)]}
    stores = opened()
    run(stores, MORNING)
    assert len(Actions(database).of(["AAPL"])["AAPL"].actions) == 1
    run(stores, MORNING + timedelta(days=1))
    known = Actions(database).of(["AAPL"])["AAPL"]
    assert (known.actions, len(known.versions)) == ([], 1)
