"""The Twelve Data emulator answers like the recorded API, under every setting of its switches."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import Recordings
from twelvedata_calls import CLOCK, DAY_CLOSES, DAY_OPENS, MARKET, as_values, ask, limit, reset, stamps, text

from barflow.market.recordings import Recording
from emulators.twelvedata.bar_source import BAR
from emulators.twelvedata.server import TwelveDataEmulator
from emulators.twelvedata.switches import Switches

HALF_DAY_CLOSES = datetime(2025, 7, 3, 17, 0, tzinfo=UTC)
NO_DATA = "No data is available on the specified dates. Try setting different start/end dates."
NOT_FOUND = {"code": 404, "message": "Data not found", "status": "error"}


@pytest.fixture(scope="module")
def server() -> Iterator[TwelveDataEmulator]:
    with TwelveDataEmulator(MARKET, clock=CLOCK) as running:
        yield running


@pytest.fixture
def api(server: TwelveDataEmulator) -> TwelveDataEmulator:
    """The server of this module, reset to its defaults."""
    return reset(server)


def shape(body: Any) -> Any:
    """Return keys in their order with the types of their values; a list by its first element."""
    if isinstance(body, dict):
        return [(key, shape(value)) for key, value in body.items()]
    return [shape(body[0])] if isinstance(body, list) else type(body).__name__


class TestAnswersEqualRecordedAnswers:
    def test_one_symbol(self, api: TwelveDataEmulator, recordings: Recordings) -> None:
        answer = ask(api)
        assert shape(answer.json()) == shape(recordings.bodies["one_symbol"])
        assert answer.headers["content-type"] == "application/json"

    def test_several_symbols(self, api: TwelveDataEmulator, recordings: Recordings) -> None:
        assert shape(ask(api, "SPX,AAPL").json()) == shape(recordings.bodies["several_symbols"])

    def test_a_recorded_body_is_served_byte_for_byte(self, recordings: Recordings) -> None:
        with TwelveDataEmulator(Recording.load(recordings.answers)) as replayed:
            for symbol in replayed.source.symbols:
                (file,) = recordings.answers.glob(f"time_series_{symbol}_5min_*.json")
                assert ask(replayed, symbol, timezone="Exchange", outputsize=5000).content == file.read_bytes()

    @pytest.mark.parametrize(
        ("body", "request_options"),
        [
            ("bad_key", {"key": "wrong"}),
            ("unknown_symbol", {"symbol": "UNKNOWN"}),
            ("symbol_needs_plan", {"symbol": "PLAN"}),
        ],
    )
    def test_errors(
        self, api: TwelveDataEmulator, recordings: Recordings, body: str, request_options: dict[str, str]
    ) -> None:
        api.switches.plan_symbols = {"PLAN"}
        theirs, answer = recordings.bodies[body], ask(api, **request_options)
        assert list(answer.json().items()) == list(theirs.items())
        assert answer.status_code == theirs["code"]

    def test_no_data(self, api: TwelveDataEmulator, recordings: Recordings) -> None:
        theirs = recordings.bodies["no_data"]
        ours = ask(api, start_date="2025-06-28", end_date="2025-06-29").json()
        assert shape(ours) == shape(theirs)
        assert ours | {"meta": None} == theirs | {"meta": None}

    @pytest.mark.parametrize("window", ["minute", "day"])
    def test_spent_credits(self, api: TwelveDataEmulator, recordings: Recordings, window: str) -> None:
        limit(api, *((8, None) if window == "minute" else (None, 800)))
        for batch in range(1 if window == "minute" else 8):
            spend = 8 if window == "minute" else 100
            assert ask(api, ",".join(f"S{batch}N{n}" for n in range(spend)), outputsize=1).status_code == 200
        answer = ask(api)
        assert answer.status_code == 429
        assert list(answer.json().items()) == list(recordings.bodies[f"{window}_credits_spent"].items())

    def test_the_other_recorded_error_of_an_unknown_symbol_in_a_batch(
        self, api: TwelveDataEmulator, recordings: Recordings
    ) -> None:
        theirs = recordings.bodies["unknown_in_batch"]["NIKK"]
        api.switches.unknown_in_batch = 400
        ours = ask(api, "AAPL,UNKNOWN").json()["UNKNOWN"]
        assert shape(ours) == shape(theirs)
        assert ours["message"] == theirs["message"].replace("NIKK", "UNKNOWN")


class TestTheBarsOfAnAnswer:
    def test_thirty_bars_without_dates_newest_first(self, api: TwelveDataEmulator) -> None:
        newest = DAY_CLOSES - BAR
        assert stamps(ask(api)) == [text(newest - BAR * n) for n in range(30)]

    def test_order_asc_reverses_the_same_bars(self, api: TwelveDataEmulator) -> None:
        assert stamps(ask(api, order="asc")) == stamps(ask(api))[::-1]

    def test_values_are_the_text_of_the_source(self, api: TwelveDataEmulator) -> None:
        values = ask(api, order="asc", start_date="2025-07-02").json()["values"]
        assert values == as_values(MARKET.rows("AAPL", DAY_OPENS, DAY_CLOSES))

    @pytest.mark.parametrize("form", ["2025-07-02 15:30:00", "2025-07-02T15:30:00"])
    def test_both_formats_of_a_date_with_time(self, api: TwelveDataEmulator, form: str) -> None:
        assert stamps(ask(api, start_date=form))[-1] == "2025-07-02 15:30:00"

    @pytest.mark.parametrize("zone", [{"timezone": "Exchange"}, {"timezone": "America/New_York"}, {"timezone": None}])
    def test_dates_and_timestamps_are_in_the_requested_time_zone(
        self, api: TwelveDataEmulator, zone: dict[str, Any]
    ) -> None:
        assert stamps(ask(api, start_date="2025-07-02 09:30:00", end_date="2025-07-02 09:35:00", **zone)) == [
            "2025-07-02 09:35:00",
            "2025-07-02 09:30:00",
        ]

    def test_end_date_is_inclusive_or_exclusive_by_switch(self, api: TwelveDataEmulator) -> None:
        dates = {"start_date": "2025-07-02 14:00:00", "end_date": "2025-07-02 14:10:00"}
        assert len(ask(api, **dates).json()["values"]) == 3
        api.switches.end_date_inclusive = False
        assert len(ask(api, **dates).json()["values"]) == 2

    def test_an_end_date_without_time_is_its_midnight(self, api: TwelveDataEmulator) -> None:
        CLOCK.now = HALF_DAY_CLOSES
        assert stamps(ask(api, start_date="2025-07-02", end_date="2025-07-03"))[0] == "2025-07-02 19:55:00"

    def test_more_than_5000_rows_are_cut_to_the_newest(self, api: TwelveDataEmulator) -> None:
        found = stamps(ask(api, start_date="2025-01-02"))
        assert len(found) == 5000
        assert found[0] == "2025-07-02 19:55:00"

    @pytest.mark.parametrize(
        "dates",
        [
            {"start_date": "2025-07-04", "end_date": "2025-07-05"},
            {"start_date": "2025-07-05"},
            {"start_date": "2030-01-01", "end_date": "2031-01-01"},
            {"start_date": "2025-07-02", "end_date": "2025-07-01"},
            {"start_date": "9999-12-31 23:59:59.999999", "end_date": "9999-12-31 23:59:59.999999"},
        ],
    )
    def test_a_range_without_bars_is_error_400(self, api: TwelveDataEmulator, dates: dict[str, str]) -> None:
        CLOCK.now = datetime(2025, 7, 6, tzinfo=UTC)
        answer = ask(api, **dates)
        assert (answer.status_code, answer.json()["message"]) == (400, NO_DATA)

    @given(
        size=st.integers(37, 400),
        start=st.datetimes(datetime(2025, 6, 25), datetime(2025, 7, 1)).map(
            lambda moment: moment.replace(microsecond=0)
        ),
        inclusive=st.booleans(),
    )
    @settings(max_examples=15, deadline=None)
    def test_paging_backwards_returns_every_bar(
        self, server: TwelveDataEmulator, size: int, start: datetime, inclusive: bool
    ) -> None:
        reset(server).switches.end_date_inclusive = inclusive
        seen: dict[str, dict[str, str]] = {}
        end = text(DAY_CLOSES)
        while True:
            answer = ask(server, start_date=text(start), end_date=end, outputsize=size)
            values = answer.json().get("values", [])
            seen |= {value["datetime"]: value for value in values}
            if len(values) < size:
                break
            oldest = datetime.fromisoformat(values[-1]["datetime"])
            end = text(oldest if inclusive else oldest + BAR)
        expected = as_values(MARKET.rows("AAPL", start.replace(tzinfo=UTC), DAY_CLOSES))
        assert sorted(seen.values(), key=lambda value: value["datetime"]) == expected

    def test_dp_rounds_prices(self, api: TwelveDataEmulator) -> None:
        assert all(len(value["close"].partition(".")[2]) == 2 for value in ask(api, dp=2).json()["values"])


class TestTheFormingBar:
    def test_has_its_first_price_and_a_part_of_its_volume(self, api: TwelveDataEmulator) -> None:
        CLOCK.now = DAY_OPENS + timedelta(minutes=62)
        [final] = as_values(MARKET.rows("AAPL", DAY_OPENS + BAR * 12, DAY_OPENS + BAR * 13))
        forming = ask(api, outputsize=1).json()["values"][0]
        assert forming["datetime"] == final["datetime"] == "2025-07-02 14:30:00"
        assert forming["open"] == forming["close"] == final["open"]
        assert int(forming["volume"]) == int(int(final["volume"] or 0) * 0.4)
        CLOCK.now = DAY_OPENS + timedelta(minutes=65)
        assert final in ask(api, outputsize=2).json()["values"]

    def test_is_absent_by_switch(self, api: TwelveDataEmulator) -> None:
        CLOCK.now, api.switches.forming_bar = DAY_OPENS + timedelta(minutes=62), False
        assert stamps(ask(api))[0] == "2025-07-02 14:25:00"

    def test_bars_of_the_future_are_never_served(self, api: TwelveDataEmulator) -> None:
        CLOCK.now = DAY_OPENS + timedelta(minutes=1)
        assert stamps(ask(api, start_date="2025-07-02", end_date="2025-07-09")) == ["2025-07-02 13:30:00"]

    def test_the_clock_of_a_replay_stops_after_its_last_bar(self) -> None:
        rows = MARKET.rows("AAPL", DAY_OPENS, DAY_OPENS + BAR * 5)
        with TwelveDataEmulator(Recording(("AAPL", row) for row in rows)) as replayed:
            assert replayed.clock() == DAY_OPENS + BAR * 5
            assert ask(replayed, order="asc").json()["values"] == as_values(rows)


class TestCorrections:
    def test_a_correction_changes_later_answers(self, api: TwelveDataEmulator) -> None:
        day = {"order": "asc", "start_date": "2025-07-02"}
        before = ask(api, **day).json()["values"]
        api.switches.correct("AAPL", DAY_OPENS + BAR * 3, close="1.50000", volume=7)
        api.switches.correct("AAPL", DAY_OPENS + BAR * 3, close="2.50000")
        after = ask(api, **day).json()["values"]
        assert after[3] == {**before[3], "close": "2.50000", "volume": "7"}
        assert [*after[:3], *after[4:]] == [*before[:3], *before[4:]]
        api.switches.corrections = {}
        assert ask(api, **day).json()["values"] == before

    def test_a_correction_of_an_unknown_field_or_a_naive_time_raises(self) -> None:
        with pytest.raises(ValueError, match="cannot correct"):
            Switches().correct("AAPL", DAY_OPENS, price="1")
        with pytest.raises(ValueError, match="cannot correct"):
            Switches().correct("AAPL", datetime(2025, 7, 2, 9, 30), close="1")


def test_a_server_has_its_own_port_and_frees_it() -> None:
    with TwelveDataEmulator(MARKET) as one, TwelveDataEmulator(MARKET) as other:
        assert one.url != other.url
        assert ask(one).status_code == ask(other).status_code == 200
    with pytest.raises(requests.ConnectionError):
        ask(one)


class TestTheFirstBar:
    LISTED = datetime(2025, 6, 27, 15, 0, tzinfo=UTC)

    def earliest(self, api: TwelveDataEmulator, symbol: str = "AAPL", **params: str) -> Any:
        query = {"symbol": symbol, "interval": "5min", "timezone": "UTC", **params}
        headers = {"Authorization": "apikey emulator-key"}
        return requests.get(f"{api.url}/earliest_timestamp", params=query, headers=headers, timeout=10)

    def test_is_answered_for_one_credit(self, api: TwelveDataEmulator) -> None:
        """The shape is documented: a text in the requested zone, and whole seconds."""
        api.switches.listed = {"AAPL": self.LISTED}
        answer = self.earliest(api)
        assert answer.json() == {"datetime": "2025-06-27 15:00:00", "unix_time": int(self.LISTED.timestamp())}
        assert (answer.headers["api-credits-used"], api.requests[-1].credits) == ("1", 1)
        assert self.earliest(api, timezone="Exchange").json()["datetime"] == "2025-06-27 11:00:00"
        assert self.earliest(api, "MSFT").json()["datetime"] == text(MARKET.first)

    def test_is_refused_in_the_vendors_words(self, api: TwelveDataEmulator) -> None:
        api.switches.listed, api.switches.plan_symbols = {"AAPL": DAY_CLOSES + timedelta(days=1)}, {"PLAN"}
        meta = {"symbol": "AAPL", "interval": "5min", "exchange": ""}
        assert self.earliest(api).json() == {**NOT_FOUND, "meta": meta}
        for symbol, words in {"UNKNOWN": "**symbol** or **figi**", "": "**symbol**", "PLAN": "This symbol is"}.items():
            assert self.earliest(api, symbol).json()["message"].startswith(words)
        assert self.earliest(api, interval="2min").status_code == 400
        limit(api, per_day=0)
        assert self.earliest(api).status_code == 429
        api.switches.first_bars_in_plan = False
        assert self.earliest(api).status_code == 403

    def test_hides_earlier_bars_and_a_range_before_it_is_error_404_or_400(self, api: TwelveDataEmulator) -> None:
        api.switches.listed = {"AAPL": self.LISTED}
        assert min(stamps(ask(api, start_date="2025-06-26"))) == text(self.LISTED)
        before = {"start_date": "2025-06-26", "end_date": "2025-06-27"}
        assert NOT_FOUND.items() <= ask(api, **before).json().items()
        assert ask(api, start_date="2025-06-28", end_date="2025-06-29").json()["message"] == NO_DATA
        api.switches.before_listing = 400
        assert ask(api, **before).json()["message"] == NO_DATA
