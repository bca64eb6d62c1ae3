"""A backfill asks for each session once, also one with gaps, so it ends under any daily cap of credits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from pymongo.database import Database
from ticks import end_state, expected, ingest, stored
from twelvedata_calls import CLOCK, limit, reset

from barflow.errors import BarflowError, DayIsSpentError, UnavailableError
from barflow.market.sessions import session, sessions_between, utc_now
from barflow.pipeline import backfill
from barflow.pipeline.backfill import BackfillReport, Skipped
from barflow.pipeline.ingest import Ingest
from barflow.pipeline.ingest_report import raise_errors
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.staging.connection import Document
from barflow.staging.requests import Requests
from barflow.twelvedata.client import TwelveDataClient
from emulators.twelvedata.bar_source import Row
from emulators.twelvedata.server import TwelveDataEmulator
from local.synthetic import SyntheticBars

KEY = "emulator-key"
SYMBOLS = ("AAPL", "MSFT")
# 20 sessions in four chunks. Some tests list MSFT on the first day of the second chunk.
FIRST, LAST = date(2025, 6, 2), date(2025, 6, 30)
CHUNKS, ROWS = 4, 5 * 78
SESSIONS = sessions_between(FIRST, LAST)
LISTED = SESSIONS[5].opens
NOW = datetime(2025, 7, 2, 14, 0, tzinfo=UTC)
MISSING = range(40, 46)


class ThinBars(SyntheticBars):
    """A market in which six bars of every session did not trade, so that no session is whole."""

    def rows(self, symbol: str, start: datetime, end: datetime) -> list[Row]:
        found = super().rows(symbol, start, end)
        return [row for row in found if (row[0].hour * 60 + row[0].minute) // 5 % 78 not in MISSING]


THIN = ThinBars(seed=7)
Run = Callable[..., BackfillReport]


@pytest.fixture(scope="module")
def thin_server() -> Iterator[TwelveDataEmulator]:
    with TwelveDataEmulator(THIN, clock=CLOCK) as running:
        yield running


@pytest.fixture
def api(thin_server: TwelveDataEmulator) -> TwelveDataEmulator:
    """Return an emulator of the thin market, on 2 July 2025."""
    reset(thin_server)
    CLOCK.now = NOW
    return thin_server


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def run(
    api: TwelveDataEmulator,
    mongodb_uri: str,
    database: Database[Document],
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Return a function that runs one backfill, with its own client, as a command does, in chunks of five sessions."""
    monkeypatch.setattr(backfill, "MOST_ROWS", ROWS)

    def start(
        symbols: tuple[str, ...] = SYMBOLS,
        first: date = FIRST,
        last: date = LAST,
        cap: int | None = None,
        **options: Any,
    ) -> BackfillReport:
        settings = load_settings(
            mongodb_uri=mongodb_uri, mongodb_database=database.name, twelvedata_url=api.url, twelvedata_api_key=KEY,
            credits_per_minute=1000, credits_per_day=cap,
        )  # fmt: skip
        stores = Stores(settings, clock=CLOCK)
        return backfill.run(stores, symbols, first, last, log.append, lambda _: None, **options)

    return start


def days_until_done(run: Run, api: TwelveDataEmulator, cap: int, **options: Any) -> list[int]:
    """Run the same backfill once a day under a daily cap until it ends. Return the credits used on each day."""
    used: list[int] = []
    for _ in range(8):
        limit(api, per_day=cap)
        api.requests.clear()
        done = True
        try:
            run(cap=cap, **options)
        except DayIsSpentError:
            done = False
        used.append(sum(call.credits for call in api.requests))
        CLOCK.now += timedelta(days=1)
        if done:
            return used
    raise AssertionError(f"not done after {len(used)} days of {used} credits")


def asked(api: TwelveDataEmulator) -> Counter[tuple[str, str]]:
    """Return how often each symbol was asked for, by endpoint."""
    return Counter((call.path, symbol) for call in api.requests for symbol in call.symbols)


