"""Validation rejects bad bars with every reason, and no other bar."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barflow.market.bars import Bar
from barflow.market.sessions import new_york, session, sessions_between
from barflow.market.validation import REASONS, check_row, jump_flags, price_jumps, validate

NOW = datetime(2025, 7, 30, 20, 0, tzinfo=UTC)
WEDNESDAY = session(date(2025, 7, 30))
assert WEDNESDAY is not None
META = {"symbol": "AAPL"}


def row(ts: str = "2025-07-30 13:30:00", **changes: Any) -> dict[str, Any]:
    fields = {"datetime": ts, "open": "10.0", "high": "10.5", "low": "9.5", "close": "10.2", "volume": "1200"}
    return {**fields, **changes}


def clean_answer() -> list[dict[str, Any]]:
    return [row(f"{slot:%Y-%m-%d %H:%M:%S}") for slot in WEDNESDAY.slots]


@pytest.mark.parametrize(
    ("bad", "reasons"),
    [
        (row(close=None), ["missing_field"]),
        ({key: value for key, value in row().items() if key != "volume"}, ["missing_field"]),
        (row(open=""), ["missing_field"]),
        ("not a row", ["missing_field"]),
        (row(open="NaN"), ["not_a_number"]),
        (row(open="inf"), ["not_a_number"]),
        (row(open="1_0.5"), ["not_a_number"]),
        (row(open="\N{ARABIC-INDIC DIGIT ONE}"), ["not_a_number"]),
        (row(open=True), ["not_a_number"]),
        (row(open={"a": 1}), ["not_a_number"]),
        (row(volume="12.5"), ["not_a_number"]),
        (row(volume="9" * 20), ["out_of_bounds"]),
        (row(volume="10000000000001"), ["out_of_bounds"]),
        (row(volume=9223372036854775807), ["out_of_bounds"]),
        (row(volume="1e300"), ["out_of_bounds"]),
        (row(high="1.7e308"), ["out_of_bounds"]),
        (row(high="1000000000.01"), ["out_of_bounds"]),
        (row(high="9" * 400), ["not_a_number"]),
        (row(low="0"), ["non_positive_price"]),
        (row(low="-9.5"), ["non_positive_price"]),
        (row(high="10.1"), ["ohlc_inconsistent"]),
        (row(high="10.1999999999"), ["ohlc_inconsistent"]),
        (row(low="10.1"), ["ohlc_inconsistent"]),
        (row(close="9.4"), ["ohlc_inconsistent"]),
        (row(open="10.6"), ["ohlc_inconsistent"]),
        (row(volume="-1"), ["negative_volume"]),
        (row("2025-07-30"), ["bad_timestamp"]),
        (row("2025-13-45 13:30:00"), ["bad_timestamp"]),
        (row(datetime=20250730), ["bad_timestamp"]),
        (row("2025-7-30 13:30:00"), ["bad_timestamp"]),
        (row("2025-07-30 13:31:00"), ["off_grid"]),
        (row("2025-07-30 13:30:01"), ["off_grid"]),
        (row("2025-07-30 13:25:00"), ["outside_session"]),
        (row("2025-07-04 13:30:00"), ["outside_session"]),  # Independence Day
        (row("2025-07-03 17:00:00"), ["outside_session"]),  # half day: closed at 13:00 New York
        (row("1999-07-06 13:30:00"), ["outside_session"]),  # before the calendar
        (row("2025-07-31 13:30:00"), ["future_bar"]),
        (row("2025-07-30 13:31:00", open="x", volume="-3"), ["off_grid", "not_a_number", "negative_volume"]),
    ],
)
def test_a_bad_bar_is_rejected_with_all_its_reasons_and_its_payload(bad: Any, reasons: list[str]) -> None:
    rest = clean_answer()[5:]
    for answer in ([bad, *rest], [*rest, bad]):  # in order, so that only the checks of values fail, and unordered
        result = validate("AAPL", META, answer, NOW)
        assert [sorted(item.reasons) for item in result.rejected] == [sorted(reasons)]
        assert result.rejected[0].payload == bad
        assert result.accepted == len(answer) - 1
    assert set(reasons) <= set(REASONS)


def test_a_clean_answer_is_accepted_completely_in_either_order() -> None:
    oldest_first = validate("AAPL", META, clean_answer(), NOW)
    newest_first = validate("AAPL", META, clean_answer()[::-1], NOW)
    assert oldest_first.accepted == 78
    assert oldest_first.sessions == newest_first.sessions
    assert oldest_first.notes == newest_first.notes == []


def test_an_unordered_answer_is_sorted_and_noted() -> None:
    answer = clean_answer()
    answer[3], answer[40] = answer[40], answer[3]
    result = validate("AAPL", META, answer, NOW)
    assert result.sessions == validate("AAPL", META, clean_answer(), NOW).sessions
    assert result.notes == ["unordered: the answer was sorted"]


def test_numbers_are_read_from_text_and_from_json_numbers() -> None:
    result = validate(
        "AAPL", META, [row(open=10, high=10.5, volume=1200), row("2025-07-30 13:35:00", volume="12.0")], NOW
    )
    assert not result.rejected
    assert result.sessions[date(2025, 7, 30)].volume == [1200, 12]


def test_prices_and_volumes_are_accepted_up_to_their_bounds_on_both_paths() -> None:
    highest = row(open="1000000000", high="1000000000", low="999999999.5", close="1e9", volume="10000000000000")
    assert check_row(highest, NOW)[1] is not None
    result = validate("AAPL", META, [{**highest, "close": "1000000000"}], NOW)
    assert result.sessions[date(2025, 7, 30)].volume == [10**13]
    assert 78 * 10**13 * 10**3 < 2**63, "a session's sum of volumes fits, a thousand of them too"


def test_float_noise_between_close_and_high_is_accepted_as_received() -> None:
    noisy = row(open="0.3", high="0.3", low="0.29", close="0.30000000000000004")
    result = validate("AAPL", META, [noisy], NOW)
    assert not result.rejected
    [stored] = result.sessions.values()
    assert (stored.high, stored.close) == ([0.3], [0.30000000000000004])
    assert stored.bars(), "the Bar allows the same noise"


@pytest.mark.parametrize(
    ("meta", "reasons"),
    [
        ({"interval": "1h"}, ["wrong_interval"]),
        ({"interval": "1min"}, ["wrong_interval"]),
        ({"interval": 5}, ["wrong_interval"]),
        ({"currency": "CAD"}, ["wrong_currency"]),
        ({"currency": "GBp", "exchange_timezone": "Europe/London"}, ["wrong_currency", "wrong_exchange"]),
        ({"exchange_timezone": "America/Toronto"}, ["wrong_exchange"]),
        ({"exchange_timezone": "UTC"}, ["wrong_exchange"]),
        ({"mic_code": "XLON"}, ["wrong_exchange"]),
        ({"type": "Digital Currency"}, ["wrong_type"]),
        ({"symbol": "MSFT", "interval": "1day"}, ["wrong_symbol", "wrong_interval"]),
        ({"symbol": ["AAPL"]}, ["wrong_symbol"]),
    ],
)
def test_an_answer_that_contradicts_the_contract_is_rejected_whole(meta: dict[str, Any], reasons: list[str]) -> None:
    result = validate("AAPL", {**META, **meta}, clean_answer(), NOW)
    assert {item.reasons for item in result.rejected} == {tuple(reasons)}
    assert (result.accepted, result.received) == (0, 78)
    assert [item.reason for item in result.contradictions] == reasons
    assert all(" instead of " in item.message for item in result.contradictions)


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"interval": "", "currency": None, "exchange_timezone": "", "mic_code": "XNGS", "type": None},
        {"exchange_timezone": "US/Eastern", "mic_code": "XYZ1", "type": "ETF", "currency": "USD"},
    ],
)
def test_fields_that_the_vendor_leaves_out_contradict_nothing(meta: dict[str, Any]) -> None:
    assert validate("AAPL", meta, clean_answer(), NOW).accepted == 78


@pytest.mark.parametrize(("asked", "answered"), [("BRK-B", "BRK.B"), ("BRK/B", "brk.b"), ("BRK.B:NYSE", "BRK-B")])
def test_the_vendors_own_spelling_of_a_symbol_is_accepted(asked: str, answered: str) -> None:
    assert validate(asked, {"symbol": answered}, clean_answer(), NOW).accepted == 78


def test_new_york_times_in_an_answer_that_was_requested_in_utc_are_rejected_whole() -> None:
    local = [row(f"{new_york(slot):%Y-%m-%d %H:%M:%S}") for slot in WEDNESDAY.slots]
    result = validate("AAPL", META, local, NOW)
    assert {item.reasons for item in result.rejected} == {("wrong_time_zone",)}
    assert "America/New_York" in result.contradictions[0].message
    for odd in (row("2025-07-02 08:00:00"), row("yesterday")):  # one odd row hides nothing
        assert validate("AAPL", META, [*local, odd], NOW).accepted == 0
    extended = [row(f"{WEDNESDAY.slots[0] + timedelta(minutes=5 * n):%Y-%m-%d %H:%M:%S}") for n in range(-66, 126)]
    assert validate("AAPL", META, extended, NOW + timedelta(days=1)).accepted == 78


def test_an_identical_duplicate_counts_as_repeated_and_is_accepted_once() -> None:
    result = validate("AAPL", META, [*clean_answer(), clean_answer()[7]], NOW)
    assert (result.accepted, result.repeated, result.rejected) == (78, 1, [])


def test_conflicting_versions_of_a_bar_are_all_rejected() -> None:
    result = validate("AAPL", META, [*clean_answer(), {**clean_answer()[7], "close": "10.3"}], NOW)
    assert result.accepted == 77
    assert [item.reasons for item in result.rejected] == [("conflicting_duplicate",)] * 2


def test_an_answer_for_another_symbol_is_rejected_completely() -> None:
    result = validate("AAPL", {"symbol": "MSFT"}, clean_answer(), NOW)
    assert {item.reasons for item in result.rejected} == {("wrong_symbol",)}
    assert result.accepted == 0
    assert validate("SBIN:NSE", {"symbol": "SBIN"}, clean_answer(), NOW).accepted == 78


@pytest.mark.parametrize(
    ("now", "accepted", "forming"),
    [
        ("2025-07-30T19:59:59", 77, 1),
        ("2025-07-30T20:00:00", 78, 0),
        ("2025-07-30T19:55:00", 77, 1),
    ],
)
def test_a_bar_is_forming_until_five_minutes_after_its_open(now: str, accepted: int, forming: int) -> None:
    result = validate("AAPL", META, clean_answer(), datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert (result.accepted, result.forming) == (accepted, forming)


def test_a_bar_of_a_clock_that_is_a_little_ahead_is_forming() -> None:
    result = validate("AAPL", META, clean_answer(), datetime(2025, 7, 30, 19, 54, 30, tzinfo=UTC))
    assert (result.forming, result.rejected) == (2, [])


def flags(ts: list[datetime], opens: list[float], closes: list[float], **known: Any) -> list[str]:
    return jump_flags(price_jumps(ts, opens, closes), **known)


def test_a_known_split_is_no_flag_and_leaves_the_true_gap() -> None:
    days = sessions_between(date(2025, 7, 3), date(2025, 7, 7))
    ts = [days[0].slots[-1], days[1].slots[0]]
    ex_date = days[1].session_date
    assert flags(ts, [1208.0, 120.3], [1208.8, 121.0], splits={ex_date: 10.0}) == []
    assert flags(ts, [1208.0, 113.6], [1208.8, 113.0], splits={ex_date: 10.0}) == [
        "price_jump: -6.02% at 2025-07-07 13:30 UTC"
    ]
    other_day = {date(2025, 7, 3): 10.0, date(2025, 7, 8): 10.0}
    said = {ex_date: "Twelve Data was asked before"}
    assert flags(ts, [1208.0, 120.3], [1208.8, 121.0], splits=other_day, done=said) == [
        "possible_split 10:1: -90.05% at 2025-07-07 13:30 UTC; Twelve Data was asked before"
    ]
    no_split = {ex_date: 1.0}
    assert flags(ts, [1208.0, 120.3], [1208.8, 121.0], splits=no_split) == [
        "price_jump: -90.05% at 2025-07-07 13:30 UTC"
    ]
    # A closure between the ex-date and the next stored bar does not hide the split.
    assert flags(ts, [1208.0, 120.3], [1208.8, 121.0], splits={date(2025, 7, 4): 10.0}) == []


@pytest.mark.parametrize(("opens", "jumps"), [(105.1, 1), (104.9, 0), (94.9, 1), (95.1, 0)])
def test_an_open_that_differs_by_more_than_5_percent_in_either_direction_is_a_jump(opens: float, jumps: int) -> None:
    assert len(price_jumps(WEDNESDAY.slots[:2], [100.0, opens], [100.0, opens])) == jumps


def test_price_jumps_are_flagged_and_splits_recognised() -> None:
    days = sessions_between(date(2025, 7, 3), date(2025, 7, 7))
    ts = [days[0].slots[-1], days[1].slots[0]]
    assert flags(ts, [315.0, 291.4], [315.35, 292.0]) == ["price_jump: -7.59% at 2025-07-07 13:30 UTC"]
    assert flags(ts, [1208.0, 120.3], [1208.8, 121.0]) == ["possible_split 10:1: -90.05% at 2025-07-07 13:30 UTC"]
    assert flags(ts, [5.0, 50.2], [5.0, 50.0]) == ["possible_split 1:10: +904.00% at 2025-07-07 13:30 UTC"]
    within = [days[0].slots[0], days[0].slots[1]]
    assert flags(within, [100.0, 50.0], [100.0, 50.0]) == ["price_jump: -50.00% at 2025-07-03 13:35 UTC"]
    assert flags(ts, [100.0, 104.9], [100.0, 105.0]) == []


def test_sessions_open_at_0930_new_york_before_and_after_a_clock_change() -> None:
    before, after = row("2025-10-31 13:30:00"), row("2025-11-03 14:30:00")
    now = datetime(2025, 11, 4, tzinfo=UTC)
    assert validate("AAPL", META, [before, after], now).accepted == 2
    assert validate("AAPL", META, [row("2025-11-03 13:30:00")], now).rejected[0].reasons == ("outside_session",)


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=8),
    st.sampled_from(["10.0", "11.5", "9.5", "-1", "0", "1e3", "NaN", "1_0", "", "2025-07-30 13:30:00"]),
    st.lists(st.integers(), max_size=2),
)
junk = st.one_of(
    values, st.dictionaries(st.sampled_from(["datetime", "open", "high", "low", "close", "volume"]), values)
)
stamps = st.integers(-300, 300).map(lambda n: f"{NOW + timedelta(minutes=n * 5):%Y-%m-%d %H:%M:%S}")
prices = st.floats(0.01, 1e6).map(lambda price: f"{price:.5f}")
plausible = st.builds(
    lambda ts, o, h, low, c, v: row(ts, open=o, high=h, low=low, close=c, volume=str(v)),
    stamps, prices, prices, prices, prices, st.integers(-5, 10**9),
)  # fmt: skip


@given(st.lists(st.one_of(junk, plausible), max_size=30))
def test_every_row_is_accounted_for_whatever_it_holds(answer: list[Any]) -> None:
    result = validate("AAPL", META, answer, NOW)
    assert result.received == result.accepted + result.repeated + result.forming + len(result.rejected)
    for day, bars in result.sessions.items():
        traded = session(day)
        assert traded is not None
        assert set(bars.ts) <= set(traded.slots)
        assert bars.ts == sorted(set(bars.ts))
        assert bars.bars(), "every accepted row satisfies the Bar's invariants"


@given(st.lists(plausible, max_size=40, unique_by=lambda value: value["datetime"]))
def test_checking_by_columns_gives_the_same_result_as_row_by_row(answer: list[dict[str, Any]]) -> None:
    by_columns = validate("AAPL", META, answer, NOW)
    by_rows = [check_row(value, NOW) for value in answer]
    valid = sorted((bar for _, bar in by_rows if bar), key=lambda bar: bar.ts)
    accepted: list[Bar] = [bar for part in by_columns.sessions.values() for bar in part.bars()]
    assert accepted == valid[: len(accepted)]
    assert by_columns.forming == len(valid) - len(accepted)
    assert len(by_columns.rejected) == sum(bar is None for _, bar in by_rows)


decimals = st.one_of(
    st.integers(1, 10**9).map(str),
    st.floats(0.01, 1e6).map(lambda price: f"{price:.5f}"),
    st.floats(0.01, 1e6).map(repr),
    st.decimals(min_value="0.00001", max_value=10**9, places=9).map(str),
)


@given(st.lists(st.tuples(decimals, decimals, decimals, decimals, st.integers(0, 10**13)), min_size=1, max_size=78))
def test_checking_by_columns_reads_numbers_as_float_and_int_do(bars: list[tuple[str, str, str, str, int]]) -> None:
    answer = []
    for slot, (*prices, volume) in zip(WEDNESDAY.slots, bars, strict=False):
        low, first, last, high = sorted(prices, key=float)
        stamp = f"{slot:%Y-%m-%d %H:%M:%S}"
        answer.append(row(stamp, open=first, high=high, low=low, close=last, volume=str(volume)))
    result = validate("AAPL", META, answer, NOW)
    [stored] = result.sessions.values()
    for name in ("open", "high", "low", "close"):
        read = getattr(stored, name)
        assert [*map(repr, read)] == [repr(float(value[name])) for value in answer]
    assert [*map(repr, stored.volume)] == [value["volume"] for value in answer]


@pytest.mark.parametrize(
    "text", ["10.0", "1,2", "1,", ",", "10.0],[10.0", "[1]", "1 ", "010.2", "1e1", "+10.2", ".5e2", "10."]
)
@pytest.mark.parametrize("name", ["open", "volume"])
def test_a_text_that_json_reads_differently_is_checked_row_by_row(name: str, text: str) -> None:
    answer = clean_answer()
    answer[7][name] = text
    result = validate("AAPL", META, answer, NOW)
    reasons, bar = check_row(answer[7], NOW)
    assert [item.reasons for item in result.rejected] == ([reasons] if reasons else [])
    [stored] = result.sessions.values()
    assert len(stored) == 78 - len(result.rejected)
    assert bar is None or bar in stored.bars()
    assert {type(number) for number in stored.open} == {float}
    assert {type(number) for number in stored.volume} == {int}
