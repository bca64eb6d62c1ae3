"""The emulator of Twelve Data agrees with a second server, which is written separately from the documentation.

Both serve the same recorded answers. The client and ingest must store and report the same of each, and both must give
the same answer to a query.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
import requests
from clients import KEY, Waits, client
from pymongo.database import Database
from recordings import Recordings
from second_vendor import SecondVendor
from ticks import end_state, utc
from twelvedata_calls import CLOCK

from barflow.errors import BarflowError
from barflow.market.recordings import Recording
from barflow.market.sessions import BAR
from barflow.pipeline.ingest import Ingest
from barflow.pipeline.ingest_report import raise_errors
from barflow.staging.connection import Document, connect
from emulators.twelvedata.server import TwelveDataEmulator

# In the last session of the recordings, a half day. The bar of 17:30 (UTC) is still forming.
NOW = utc("2025-11-28 17:32")
EVENING = utc("2025-11-28 23:00")
HOLIDAY = (utc("2025-11-27 14:30"), utc("2025-11-27 21:00"))
MORNING = (utc("2025-11-28 14:30"), utc("2025-11-28 16:00"))
ALL = ("AAPL", "TSLA", "NVDA")
# Three sessions up to NOW. NVDA has bars outside the session and a bar with two versions: both are rejected.
WHOLE = {"AAPL": 192, "TSLA": 192, "NVDA": 191}


@dataclass(frozen=True)
class Case:
    """A request, the behaviour of both servers, and the result of the first of two ticks.

    ``emulator`` are switches of the emulator, ``fault`` is the kind and text of a fault in each of its answers, and
    ``second`` are fields of the second server. The result: ``new`` bars and error ``codes`` by symbol, the tick's
    ``exit_code``, and how often the client ``waits`` for credits.
    """

    symbols: tuple[str, ...] = ALL
    window: tuple[Any, Any] | None = None
    key: str = KEY
    page_rows: int = 5000
    credits_per_minute: int | None = None
    emulator: Mapping[str, object] = field(default_factory=dict)
    fault: tuple[Any, str | None] | None = None
    second: Mapping[str, Any] = field(default_factory=dict)
    new: Mapping[str, int] = field(default_factory=dict)
    codes: Mapping[str, int] = field(default_factory=dict)
    exit_code: int = 0
    waits: int = 0


SERIES = {
    "one symbol": Case(("AAPL",), new={"AAPL": 192}),
    "a symbol of an exchange": Case(("AAPL:NASDAQ", "TSLA"), new={"AAPL:NASDAQ": 192, "TSLA": 192}),
    "a batch": Case(new=WHOLE),
    "several pages": Case(page_rows=60, new=WHOLE),
    "credits counted by header": Case(page_rows=60, credits_per_minute=5, new=WHOLE, waits=2),
    "an exclusive end": Case(
        ("AAPL",), page_rows=8, emulator={"end_date_inclusive": False}, window=MORNING, new={"AAPL": 19}
    ),
    "unordered rows": Case(page_rows=60, fault=("unordered", None), second={"shuffled": True}, new=WHOLE),
    "an hourly answer": Case(
        window=MORNING,
        fault=("wrong_interval", "1h"),
        second={"meta": {"interval": "1h"}},
        new=dict.fromkeys(ALL, 0),
        codes=dict.fromkeys(ALL, 422),
        exit_code=2,
    ),
}
ERRORS = {
    "an unknown symbol": Case(("UNKNOWN",), codes={"UNKNOWN": 404}, exit_code=2),
    "an unknown symbol in a batch": Case(("AAPL", "UNKNOWN"), new={"AAPL": 192}, codes={"UNKNOWN": 404}, exit_code=2),
    "no data": Case(("AAPL",), window=HOLIDAY, new={"AAPL": 0}),
    "no data for a batch": Case(window=HOLIDAY, new=dict.fromkeys(ALL, 0)),
    "credits refused": Case(credits_per_minute=2, new=WHOLE, waits=2),
    "credits refused without being counted": Case(
        credits_per_minute=2,
        emulator={"refused_calls_count": False},
        second={"refused_calls_count": False},
        new=WHOLE,
        waits=2,
    ),
    "a symbol beyond the plan": Case(
        ("AAPL", "TSLA"),
        emulator={"plan_symbols": {"TSLA"}},
        second={"beyond_plan": {"TSLA"}},
        new={"AAPL": 192},
        codes={"TSLA": 404},
        exit_code=3,
    ),
    "an endpoint beyond the plan": Case(
        emulator={"endpoint_in_plan": False}, second={"endpoint_in_plan": False}, exit_code=3
    ),
    "a bad key": Case(key="another-key", exit_code=3),
}


@dataclass(frozen=True)
class Market:
    """The recorded answers, as each of the servers reads them."""

    recording: Recording
    answers: Mapping[str, Any]
    errors: Mapping[str, Any]


@pytest.fixture(scope="module")
def market(synthetic_recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Return the synthetic answers. The one for NVDA has a bar twice, a bar in two versions, both out of order."""
    folder = tmp_path_factory.mktemp("answers")
    answers = {}
    for path in synthetic_recordings.answers.iterdir():
        body = json.loads(path.read_bytes())
        symbol, values = body["meta"]["symbol"], body["values"]
        if symbol == "NVDA":
            [again, changed] = [row for row in values if row["datetime"][5:] in ("11-26 11:00:00", "11-26 12:00:00")]
            values[90:90] = [again, {**changed, "volume": "1"}]
        answers[symbol] = body
        (folder / path.name).write_text(json.dumps(body))
    return Market(Recording.load(folder), answers, synthetic_recordings.bodies)


Start = Callable[..., tuple[str, str]]