def test_a_backfill_of_thin_sessions_ends_under_a_daily_cap(
    run: Run, api: TwelveDataEmulator, database: Database[Document], log: list[str]
) -> None:
    """Two questions for first bars, then one credit for each chunk that has bars: 9 credits, and then none."""
    api.switches.listed = {"MSFT": LISTED}
    assert days_until_done(run, api, cap=3) == [3, 3, 3]
    assert stored(database, "AAPL") == expected(THIN, "AAPL", SESSIONS[0].opens, SESSIONS[-1].closes)
    assert stored(database, "MSFT") == expected(THIN, "MSFT", LISTED, SESSIONS[-1].closes)
    assert days_until_done(run, api, cap=3) == [0]
    assert log[-1] == (
        "skipped 40 sessions: 35 stored, 5 before Twelve Data's first bar. "
        "`barflow backfill --again` fetches them again."
    )


def test_no_credit_is_spent_before_the_first_bar(run: Run, api: TwelveDataEmulator) -> None:
    api.switches.listed = {"MSFT": LISTED}
    report = run()
    assert asked(api) == {
        ("/earliest_timestamp", "AAPL"): 1,
        ("/earliest_timestamp", "MSFT"): 1,
        ("/time_series", "AAPL"): CHUNKS,
        ("/time_series", "MSFT"): CHUNKS - 1,
    }
    assert report.skipped == Skipped(before_first_bar=5)
    run(last=date(2025, 7, 1), first=date(2025, 4, 2))
    assert asked(api)["/earliest_timestamp", "MSFT"] == 1, "the first bar was asked for twice"


def test_sessions_older_than_the_rules_look_at_are_not_evaluated(run: Run, database: Database[Document]) -> None:
    run(first=date(2025, 3, 3), last=date(2025, 3, 7))
    assert database["bars"].count_documents({}) == 10
    assert [database[name].count_documents({}) for name in ("alert_evaluations", "alert_state")] == [0, 0]
    run(first=date(2025, 6, 30), last=date(2025, 6, 30))
    assert all(database[name].count_documents({}) for name in ("alert_evaluations", "alert_state"))


def test_an_answer_without_bars_is_remembered(run: Run, api: TwelveDataEmulator, log: list[str]) -> None:
    """For one chunk the first bar is not asked for: the answer costs the same credit."""
    api.switches.listed = {"MSFT": LISTED}
    week = {"first": FIRST, "last": FIRST + timedelta(days=3)}
    for style in (404, 400):
        api.switches.before_listing = style  # type: ignore[assignment]
        raise_errors(run(("MSFT",), **week))
        assert asked(api) == {("/time_series", "MSFT"): 1}
    assert run(("MSFT",), **week).skipped == Skipped(answered=4)
    assert log[-1].startswith("skipped 4 sessions: 4 answered before.")


