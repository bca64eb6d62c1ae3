"""Recorded bars keep their text, and a file that cannot be read is rejected in one clear line."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import Recordings
from recordings.reading import as_utc, rows_by_symbol, wall_clock

from barflow.errors import BadInputError
from barflow.market.recordings import Recording

HEADER = "datetime,open,high,low,close,volume,symbol"
GOOD = "2025-07-02 11:30:00,211.49001,211.75,211.28000,211.70000,686900,AAPL"
BODY = (
    '{"meta":{"symbol":"AAPL","exchange_timezone":"America/New_York"},"values":[{"datetime":"2025-07-02 11:30:00",'
    '"open":"211.49001","high":"211.75","low":"211.28000","close":"211.70000","volume":"686900"}],"status":"ok"}'
)
ROW = (datetime(2025, 7, 2, 15, 30, tzinfo=UTC), "211.49001", "211.75", "211.28000", "211.70000", "686900")
CASES = Path(__file__).parents[1] / "cases"
ALWAYS = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC))


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    return tmp_path / "bars.csv"


def load_csv(path: Path, *lines: str) -> Recording:
    path.write_text("\n".join(lines) + "\n")
    return Recording.load(path)


def message_of(path: Path) -> str:
    with pytest.raises(BadInputError) as caught:
        Recording.load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    return text


def test_the_recorded_csv_and_the_recorded_answers_hold_the_same_bars(recordings: Recordings) -> None:
    table, answers = Recording.load(recordings.watch_list), Recording.load(recordings.answers)
    recorded = rows_by_symbol(recordings.watch_list)
    assert set(table.symbols) == set(answers.symbols) == set(recorded)
    clocks = []
    for symbol, rows in recorded.items():
        expected = [(as_utc(wall_clock(row)), *(row[name] for name in HEADER.split(",")[1:6])) for row in rows[::-1]]
        assert table.rows(symbol, *ALWAYS) == answers.rows(symbol, *ALWAYS) == expected
        clocks += [wall_clock(row) for row in rows]
    assert table.first == answers.first == as_utc(min(clocks))
    assert table.as_of == answers.as_of == as_utc(max(clocks)) + timedelta(minutes=5)
    days = len({clock.date() for clock in clocks})
    assert table.describe == f"{len(recorded)} symbols, {days} sessions, {len(clocks):,} bars"


def test_two_spellings_of_a_share_are_one_symbol(csv_file: Path) -> None:
    dot, dash = GOOD.replace("AAPL", "BRK.B"), GOOD.replace("AAPL", "BRK-B").replace("11:30", "11:35")
    recording = load_csv(csv_file, HEADER, dot, dash)
    assert recording.symbols == ("BRK.B",)
    assert recording.held("BRK.B", recording.as_of) == 2


def test_text_is_kept_and_a_single_answer_is_enough(csv_file: Path, tmp_path: Path) -> None:
    assert load_csv(csv_file, HEADER, GOOD).rows("AAPL", *ALWAYS) == [ROW]
    answer = tmp_path / "time_series_AAPL.json"
    answer.write_text(BODY)
    assert Recording.load(answer).rows("AAPL", *ALWAYS) == [ROW]
    assert Recording.load(tmp_path).rows("AAPL", *ALWAYS) == [ROW]


@given(order=st.randoms(use_true_random=False), size=st.integers(1, 120))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_rows_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, order: random.Random, size: int
) -> None:
    start = datetime(2025, 7, 2, 9, 30)
    lines = [f"{start + timedelta(minutes=5 * n)},{n},{n},{n},{n},{n},S{n % 2}" for n in range(size)]
    order.shuffle(lines)
    bars = load_csv(tmp_path_factory.mktemp("replay") / "bars.csv", HEADER, *lines)
    for symbol in bars.symbols:
        opens = [row[0] for row in bars.rows(symbol, *ALWAYS)]
        assert opens == sorted(opens)
    assert sum(len(bars.rows(symbol, *ALWAYS)) for symbol in bars.symbols) == size
    assert bars.as_of == datetime(2025, 7, 2, 13, 30, tzinfo=UTC) + timedelta(minutes=5 * size)


def test_a_range_is_half_open(csv_file: Path) -> None:
    bars = load_csv(csv_file, HEADER, GOOD)
    later = ROW[0] + timedelta(minutes=5)
    assert bars.rows("AAPL", ROW[0], later) == [ROW]
    assert bars.rows("AAPL", later - timedelta(minutes=10), ROW[0]) == []
    assert bars.rows("MSFT", *ALWAYS) == []
    assert (bars.knows("AAPL"), bars.knows("MSFT")) == (True, False)


@pytest.mark.parametrize(
    ("wall", "utc"),
    [
        ("2025-03-07 09:30:00", "2025-03-07T14:30:00+00:00"),
        ("2025-03-10 09:30:00", "2025-03-10T13:30:00+00:00"),
        ("2025-10-31T09:30:00", "2025-10-31T13:30:00+00:00"),
        ("2025-11-03 09:30", "2025-11-03T14:30:00+00:00"),
    ],
)
def test_wall_time_becomes_utc_on_both_sides_of_a_dst_change(csv_file: Path, wall: str, utc: str) -> None:
    bars = load_csv(csv_file, HEADER, GOOD.replace("2025-07-02 11:30:00", wall))
    assert bars.first == datetime.fromisoformat(utc)


@pytest.mark.parametrize("before", ["", "sep=;\n", "# exported\n\n", "\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_other_delimiters_and_lines_before_the_header_are_read(csv_file: Path, before: str, delimiter: str) -> None:
    csv_file.write_text(before + f"{HEADER}\r\n{GOOD}\r\n".replace(",", delimiter))
    assert Recording.load(csv_file).rows("AAPL", *ALWAYS) == [ROW]
    csv_file.write_text(before + f"{HEADER}\n{GOOD}\n{GOOD},x\n".replace(",", delimiter))
    assert f"line {before.count(chr(10)) + 3}: 8 columns" in message_of(csv_file)


@pytest.mark.parametrize(
    ("case", "sessions", "bars", "strays"),
    [
        ("far_future_row", 4, {"AAPL": 9}, "AAPL 2026-12-31 09:30 New York"),
        ("far_future_row_2099", 4, {"AAPL": 9}, "AAPL 2099-12-31 09:30 New York"),
        ("delisted_mid_window", 63, {"OLDCO": 12, "AAPL": 6}, None),
        ("more_than_20_sessions", 42, {"AAPL": 82}, None),
    ],
)
def test_the_clock_is_the_last_bar_and_a_stray_row_is_named(
    case: str, sessions: int, bars: dict[str, int], strays: str | None
) -> None:
    recording = Recording.load(CASES / f"{case}.csv")
    assert recording.as_of.date() == date(2025, 7, 30)
    assert recording.sessions == sessions
    assert {symbol: recording.held(symbol, recording.as_of) for symbol in recording.symbols} == bars
    assert ("left out" in recording.describe) == bool(strays)
    assert strays is None or strays in recording.describe


def test_a_recording_with_few_bars_far_apart_has_no_stray_row(csv_file: Path) -> None:
    later = GOOD.replace("2025-07-02", "2025-12-02")
    assert load_csv(csv_file, HEADER, GOOD, later).strays == []


@pytest.mark.parametrize(
    "bad",
    [
        "2025-07-02 11:35:00,-1,NaN,n/a,,0,AAPL",
        "2025-07-02 11:36:17,1,2,3,4,-5,AAPL",
        "2025-07-05 03:00:00,1,1,1,1,1,AAPL",
    ],
)
def test_an_invalid_bar_is_kept(csv_file: Path, bad: str) -> None:
    rows = load_csv(csv_file, HEADER, GOOD, bad).rows("AAPL", *ALWAYS)
    assert list(rows[1][1:]) == bad.split(",")[1:6]


def test_duplicates_and_nulls_are_kept(tmp_path: Path, csv_file: Path) -> None:
    assert len(load_csv(csv_file, HEADER, GOOD, GOOD.replace("686900", "1")).rows("AAPL", *ALWAYS)) == 2
    answer = tmp_path / "time_series_AAPL.json"
    answer.write_text(BODY.replace('"211.75"', "null").replace('"686900"', "686900"))
    assert Recording.load(answer).rows("AAPL", *ALWAYS) == [(*ROW[:2], None, *ROW[3:])]


def test_columns_may_be_in_any_order_and_beside_others(csv_file: Path) -> None:
    bars = load_csv(
        csv_file, "\ufeffsymbol,Datetime,note,close,open,high,low,volume", "aapl,2025-07-02 11:30:00,x,4,1,2,3,5", ""
    )
    assert bars.rows("AAPL", *ALWAYS) == [(ROW[0], "1", "2", "3", "4", "5")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (HEADER, "has no bars"),
        (GOOD, "has no header line: expected the columns datetime,open"),
        (HEADER.replace(",symbol", "") + "\n1,2,3,4,5,6", "lacks the column(s) symbol"),
        (HEADER.replace("low,close", "Adj"), "lacks the column(s) low, close"),
        (f"{HEADER}\n{GOOD}\n2025-07-02 11:35:00,1,2", "line 3: 3 columns where the header has 7"),
        (f"{HEADER}\n{GOOD},x", "line 2: 8 columns"),
        (f"{HEADER}\nyesterday,1,1,1,1,1,AAPL", "line 2: 'yesterday' is not a wall-clock datetime"),
        (f"{HEADER}\n2025-07-02,1,1,1,1,1,AAPL", "line 2: '2025-07-02' is not"),
        (f"{HEADER}\n2025-07-02 09:30:00+02:00,1,1,1,1,1,AAPL", "line 2"),
        (f"{HEADER}\n2025-13-02 09:30:00,1,1,1,1,1,AAPL", "line 2"),
        (f"{HEADER}\n9999-12-31 23:59:00,1,1,1,1,1,AAPL", "line 2"),
        (f'{HEADER}\n"2025-07-02 09:30:00,1,1,1,1,1,AAPL', "line"),
        (f"{HEADER}\n2025-07-02 09:30:00,1,1,1,1,1, ", "line 2: the symbol is empty"),
        (b"PK\x03\x04\xff\xfe\x00", "is not a UTF-8 text file"),
        (HEADER.encode("utf-16"), "is not a UTF-8 text file"),
        ((HEADER + "\n\0").encode(), "is not a UTF-8 text file"),
    ],
)
def test_an_unreadable_csv_is_rejected_in_one_line(csv_file: Path, content: str | bytes, message: str) -> None:
    csv_file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in message_of(csv_file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BODY[:100], "is broken JSON"),
        ("[1, 2]", "is not one symbol's answer"),
        ('{"AAPL": {}}', "is not one symbol's answer"),
        ('{"code":404,"message":"no such symbol","status":"error"}', "holds an error answer, not bars: no such symbol"),
        (BODY.replace("America/New_York", "Mars/Olympus"), "exchange Mars/Olympus instead of America/New_York"),
        (BODY.replace('"close":"211.70000",', ""), "value 1: lacks close"),
        (BODY.replace("2025-07-02 11:30:00", "soon"), "value 1: 'soon' is not a wall-clock datetime"),
        (BODY.replace('[{"datetime"', '[7,{"datetime"'), "value 1: not an object"),
    ],
)
def test_an_unreadable_answer_is_rejected_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    answer = tmp_path / "time_series_AAPL.json"
    answer.write_text(content)
    assert message in message_of(answer)


def test_a_missing_path_and_a_folder_without_answers_are_rejected(tmp_path: Path) -> None:
    assert "does not exist" in message_of(tmp_path / "nothing.csv")
    (tmp_path / "notes.txt").write_text("x")
    assert "has no time_series_*.json" in message_of(tmp_path)


def test_answers_without_a_bar_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "time_series_AAPL.json").write_text(BODY[: BODY.index("[")] + '[],"status":"ok"}')
    assert "has no bars" in message_of(tmp_path)