@pytest.fixture
def start(market: Market, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a function that starts both servers for a case, and returns their addresses."""
    monkeypatch.setattr(CLOCK, "now", NOW)  # restored for the tests of other files
    with ExitStack() as running:

        def started(case: Case, **second: Any) -> tuple[str, str]:
            options = {"credits_per_minute": case.credits_per_minute}
            api = running.enter_context(TwelveDataEmulator(market.recording, clock=CLOCK, api_key=KEY, **options))
            vars(api.switches).update(case.emulator, error_status_is_200=second.get("errors_in_200", False))
            if case.fault:
                api.switches.fail(case.fault[0], text=case.fault[1], times=None)
            vendor = SecondVendor(market.answers, market.errors, CLOCK, KEY, **options, **case.second, **second)
            return api.url, running.enter_context(vendor.serving())

        yield started


def two_ticks(case: Case, url: str, database: Database[Document]) -> list[dict[str, Any]]:
    """Return everything that two ticks report and leave, 10 minutes apart."""
    CLOCK.now = NOW
    waits = Waits()
    hop = Ingest(
        client(url, waits, key=case.key, page_rows=case.page_rows),
        database,
        history_sessions=3,
        revision_sessions=2,
        clock=CLOCK,
    )
    found = []
    for _ in range(2):
        tick: dict[str, Any] = {"exit_code": 0}
        try:
            report = hop.tick(case.symbols, window=case.window)
            tick |= {**vars(report), "run_id": None}
            raise_errors(report)
        except BarflowError as error:
            text = re.sub(r"(error 403\): ).* What was", r"\1What was", str(error))  # its wording is not documented
            tick |= {"exit_code": error.exit_code, "error": text}
        tick["calls"] = [(item["symbols"], item["http_status"]) for item in database["raw_responses"].find()]
        tick["waits"] = [*waits.seconds]
        found.append(tick | end_state(database))
        CLOCK.now += 2 * BAR
    return found


def agree(case: Case, urls: tuple[str, str], mongodb_uri: str) -> None:
    """Check that both servers lead to the same ticks, and that the first one is as the case says."""
    found = []
    for url in urls:
        database = connect(mongodb_uri, f"test_{uuid4().hex[:12]}")
        found.append(two_ticks(case, url, database))
        database.client.close()
    for emulated, second in zip(*found, strict=True):
        assert [*emulated.keys() ^ second.keys()] == []
        assert [(name, emulated[name], second[name]) for name in emulated if emulated[name] != second[name]] == []
    first = found[0][0]
    assert {symbol: counts.new for symbol, counts in first.get("counts", {}).items()} == case.new
    assert {symbol: error.code for symbol, error in first.get("errors", {}).items()} == case.codes
    assert (first["exit_code"], len(first["waits"])) == (case.exit_code, case.waits)


@pytest.mark.parametrize("name", SERIES)
def test_ticks_store_the_same_of(start: Start, mongodb_uri: str, name: str) -> None:
    agree(SERIES[name], start(SERIES[name]), mongodb_uri)


@pytest.mark.parametrize("errors_in_200", [False, True], ids=["http-status", "in-a-200"])
@pytest.mark.parametrize("name", ERRORS)
def test_ticks_report_the_same_for(start: Start, mongodb_uri: str, name: str, errors_in_200: bool) -> None:
    agree(ERRORS[name], start(ERRORS[name], errors_in_200=errors_in_200), mongodb_uri)


# The status of an answer, and the query. The client sends none of these.
QUERIES: list[tuple[int, dict[str, str]]] = [
    (200, {}),
    (200, {"outputsize": "7"}),
    (200, {"symbol": "AAPL,TSLA", "start_date": "2025-11-26"}),
    (200, {"symbol": "TSLA", "outputsize": "5000", "order": "asc"}),
    (200, {"order": "asc", "outputsize": "7", "start_date": "2025-11-26 10:00:00"}),
    (200, {"timezone": "Exchange", "start_date": "2025-11-26T15:30:00"}),
    (200, {"timezone": "UTC", "start_date": "2025-11-26T15:30:00", "end_date": "2025-11-26 20:00:00"}),
    (200, {"timezone": "Asia/Tokyo", "end_date": "2025-11-27 00:30:00", "outputsize": "40"}),
    # Daylight saving time ends on 2 November.
    (200, {"timezone": "America/New_York", "start_date": "2025-10-31 15:00:00", "end_date": "2025-11-03 10:00:00"}),
    (200, {"apikey": "demo"}),
    (200, {"symbol": "AAPL,UNKNOWN", "outputsize": "2"}),
    (200, {"symbol": "AAPL:NASDAQ"}),
    (200, {"symbol": "AAPL:NASDAQ,TSLA"}),
    (400, {"start_date": "2025-11-27", "end_date": "2025-11-28"}),
    (400, {"timezone": "Nowhere/Never"}),
    (400, {"outputsize": "5001"}),
    (400, {"outputsize": "0"}),
    (400, {"order": "up"}),
    (400, {"start_date": "yesterday"}),
    (401, {"apikey": "another-key"}),
    (404, {"symbol": "UNKNOWN"}),
    (414, {"symbol": ",".join(f"S{n}" for n in range(121))}),
]


def test_a_query_has_the_same_answer(start: Start) -> None:
    CLOCK.now = EVENING
    urls = start(Case())
    for status, query in QUERIES:
        answers = []
        for url in urls:
            params = {"symbol": "AAPL", "interval": "5min", "apikey": KEY} | query
            response = requests.get(f"{url}/time_series", params=params, timeout=10)
            body = response.json()
            # The wordings of most errors are not documented.
            answers.append((query, response.status_code, body if response.ok else (body["code"], body["status"])))
        assert answers[0] == answers[1]
        assert answers[0][1] == status