@pytest.mark.parametrize("refused", ["by-the-plan", "by-no-answer"])
def test_a_backfill_works_without_first_bars(
    run: Run, api: TwelveDataEmulator, log: list[str], monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    api.switches.listed = {"MSFT": LISTED}
    if refused == "by-the-plan":
        api.switches.first_bars_in_plan = False
    else:
        monkeypatch.setattr(TwelveDataClient, "first_bar", _no_answer)
    raise_errors(run())
    assert asked(api)["/time_series", "MSFT"] == CHUNKS
    assert [line for line in log if "first bars are unknown" in line] == ["warning: " + UNKNOWN_FIRST_BARS] * (
        refused == "by-no-answer"
    )
    api.requests.clear()
    assert run().skipped == Skipped(stored=35, answered=5)
    assert api.requests == []


UNKNOWN_FIRST_BARS = "first bars are unknown, so sessions before them are asked for. down"


def _no_answer(*_: Any, **__: Any) -> None:
    raise UnavailableError("down")


def test_an_unknown_symbol_costs_one_credit_and_the_others_go_on(run: Run, api: TwelveDataEmulator) -> None:
    report = run(("AAPL", "UNKNOWN"))
    assert (list(report.counts), list(report.errors)) == (["AAPL"], ["UNKNOWN"])
    assert asked(api)["/earliest_timestamp", "UNKNOWN"] == 1
    assert asked(api)["/time_series", "UNKNOWN"] == 0
    with pytest.raises(BarflowError, match=r"does not know UNKNOWN \(\*\*symbol\*\*"):
        raise_errors(report)


def test_an_error_that_is_not_about_the_symbol_does_not_drop_the_later_chunks(
    run: Run, api: TwelveDataEmulator, database: Database[Document]
) -> None:
    api.switches.fail("vendor_error", status=404, symbol="MSFT", text="Nothing there")
    report = run()
    with pytest.raises(UnavailableError, match=r"no usable answer for MSFT \(Nothing there\)"):
        raise_errors(report)
    assert len({ts.date() for ts in stored(database, "MSFT")}) == 15
    raise_errors(run())
    assert stored(database, "MSFT") == expected(THIN, "MSFT", SESSIONS[0].opens, SESSIONS[-1].closes)


def test_the_session_that_is_open_is_asked_for_again(run: Run, api: TwelveDataEmulator) -> None:
    today = CLOCK.now.date()
    run(("AAPL",), today, today)
    CLOCK.now += timedelta(hours=1)
    run(("AAPL",), today, today)
    assert len(api.requests) == 2
    hours = session(today)
    assert hours is not None
    for after, calls in ((timedelta(seconds=-1), 3), (timedelta(0), 4), (timedelta(hours=1), 4)):
        CLOCK.now = hours.closes + after
        run(("AAPL",), today, today)
        assert len(api.requests) == calls


def test_a_tick_s_answers_count_too(run: Run, api: TwelveDataEmulator, database: Database[Document]) -> None:
    ingest(api, database, history=5).tick(SYMBOLS)
    api.requests.clear()
    days = [item.session_date for item in sessions_between(date(2025, 6, 20), NOW.date())][-5:-1]
    assert run(first=days[0], last=days[-1]).skipped == Skipped(stored=8)
    assert api.requests == []


def test_stores_of_before_need_no_migration(run: Run, api: TwelveDataEmulator, database: Database[Document]) -> None:
    """A session with all its bars is stored whole. A thin one is asked for once more."""
    ingest(api, database, history=5).tick(SYMBOLS)
    database["requests"].drop()
    api.requests.clear()
    day = date(2025, 7, 1)
    run(first=day, last=day)
    run(first=day, last=day)
    assert len(api.requests) == 1


class TestAgain:
    DAY = date(2025, 6, 11)

    def correct(self, api: TwelveDataEmulator, symbol: str = "AAPL", day: date = DAY) -> datetime:
        """Correct the first bar of a session. Return its open."""
        hours = session(day)
        assert hours is not None
        [row, *_] = THIN.rows(symbol, hours.opens, hours.closes)
        api.switches.correct(symbol, row[0], volume=1234)
        return row[0]

    def test_fetches_a_correction_of_a_stored_session(
        self, run: Run, api: TwelveDataEmulator, database: Database[Document], log: list[str]
    ) -> None:
        run(("AAPL",), self.DAY, self.DAY)
        bar = self.correct(api)
        assert run(("AAPL",), self.DAY, self.DAY).skipped == Skipped(stored=1)
        assert stored(database, "AAPL")[bar][-1] != 1234
        assert log[-1] == "skipped 1 session: 1 stored. `barflow backfill --again` fetches them again."
        report = run(("AAPL",), self.DAY, self.DAY, again=True)
        assert stored(database, "AAPL")[bar][-1] == 1234
        assert (report.counts["AAPL"].revised, report.skipped) == (1, Skipped())
        assert run(("AAPL",), self.DAY, self.DAY, again=True).counts["AAPL"].unchanged == 72

    def test_ends_under_a_daily_cap_and_starts_again_when_it_has_ended(
        self, run: Run, api: TwelveDataEmulator, database: Database[Document]
    ) -> None:
        run()
        bars = [self.correct(api, symbol, item.session_date) for symbol in SYMBOLS for item in SESSIONS[::4]]
        assert days_until_done(run, api, cap=3, again=True) == [3, 3, 2]
        assert {stored(database, symbol)[bar][-1] for symbol in SYMBOLS for bar in bars} == {1234}
        assert days_until_done(run, api, cap=100, again=True) == [8]

    def test_starts_again_when_its_last_try_is_old(
        self, run: Run, api: TwelveDataEmulator, database: Database[Document]
    ) -> None:
        run()
        with pytest.raises(DayIsSpentError):
            run(again=True, cap=3)
        past = utc_now() - timedelta(days=8)
        database["requests"].update_many({}, {"$set": {"again.tried_at": past}})
        api.requests.clear()
        run(again=True)
        assert asked(api) == {("/time_series", symbol): CHUNKS for symbol in SYMBOLS}

    def test_asks_for_the_first_bar_again(self, run: Run, api: TwelveDataEmulator) -> None:
        api.switches.listed = {"MSFT": LISTED}
        run()
        api.switches.listed = {}  # Twelve Data has added history
        api.requests.clear()
        assert run(again=True).skipped == Skipped()
        assert asked(api)["/earliest_timestamp", "MSFT"] == 1
        assert asked(api)["/time_series", "MSFT"] == CHUNKS

    def test_ignores_an_answer_that_was_requested_before(
        self, run: Run, api: TwelveDataEmulator, database: Database[Document]
    ) -> None:
        """A slow tick must not mark as answered what `--again` has to fetch."""
        run(("AAPL",), self.DAY, self.DAY)
        requests = Requests(database)
        [before] = requests.of(["AAPL"])["AAPL"].ranges
        requests.begin_again(["AAPL"], self.DAY, self.DAY, utc_now())
        requests.add({"AAPL": before})
        assert requests.of(["AAPL"])["AAPL"].ranges == []


class TestTwiceIsOnce:
    @pytest.fixture
    def clean(self, run: Run, database: Database[Document]) -> dict[str, Document]:
        """Return the end state of one clean run, and empty the database."""
        run()
        state = end_state(database, "bars")
        for name in database.list_collection_names():
            database[name].delete_many({})
        return state

    @pytest.mark.parametrize("where", ["_store", "_record_answers", "_close"])
    def test_killed_and_repeated(
        self,
        run: Run,
        api: TwelveDataEmulator,
        database: Database[Document],
        clean: dict[str, Document],
        monkeypatch: pytest.MonkeyPatch,
        where: str,
    ) -> None:
        """The chunk that was not recorded is asked for again, and no other."""
        api.requests.clear()
        original, calls = getattr(Ingest, where), Counter[str]()

        def dies(self: Ingest, *arguments: Any) -> Any:
            calls[where] += 1
            if calls[where] == 2:
                raise KeyboardInterrupt
            return original(self, *arguments)

        monkeypatch.setattr(Ingest, where, dies)
        with pytest.raises(KeyboardInterrupt):
            run()
        run()
        assert end_state(database, "bars") == clean
        repeated = 0 if where == "_close" else 1
        assert asked(api) == {
            **{("/earliest_timestamp", symbol): 1 for symbol in SYMBOLS},
            **{("/time_series", symbol): CHUNKS + repeated for symbol in SYMBOLS},
        }

    def test_at_the_same_time_as_ticks_and_another_backfill(
        self, run: Run, api: TwelveDataEmulator, database: Database[Document], clean: dict[str, Document]
    ) -> None:
        errors: list[BaseException] = []

        def guarded(work: Callable[[], Any]) -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        works = [run, run, lambda: [ingest(api, database, history=20).tick(SYMBOLS) for _ in range(5)]]
        threads = [Thread(target=guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        state = end_state(database, "bars")
        assert {key: state[key]["ts"] for key in clean} == {key: document["ts"] for key, document in clean.items()}
        api.requests.clear()
        assert run().skipped == Skipped(stored=40)
        assert api.requests == []


def test_a_document_stays_small(run: Run, database: Database[Document]) -> None:
    run()
    for document in database["requests"].find():
        assert [(item["first"], item["last"]) for item in document["answered"]] == [(str(FIRST), str(LAST))]
