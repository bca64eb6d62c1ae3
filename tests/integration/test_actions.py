"""Corporate actions are staged with every version, once, however often and in any order runs ask for them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database
from twelvedata_calls import CLOCK, limit

from barflow.cli.main import main
from barflow.errors import BadInputError, BarflowError, DayIsSpentError, NotInPlanError, UnavailableError
from barflow.market.actions import Dividend, Source, Split, Version
from barflow.pipeline.actions import ActionsReport, import_file, plan, raise_errors, refresh
from barflow.pipeline.stores import Stores
from barflow.settings import Settings
from barflow.staging.actions import Actions, Answer, Changes, merged
from barflow.staging.connection import Document
from barflow.twelvedata.client import Result, TwelveDataClient
from emulators.twelvedata.actions import ScriptedDividend, ScriptedSplit
from emulators.twelvedata.server import TwelveDataEmulator

TEN = date(2025, 6, 10)
PAID = date(2025, 6, 20)
LISTED = datetime(2025, 5, 1, tzinfo=UTC)
T0 = datetime(2025, 7, 2, 12, tzinfo=UTC)


@pytest.fixture
def api(market: TwelveDataEmulator) -> TwelveDataEmulator:
    market.switches.listed = {"AAPL": LISTED, "MSFT": LISTED}
    market.switches.splits = {"AAPL": [ScriptedSplit(TEN, 10)]}
    market.switches.dividends = {"AAPL": [ScriptedDividend(PAID, 0.3)]}
    return market


def stores(api: TwelveDataEmulator, database: Database[Document], **settings: Any) -> Stores:
    given = {"credits_per_minute": 10_000, "credits_per_day": None, "twelvedata_api_key": "emulator-key", **settings}
    opened = Stores(Settings(twelvedata_url=api.url, **given))
    opened.database = database
    return opened


def run(opened: Stores, *symbols: str) -> ActionsReport:
    return refresh(opened, symbols or ("AAPL",), lambda text: None, lambda symbol: None)


def current(database: Database[Document], symbol: str = "AAPL") -> dict[tuple[str, date], tuple[float, str]]:
    found = Actions(database).of([symbol])[symbol].actions
    return {(item.kind, item.ex_date): (item.value, item.source) for item in found}


BOTH = {("split", TEN): (10.0, "endpoint"), ("dividend", PAID): (0.3, "endpoint")}


def test_a_refresh_stages_splits_and_dividends_and_a_second_one_changes_nothing(
    api: TwelveDataEmulator, database: Database[Document]
) -> None:
    opened = stores(api, database)
    assert run(opened, "AAPL", "MSFT").counts == {"AAPL": Changes(new=2), "MSFT": Changes()}
    assert current(database) == BOTH
    staged = database["corporate_actions"].find_one({"_id": "AAPL"})
    assert run(opened).counts == {"AAPL": Changes(unchanged=2)}
    again = database["corporate_actions"].find_one({"_id": "AAPL"})
    assert staged is not None
    assert again is not None
    assert again["actions"] == staged["actions"]
    assert sum(call.credits for call in api.requests) == 6 * 20
    ledger = list(database["ledger"].find({"hop": "actions"}))
    assert [item["outcome"] for item in ledger] == ["succeeded", "succeeded"]
    assert database["raw_responses"].count_documents({}) == 6


@pytest.mark.parametrize("code", [403, 404])
def test_a_plan_without_the_endpoints_derives_the_splits_and_says_so(
    api: TwelveDataEmulator, database: Database[Document], code: int
) -> None:
    api.switches.actions_refused = code
    logged: list[str] = []
    report = refresh(stores(api, database), ["AAPL", "MSFT"], logged.append, lambda symbol: None)
    assert current(database) == {("split", TEN): (10.0, "derived")}
    assert report.sources == {"AAPL": {"split": "derived"}, "MSFT": {"split": "derived"}}
    known = Actions(database).of(["MSFT"])["MSFT"]
    assert (known.has("split"), known.has("dividend")) == (True, False)
    assert len([call for call in api.requests if call.path == "/time_series"]) == 2
    if code == 403:
        assert logged[0].startswith("splits are derived from daily bars, and dividends stay unknown: ")
        assert len(api.requests) == 3, "a refused endpoint is asked once a run"


def test_the_basic_plan_derives_without_asking_the_endpoint(
    api: TwelveDataEmulator, database: Database[Document]
) -> None:
    run(stores(api, database, credits_per_minute=8, credits_per_day=800))
    assert [(call.path, call.credits) for call in api.requests] == [("/time_series", 1), ("/time_series", 1)]


def test_a_source_that_is_chosen_is_kept(api: TwelveDataEmulator, database: Database[Document]) -> None:
    api.switches.actions_refused = 403
    with pytest.raises(NotInPlanError, match=r"/splits is available exclusively with grow"):
        run(stores(api, database, actions_source="endpoint"))
    with pytest.raises(BadInputError, match="BARFLOW_ACTIONS_SOURCE is none"):
        run(stores(api, database, actions_source="none"))
    run(stores(api, database, actions_source="derived"))
    assert current(database) == {("split", TEN): (10.0, "derived")}


def test_a_late_a_changed_and_a_withdrawn_action_keep_their_earlier_versions(
    api: TwelveDataEmulator, database: Database[Document]
) -> None:
    opened, now = stores(api, database), CLOCK()
    first, second = now + timedelta(days=1), now + timedelta(days=2)
    api.switches.splits = {"AAPL": [ScriptedSplit(TEN, 10, withdrawn=first), ScriptedSplit(TEN, 8, learned=first)]}
    api.switches.dividends = {"AAPL": [ScriptedDividend(PAID, 0.3, learned=first, withdrawn=second)]}
    assert run(opened).counts["AAPL"] == Changes(new=1)
    CLOCK.now = first
    assert run(opened).counts["AAPL"] == Changes(new=1, changed=1)
    CLOCK.now = second
    assert run(opened).counts["AAPL"] == Changes(withdrawn=1, unchanged=1)
    assert current(database) == {("split", TEN): (8.0, "endpoint")}
    versions = Actions(database).of(["AAPL"])["AAPL"].versions
    assert [(item.action.value, item.known_until is None) for item in versions] == [
        (10.0, False),
        (8.0, True),
        (0.3, False),
    ]
    old, new, _ = versions
    assert old.known_until == new.action.known_from > old.action.known_from


def test_a_contradiction_is_refused_by_name_until_a_file_says_what_is_right(
    api: TwelveDataEmulator, database: Database[Document], tmp_path: Path
) -> None:
    opened = stores(api, database)
    run(opened)
    api.switches.splits = {"AAPL": [ScriptedSplit(TEN, 10, ratio=0.2)]}
    report = run(opened, "AAPL", "MSFT")
    assert current(database) == BOTH, "what was staged stays"
    with pytest.raises(BarflowError, match=r"AAPL: the split of 2025-06-10 contradicts itself.*1 other symbols were"):
        raise_errors(report)
    file = tmp_path / "actions.csv"
    file.write_text("symbol,kind,ex_date,ratio,amount\naapl,split,2025-06-10,10:1,\n")
    assert import_file(opened, file) == {"AAPL": Changes(unchanged=0, changed=1)}
    assert import_file(opened, file) == {"AAPL": Changes(unchanged=1)}
    raise_errors(run(opened))
    assert current(database) == {**BOTH, ("split", TEN): (10.0, "file")}
    api.switches.splits = {}
    run(opened)
    assert current(database)["split", TEN] == (10.0, "file"), "a refresh withdraws nothing of a file"


def test_the_symbols_fetched_longest_ago_come_first_so_a_daily_cap_ends(
    api: TwelveDataEmulator, database: Database[Document]
) -> None:
    opened = stores(api, database, credits_per_minute=50, credits_per_day=50)
    limit(api, per_minute=50, per_day=50)
    with pytest.raises(DayIsSpentError, match="used up before MSFT"):
        run(opened, "AAPL", "MSFT")
    limit(api, per_minute=50, per_day=50)
    with pytest.raises(DayIsSpentError, match="used up before AAPL"):
        run(opened, "AAPL", "MSFT")
    assert set(Actions(database).of()) == {"AAPL", "MSFT"}
    assert [item["outcome"] for item in database["ledger"].find({"hop": "actions"})] == ["failed", "failed"]


def test_a_symbol_without_an_answer_keeps_no_run_from_the_others(
    api: TwelveDataEmulator, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, down = TwelveDataClient.listing, {"AAPL"}

    def answer(self: TwelveDataClient, symbol: str, *given: Any, **more: Any) -> Result:
        if symbol in down:
            raise UnavailableError(f"Twelve Data gave no answer for {symbol} in 5 attempts")
        return listing(self, symbol, *given, **more)

    monkeypatch.setattr(TwelveDataClient, "listing", answer)
    opened = stores(api, database)
    report = run(opened, "AAPL", "MSFT")
    assert (set(report.counts), set(report.errors)) == ({"MSFT"}, {"AAPL"})
    with pytest.raises(UnavailableError, match="no answer for AAPL in 5 attempts"):
        raise_errors(report)
    assert set(run(opened, "MSFT", "AAPL").errors) == {"AAPL"}
    down |= {"NVDA", "TSLA"}
    with pytest.raises(UnavailableError, match="no answer for TSLA"):
        run(opened, "AAPL", "NVDA", "TSLA", "MSFT")


def split(ratio: float, source: Source = "endpoint", day: date = TEN, at: datetime = T0) -> Split:
    return Split("AAPL", day, ratio, source, at)


def answer(*actions: Split, source: Source = "endpoint", at: datetime = T0, **options: Any) -> Answer:
    return Answer("AAPL", "split", actions, source, at, at, **options)


def test_an_older_answer_changes_nothing(database: Database[Document]) -> None:
    actions = Actions(database)
    actions.store([answer(split(10.0))])
    assert actions.store([answer(split(8.0), at=T0 - timedelta(seconds=1))]) == Changes()
    assert current(database) == {("split", TEN): (10.0, "endpoint")}


def test_a_derived_answer_changes_only_what_was_derived_and_what_it_covers() -> None:
    early = split(2.0, "derived", day=date(2001, 1, 5))
    stored = [Version(early), Version(split(4.0, "derived", day=date(2025, 5, 5))), Version(split(1.281))]
    covers = date(2005, 1, 3), date(2025, 7, 2)
    after, changes = merged(stored, answer(split(1.2812, "derived"), source="derived", covers=covers))
    assert changes == Changes(withdrawn=1, unchanged=2)
    assert [item.action for item in after if item.known_until is None] == [early, split(1.281)]


SOURCES: tuple[Source, ...] = ("derived", "endpoint", "file")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(SOURCES), st.dictionaries(st.integers(1, 4), st.sampled_from([2.0, 3.0]), max_size=3)
        ),
        max_size=6,
    )
)
def test_versions_never_overlap_and_the_same_answer_twice_is_once(found: list[tuple[Source, dict[int, float]]]) -> None:
    versions: list[Version] = []
    for place, (source, ratios) in enumerate(found):
        at = T0 + timedelta(hours=place)
        actions = [split(ratio, source, date(2025, 6, day), at) for day, ratio in ratios.items()]
        before = len(versions)
        versions, changes = merged(versions, answer(*actions, source=source, at=at))
        assert len(versions) == before + changes.new + changes.changed
        later = at + timedelta(minutes=1)
        same = [split(ratio, source, date(2025, 6, day), later) for day, ratio in ratios.items()]
        repeated, nothing = merged(versions, answer(*same, source=source, at=later))
        assert repeated == versions
        assert nothing == Changes(unchanged=nothing.unchanged)
    for day in {item.action.ex_date for item in versions}:
        own = [item for item in versions if item.action.ex_date == day]
        ends = [item.known_until for item in own]
        assert all(end is not None for end in ends[:-1])
        assert all(end <= later.action.known_from for end, later in zip(ends, own[1:], strict=False) if end)


def test_runs_at_the_same_time_lose_nothing(database: Database[Document]) -> None:
    """Eight writers add an action each; every write that lost the race is read and merged again."""
    actions = Actions(database)
    writers = [
        threading.Thread(target=actions.store, args=([answer(split(2.0, "file", date(2025, 6, day)), source="file")],))
        for day in range(1, 9)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(current(database)) == 8
    staged = database["corporate_actions"].find_one({"_id": "AAPL"})
    assert staged is not None
    assert staged["version"] == 8


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("AAPL,split,2025-06-10,0,", "line 3: a split's ratio must be from"),
        ("AAPL,split,2025-06-10,x,", "line 3: could not convert string to float: 'x'"),
        ("AAPL,split,2025-06-10,1:0,", "line 3: float division by zero"),
        ("AAPL,split,2025-13-10,2,", "line 3: month must be in 1..12"),
        ("AAPL,merger,2025-06-10,2,", "line 3: a row is a split with a ratio, or a dividend with an amount"),
        ("AAPL,dividend,2025-06-10,2,1", "line 3: a row is a split with a ratio"),
        ("AAPL,dividend,2025-06-10,,nan", "line 3: not a number: 'nan'"),
        ("$$,split,2025-06-10,2,", "line 3: '\\$\\$' is not a symbol"),
        ("NVDA,split,2024-06-10,4,", "line 3: another row has the same symbol, kind and ex_date"),
    ],
)
def test_a_wrong_row_rejects_the_whole_file(
    api: TwelveDataEmulator, database: Database[Document], tmp_path: Path, rows: str, message: str
) -> None:
    file = tmp_path / "actions.csv"
    file.write_text(f"symbol,kind,ex_date,ratio,amount\nNVDA,split,2024-06-10,10,\n{rows}\n")
    with pytest.raises(BadInputError, match=message):
        import_file(stores(api, database), file)
    assert Actions(database).of() == {}


def test_a_file_that_is_none_is_bad_input(
    api: TwelveDataEmulator, database: Database[Document], tmp_path: Path
) -> None:
    opened = stores(api, database)
    file = tmp_path / "actions.csv"
    with pytest.raises(BadInputError, match="No such file"):
        import_file(opened, file)
    file.write_text("symbol,kind,ex_date\n")
    with pytest.raises(BadInputError, match="the first line lacks ratio, amount"):
        import_file(opened, file)
    file.write_bytes(b"symbol,kind,ex_date,ratio,amount\n\xff\xfe")
    with pytest.raises(BadInputError, match="not a CSV file in UTF-8"):
        import_file(opened, file)


def test_a_plan_counts_the_credits_of_each_source() -> None:
    def planned(**settings: Any) -> dict[str, Any]:
        return plan(Settings(**settings), ["AAPL", "MSFT", "NVDA"], T0)

    basic = planned()
    assert {name: basic[name] for name in ("source", "calls", "credits", "minutes")} == {
        "source": "derived",
        "calls": 6,
        "credits": 6,
        "minutes": 1,
    }
    grow = planned(credits_per_minute=55, credits_per_day=None)
    assert (grow["source"], grow["credits"], grow["minutes"]) == ("endpoint", 120, 3)
    assert grow["finishes_at"] == "2025-07-02T12:03:01+00:00"[:17] + "00+00:00"
    with pytest.raises(BadInputError, match="Set BARFLOW_ACTIONS_SOURCE to derived"):
        planned(actions_source="endpoint")


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def barflow(
    api: TwelveDataEmulator,
    database: Database[Document],
    mongodb_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Return the function that runs `barflow actions ARGUMENTS` in this process: its exit code, stdout and stderr."""
    settings = {
        "BARFLOW_MONGODB_URI": mongodb_uri,
        "BARFLOW_MONGODB_DATABASE": database.name,
        "BARFLOW_LAKE_URI": "unused",
        "BARFLOW_TWELVEDATA_URL": api.url,
        "BARFLOW_CREDITS_PER_MINUTE": "600",
        "BARFLOW_CREDITS_PER_DAY": "",
        "TWELVEDATA_API_KEY": "emulator-key",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["barflow", "actions", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run_command


def test_the_commands_print_json_and_one_line_of_error(api: TwelveDataEmulator, barflow: Command) -> None:
    assert "no splits or dividends are staged" in barflow("list")[1]
    code, out, err = barflow("refresh", "--symbols", "AAPL,MSFT", "--json")
    assert code == 0, err
    assert json.loads(out)["symbols"]["AAPL"]["new"] == 2
    listed = json.loads(barflow("list", "--symbols", "AAPL", "--json")[1])["actions"]
    assert [(item["kind"], item["ex_date"], item["ratio"], item["amount"], item["source"]) for item in listed] == [
        ("split", "2025-06-10", 10.0, None, "endpoint"),
        ("dividend", "2025-06-20", None, 0.3, "endpoint"),
    ]
    assert "2025-06-10" in barflow("list", "--all")[1]
    api.switches.splits = {"AAPL": [ScriptedSplit(TEN, 10, ratio=0.2)]}
    code, _, err = barflow("refresh", "--symbols", "AAPL")
    assert (code, err.startswith("error: AAPL: the split of 2025-06-10 contradicts itself")) == (1, True)
    code, _, err = barflow("refresh", "--symbols", "UNKNOWN")
    assert (code, err.count("\n")) == (2, 1)
    assert json.loads(barflow("refresh", "--plan", "--symbols", "AAPL", "--json")[1])["credits"] == 40


def test_a_dividend_keeps_its_currency(database: Database[Document]) -> None:
    paid = Dividend("AAPL", PAID, 0.3, "USD", "endpoint", T0)
    Actions(database).store([Answer("AAPL", "dividend", [paid], "endpoint", T0, T0)])
    assert Actions(database).of(["AAPL"])["AAPL"].actions == [paid]
