"""A tick asks for a split that an open suggests and for the actions of new symbols, and never fails because of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import pytest
from pymongo.database import Database
from ticks import utc
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS, MARKET, limit, reset

from barflow.alerts.tick import Alerts
from barflow.market.recordings import Recording
from barflow.market.sessions import BAR
from barflow.pipeline import tick_actions
from barflow.pipeline.actions import import_file
from barflow.pipeline.ingest import open_ingest
from barflow.pipeline.ingest import run as run_tick
from barflow.pipeline.ingest_report import IngestReport
from barflow.pipeline.stores import Stores
from barflow.settings import Settings
from barflow.staging.actions import Actions
from barflow.staging.connection import Document
from barflow.staging.ledger import SUCCEEDED
from emulators.twelvedata.actions import ScriptedSplit
from emulators.twelvedata.bar_source import Row
from emulators.twelvedata.server import TwelveDataEmulator

Mongo = Database[Document]
EX_DATE = date(2025, 7, 2)
BEFORE = utc("2025-07-01 20:05")
AT_OPEN = DAY_OPENS + BAR
FLAG = "possible_split 10:1: "


def with_split(rows: list[Row], ratio: float = 10.0) -> Iterator[tuple[str, Row]]:
    """Yield the bars of AAPL, in new shares from the ex-date on, and those of MSFT as they are."""
    for row in rows:
        new = row[0].date() >= EX_DATE
        prices = (f"{float(text or 0) / (ratio if new else 1):.5f}" for text in row[1:5])
        yield "AAPL", (row[0], *prices, row[5])  # type: ignore[misc]
        yield "MSFT", row


@pytest.fixture(scope="module")
def server() -> Iterator[TwelveDataEmulator]:
    """Return an emulator in whose bars AAPL splits 10 for 1 on the ex-date."""
    rows = MARKET.rows("AAPL", utc("2025-06-20 13:30"), DAY_CLOSES)
    with TwelveDataEmulator(Recording(with_split(rows)), clock=CLOCK) as running:
        yield running


@pytest.fixture
def api(server: TwelveDataEmulator) -> TwelveDataEmulator:
    reset(server)
    server.switches.splits = {"AAPL": [ScriptedSplit(EX_DATE, 10, learned=DAY_OPENS)]}
    return server


@pytest.fixture
def opened(api: TwelveDataEmulator, database: Mongo) -> Callable[..., Stores]:
    """Return the function that opens the stores with some settings."""

    def opened(**settings: Any) -> Stores:
        given = {"credits_per_minute": 10_000, "credits_per_day": None, "history_sessions": 3, **settings}
        made = Stores(Settings(twelvedata_url=api.url, twelvedata_api_key="emulator-key", **given), CLOCK)
        made.database = database
        return made

    return opened


def tick(stores: Stores, *symbols: str) -> IngestReport:
    return run_tick(stores, symbols or ("AAPL",), lambda text: None)


def asked(api: TwelveDataEmulator) -> Counter[str]:
    """Return the credits of the requests by endpoint, those for 5-minute bars left out. Forget the requests."""
    spent: Counter[str] = Counter()
    for call in api.requests:
        if call.params.get("interval") != "5min":
            spent[call.path] += call.credits
    api.requests.clear()
    return spent


def splits(database: Mongo) -> dict[date, tuple[float, str]]:
    return {item.ex_date: (item.value, item.source) for item in Actions(database).of(["AAPL"])["AAPL"].actions}


ALL = Counter({"/splits": 20, "/dividends": 20})


def test_the_first_tick_of_a_symbol_asks_for_its_actions_once(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores]
) -> None:
    CLOCK.now = AT_OPEN + timedelta(minutes=1)
    stores = opened()
    assert tick(stores, "AAPL", "MSFT").notes == {"actions": ["AAPL: learned the 10-for-1 split on 2025-07-02"]}
    assert asked(api) == Counter({"/splits": 40, "/dividends": 40})
    assert splits(database) == {EX_DATE: (10.0, "endpoint")}
    assert tick(stores, "AAPL", "MSFT").notes == {}
    assert asked(api) == Counter()


def test_an_unknown_split_is_asked_for_at_the_open_before_the_alerts(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = opened()
    CLOCK.now = BEFORE
    tick(stores)
    asked(api)
    CLOCK.now = AT_OPEN
    known_to_alerts: list[Any] = []
    evaluate = Alerts._evaluate
    monkeypatch.setattr(
        Alerts,
        "_evaluate",
        lambda self, *given: (known_to_alerts.append(splits(database)), evaluate(self, *given))[1],
    )
    report = tick(stores)
    assert report.notes == {"actions": ["AAPL: learned the 10-for-1 split on 2025-07-02"]}
    assert known_to_alerts[0] == {EX_DATE: (10.0, "endpoint")}
    assert asked(api) == ALL
    run = stores.ledger.last("ingest")
    assert run
    assert run["notes"] == ["actions: AAPL: learned the 10-for-1 split on 2025-07-02"]
    CLOCK.now += timedelta(hours=1)
    assert tick(stores).notes == {}
    assert asked(api) == Counter()


def test_a_split_that_is_learned_late_is_asked_for_twice_a_session(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores]
) -> None:
    api.switches.splits = {"AAPL": [ScriptedSplit(EX_DATE, 10, learned=AT_OPEN + timedelta(minutes=20))]}
    stores = opened()
    CLOCK.now = BEFORE
    tick(stores)
    asked(api)
    CLOCK.now = AT_OPEN
    flag, note = tick(stores).notes["AAPL"]
    assert flag.startswith(FLAG)
    assert "like a 10-for-1 split that is not known" in note
    assert flag.endswith("; Twelve Data was asked, and knows no such split")
    assert asked(api) == ALL
    for minutes in (5, 25):
        CLOCK.now = AT_OPEN + timedelta(minutes=minutes)
        assert tick(stores).notes["AAPL"][0].endswith("; Twelve Data was asked before")
    assert asked(api) == Counter()
    CLOCK.now = AT_OPEN + timedelta(minutes=30)
    assert tick(stores).notes == {"actions": ["AAPL: learned the 10-for-1 split on 2025-07-02"]}
    assert asked(api) == ALL
    assert splits(database) == {EX_DATE: (10.0, "endpoint")}


def test_a_split_that_nobody_knows_costs_two_requests_a_session(
    api: TwelveDataEmulator, opened: Callable[..., Stores]
) -> None:
    api.switches.splits = {}
    stores = opened(credits_per_minute=8, credits_per_day=800)
    CLOCK.now = BEFORE
    tick(stores)
    asked(api)
    for moment in range(14):
        CLOCK.now = AT_OPEN + moment * timedelta(minutes=25)
        assert tick(stores).notes["AAPL"][0].startswith(FLAG)
    assert asked(api) == Counter({"/time_series": 2 * 2})


def test_two_ticks_at_the_same_time_ask_once(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores]
) -> None:
    CLOCK.now = BEFORE
    tick(opened())
    asked(api)
    CLOCK.now = AT_OPEN
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: tick(opened()), range(4)))
    assert asked(api) == ALL
    assert splits(database) == {EX_DATE: (10.0, "endpoint")}
    [document] = database["bars"].find({"session_date": EX_DATE.isoformat()})
    assert len(document["ts"]) == 1


@pytest.mark.parametrize(
    ("switches", "settings", "path"),
    [
        ({"actions_refused": 403}, {}, "/time_series"),
        ({"actions_refused": 404}, {}, "/time_series"),
        ({}, {"credits_per_minute": 8, "credits_per_day": 800}, "/time_series"),
    ],
)
def test_a_plan_without_the_endpoints_derives_the_split_of_the_open(
    api: TwelveDataEmulator,
    database: Mongo,
    opened: Callable[..., Stores],
    switches: dict[str, Any],
    settings: dict[str, Any],
    path: str,
) -> None:
    stores = opened(**settings)
    CLOCK.now = BEFORE
    tick(stores)
    asked(api)
    vars(api.switches).update(switches)
    CLOCK.now = AT_OPEN
    assert tick(stores).notes == {"actions": ["AAPL: learned the 10-for-1 split on 2025-07-02"]}
    assert asked(api) == Counter({path: 2})
    assert splits(database) == {EX_DATE: (10.0, "derived")}


def test_a_price_that_moves_between_the_two_daily_series_hides_no_split(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores]
) -> None:
    stores = opened(actions_source="derived")
    CLOCK.now = BEFORE
    tick(stores)
    # The bar of the session that is open is another one when the second series is asked for.
    api.switches.wrong_days = {("AAPL", EX_DATE): 1.02}
    CLOCK.now = AT_OPEN
    assert tick(stores).notes == {"actions": ["AAPL: learned the 10-for-1 split on 2025-07-02"]}
    assert splits(database) == {EX_DATE: (10.0, "derived")}


@pytest.mark.parametrize(
    ("switches", "settings", "words"),
    [
        ({"actions_refused": 403}, {"actions_source": "endpoint"}, "exclusively with grow"),
        ({"splits": {"AAPL": [ScriptedSplit(EX_DATE, 10, ratio=0.2)]}}, {}, "contradicts itself"),
    ],
)
def test_a_refusal_of_the_actions_is_a_note_and_every_bar_is_stored(
    api: TwelveDataEmulator,
    database: Mongo,
    opened: Callable[..., Stores],
    switches: dict[str, Any],
    settings: dict[str, Any],
    words: str,
) -> None:
    CLOCK.now = BEFORE
    tick(opened(actions_source="none"))
    vars(api.switches).update(switches)
    CLOCK.now = AT_OPEN
    report = tick(opened(**settings))
    assert (report.outcome, report.counts["AAPL"].new) == ("succeeded", 1)
    assert report.notes["AAPL"][0].endswith("; Twelve Data gave no usable answer about its splits")
    assert any(words in note for note in report.notes["actions"])
    assert splits(database) == {}


def test_without_credits_for_actions_the_tick_is_complete(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores]
) -> None:
    """The vendor refuses the request for the minute, and the tick does not wait longer than it may."""
    stores = opened(credits_per_minute=8, credits_per_day=800)
    CLOCK.now = BEFORE
    tick(opened(actions_source="none"))
    CLOCK.now = AT_OPEN
    limit(api, per_day=1)
    report = tick(stores)
    assert report.counts["AAPL"].new == 1
    assert any("The API credits of the day were used up" in note for note in report.notes["actions"])


def test_ticks_come_first_when_the_credits_of_the_day_are_short(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores]
) -> None:
    CLOCK.now = BEFORE
    tick(opened(actions_source="none"))
    asked(api)
    CLOCK.now = AT_OPEN
    # 80 ticks of one symbol are left, this one included. It is spent when the spare credits are counted.
    report = tick(opened(symbols=("AAPL",), credits_per_minute=8, credits_per_day=82))
    assert report.notes["AAPL"][0].endswith("; Twelve Data was not asked, because its credits are kept for ticks")
    assert asked(api) == Counter()


def test_a_source_of_none_asks_nothing_and_a_file_explains_the_split(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores], tmp_path: Any
) -> None:
    stores = opened(actions_source="none")
    CLOCK.now = BEFORE
    tick(stores)
    CLOCK.now = AT_OPEN
    assert "; Twelve Data was not asked: give the split to `barflow actions import`" in tick(stores).notes["AAPL"][0]
    assert asked(api) == Counter()
    file = tmp_path / "actions.csv"
    file.write_text("symbol,kind,ex_date,ratio,amount\nAAPL,split,2025-07-02,10:1,\n")
    import_file(stores, file)
    # While it was recorded, an archive that was published was complete only until its start.
    assert stores.ledger.last("import")["outcome"] == SUCCEEDED  # type: ignore[index]
    assert tick(stores).notes == {}


def test_a_backfill_asks_for_no_actions(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores]
) -> None:
    hop = open_ingest(opened(), lambda text: None)
    report = hop.tick(["AAPL"], window=(utc("2025-06-30 13:30"), DAY_CLOSES))
    assert report.notes["AAPL"][0].startswith(FLAG)
    assert asked(api) == Counter()


def test_a_tick_that_dies_while_it_asks_is_completed_by_a_later_one(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = opened()
    CLOCK.now = BEFORE
    tick(stores, "AAPL", "MSFT")
    CLOCK.now = AT_OPEN

    def die(*given: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tick_actions, "refresh", die)
        with pytest.raises(KeyboardInterrupt):
            tick(stores, "AAPL", "MSFT")
    stored = [item["symbol"] for item in database["bars"].find({"session_date": EX_DATE.isoformat()})]
    assert stored == ["MSFT"], "the other symbols do not wait for the request"
    assert tick(stores).counts["AAPL"].new == 1
    CLOCK.now += timedelta(minutes=30)
    tick(stores)
    assert splits(database) == {EX_DATE: (10.0, "endpoint")}


def test_more_suspects_than_a_tick_asks_about_wait_for_the_next_one(
    api: TwelveDataEmulator, database: Mongo, opened: Callable[..., Stores], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick_actions, "MOST_SUSPECTS", 0)
    stores = opened()
    CLOCK.now = BEFORE
    tick(stores)
    CLOCK.now = AT_OPEN
    assert "look like this; the next tick asks" in tick(stores).notes["AAPL"][0]
    monkeypatch.setattr(tick_actions, "MOST_SUSPECTS", 5)
    assert tick(stores).notes == {"actions": ["AAPL: learned the 10-for-1 split on 2025-07-02"]}
