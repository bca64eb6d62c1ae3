"""barflow.read gives each bar as it was known, adjusted and in its interval, from the files of the archive alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import barflow
from barflow.errors import BadInputError, BarflowError
from barflow.lake.actions import promote_actions, stage_actions
from barflow.lake.partitions import Lake
from barflow.market.actions import Action, Dividend, Kind, Split, Version
from barflow.market.arrow import arrow_schema, history_schema
from barflow.market.sessions import session, sessions_between
from barflow.market.versions import BarVersion, history

LEARNED = datetime(2025, 6, 1, tzinfo=UTC)
# Two months, two weeks with a holiday (4 July) and a half day (3 July).
FIRST, LAST = date(2025, 6, 26), date(2025, 7, 11)
DAYS = [item.session_date for item in sessions_between(FIRST, LAST)]
SPLIT, PAID = date(2025, 7, 2), date(2025, 7, 8)
PRICES = ("open", "high", "low", "close")


def rows(days: Iterable[date], price: float, *, without: frozenset[int] = frozenset()) -> list[dict[str, Any]]:
    """Return bars whose prices and volumes all differ, without some slots of each session."""
    made = []
    for day in days:
        traded = session(day)
        assert traded is not None
        for number, ts in enumerate(traded.slots):
            if number not in without:
                close = price + (number * 37 + day.toordinal() * 11) % 101 / 16
                low, high = close - 1 - number % 3 / 8, close + 1 + number % 5 / 8
                values = {"open": close - 0.25, "high": high, "low": low, "close": close, "volume": number * 3}
                known = ts + timedelta(minutes=5, seconds=number)
                made.append({"ts": ts, "session_date": day, **values, "revision": 0, "known_from": known})
    return made


def fill(lake: Lake, symbol: str, made: list[dict[str, Any]]) -> None:
    for month in sorted({f"{row['session_date']:%Y-%m}" for row in made}):
        of_month = [row for row in made if f"{row['session_date']:%Y-%m}" == month]
        lake.replace(symbol, month, pa.Table.from_pylist(of_month, arrow_schema()))


def store_actions(lake: Lake, symbol: str, versions: list[Version], kinds: set[Kind]) -> None:
    stage_actions(lake, "run", symbol, versions, kinds)
    promote_actions(lake, "run", [symbol])


def split(ratio: float = 4.0, known_from: datetime = LEARNED) -> Split:
    return Split("AAPL", SPLIT, ratio, "endpoint", known_from)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    fill(made, "MSFT", rows(DAYS, 400))
    fill(made, "AAPL", rows(DAYS, 200, without=frozenset({0, 17, 41, 77})))
    return made


def files(lake: Lake) -> str:
    return f"read_parquet('{lake.root}/bars_5min/**/*.parquet', hive_partitioning = true)"


def test_bars_are_those_of_the_files_sorted_by_symbol_and_open(lake: Lake) -> None:
    found = barflow.read(["MSFT", "aapl"], "2025-06-27", date(2025, 7, 10), adjust="none", lake=lake.root)
    assert found.schema.names == ["symbol", *arrow_schema().names]
    assert found.schema.remove(0).equals(arrow_schema())
    oracle = duckdb.sql(
        f"select symbol, * exclude (symbol, month) from {files(lake)} "
        "where session_date between '2025-06-27' and '2025-07-10' order by symbol, ts"
    ).to_arrow_table()
    assert found.to_pylist() == oracle.cast(found.schema).to_pylist()
    one = barflow.read("MSFT", SPLIT, SPLIT, lake=lake.root)
    assert (one.num_rows, one.schema.field("volume").type) == (78, pa.float64())


INTRADAY = "opens + to_minutes({0} * (minute // {0})), session_date, least({0}, minutes - {0} * (minute // {0})) // 5"
# The open of the bucket, its session and its expected bars, in SQL.
BUCKETS = {
    **{f"{minutes}min": INTRADAY.format(minutes) for minutes in (15, 30)},
    "1h": INTRADAY.format(60),
    "1d": "opens, session_date, minutes // 5",
    "1w": "week_opens, week_day, week_bars",
}


@pytest.mark.parametrize("interval", BUCKETS)
def test_longer_intervals_equal_those_of_duckdb(lake: Lake, interval: Any) -> None:
    calendar = barflow.sessions(date(2025, 6, 23), LAST)  # noqa: F841 - DuckDB reads it by its name
    duckdb.sql("set timezone = 'UTC'")
    oracle = duckdb.sql(f"""
        with days as (
            select *, expected_bars * 5 as minutes, min(opens) over week as week_opens,
                   min(session_date) over week as week_day, sum(expected_bars) over week as week_bars
            from calendar window week as (partition by date_trunc('week', session_date))
        ), bars as (
            select *, date_diff('minute', opens, ts) as minute from {files(lake)} join days using (session_date)
            where session_date between '{FIRST}' and '{LAST}'
        ), placed as (select *, unnest([row({BUCKETS[interval]})]) as bucket from bars)
        select symbol, bucket[1] as ts, bucket[2] as session_date, arg_min(open, ts) as open, max(high) as high,
               min(low) as low, arg_max(close, ts) as close, sum(volume) as volume,
               sum((high + low + close) / 3 * volume) / nullif(sum(volume), 0) as vwap, count(*) as bar_count,
               bucket[3] as expected_bars, count(*) = bucket[3] as is_complete, max(known_from) as known_from
        from placed group by symbol, bucket order by symbol, bucket[1]""").to_arrow_table()
    found = barflow.read(["AAPL", "MSFT"], FIRST, LAST, interval=interval, adjust="none", lake=lake.root)
    assert found.schema.names == oracle.schema.names
    assert found.drop_columns("vwap").to_pylist() == oracle.cast(found.schema).drop_columns("vwap").to_pylist()
    assert found["vwap"].to_pylist() == pytest.approx(oracle["vwap"].to_pylist(), rel=1e-12)
    whole = barflow.read(["AAPL", "MSFT"], FIRST, LAST, interval="1d", lake=lake.root)
    assert {*whole["is_complete"].to_pylist()} == {True, False}


def test_a_bucket_without_volume_has_no_vwap(lake: Lake) -> None:
    fill(lake, "HALT", [{**row, "volume": 0} for row in rows(DAYS[:1], 10)])
    (day,) = barflow.read("HALT", FIRST, LAST, interval="1d", lake=lake.root).to_pylist()
    assert (day["volume"], day["vwap"]) == (0, None)


def test_a_week_that_the_range_cuts_keeps_its_first_session_and_is_not_complete(lake: Lake) -> None:
    (week,) = barflow.read("MSFT", "2025-07-08", "2025-07-10", interval="1w", lake=lake.root).to_pylist()
    assert (week["session_date"], week["bar_count"], week["expected_bars"]) == (date(2025, 7, 7), 3 * 78, 5 * 78)
    assert (week["ts"], week["is_complete"]) == (datetime(2025, 7, 7, 13, 30, tzinfo=UTC), False)
    # 30 June to 3 July, with a half day: complete without its holiday.
    (week,) = barflow.read("MSFT", "2025-06-30", "2025-07-06", interval="1w", lake=lake.root).to_pylist()
    assert (week["bar_count"], week["is_complete"]) == (3 * 78 + 42, True)


MOMENTS = [datetime(2025, 7, 2, 14, tzinfo=UTC) + timedelta(minutes=n) for n in range(12)]
HISTORIES = st.dictionaries(
    st.sampled_from([ts for day in (date(2025, 6, 30), SPLIT) for ts in session(day).slots[:3]]),  # type: ignore[union-attr]
    st.lists(st.tuples(st.sampled_from(MOMENTS), st.integers(1, 3)), min_size=1, max_size=4),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@example(
    answers={datetime(2025, 7, 1, 14, tzinfo=UTC): [(MOMENTS[place], place + 1) for place in range(3)]},
    repeated=False,
    moment=MOMENTS[1],
)
@given(answers=HISTORIES, repeated=st.booleans(), moment=st.sampled_from([*MOMENTS, MOMENTS[-1] + timedelta(days=9)]))
def test_as_of_a_moment_equals_the_journal_of_all_answers_before_it(
    tmp_path_factory: pytest.TempPathFactory,
    answers: dict[datetime, list[tuple[datetime, int]]],
    repeated: bool,
    moment: datetime,
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    versions = history(
        BarVersion(ts, 5.0, 9.0, 1.0, float(close), close, known)
        for ts, found in answers.items()
        for known, close in dict(found).items()
    )
    for month in {f"{item.ts:%Y-%m}" for item in versions}:
        of_month = [item for item in versions if f"{item.ts:%Y-%m}" == month]
        current = [item for item in of_month if item.known_until is None]
        # With ``repeated``, the bars are read just before process replaces them, and the history just after.
        past = [item for item in of_month if item.known_until is not None]
        if repeated and past:
            superseded = {item.ts: item for item in past if item.revision == 0}
            current = [superseded.get(item.ts, item) for item in current]
            moment = min(
                moment,
                *(item.known_until - timedelta(microseconds=1) for item in superseded.values() if item.known_until),
            )
        lake.replace("AAPL", month, as_table(current, arrow_schema()))
        if past:
            lake.stage_file("run", lake.history_path("AAPL", month), as_table(past, history_schema()))
            lake.promote("run", [], [("AAPL", month)])
    found = barflow.read("AAPL", "2025-06-01", "2025-07-31", adjust="none", as_of=moment, lake=lake.root)
    journal = {
        ts: max((known, close) for known, close in dict(received).items() if known <= moment)[1]
        for ts, received in sorted(answers.items())
        if min(known for known, _ in received) <= moment
    }
    assert dict(zip(found["ts"].to_pylist(), found["volume"].to_pylist(), strict=True)) == journal
    assert found["ts"].to_pylist() == sorted(journal)
    if moment > MOMENTS[-1]:
        assert found == barflow.read("AAPL", "2025-06-01", "2025-07-31", adjust="none", lake=lake.root)


def as_table(versions: list[BarVersion], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "session_date": item.ts.date(),
                **{name: getattr(item, name) for name in schema.names if name != "session_date"},
            }
            for item in versions
        ],
        schema,
    )


def test_adjusted_prices_follow_the_actions_that_were_known(lake: Lake) -> None:
    late, corrected = LEARNED + timedelta(days=60), LEARNED + timedelta(days=50)
    paid = Dividend("AAPL", PAID, 2.5, "USD", "endpoint", late)
    store_actions(
        lake,
        "AAPL",
        [Version(split(2.0), corrected), Version(split(4.0, corrected)), Version(paid)],
        {"split", "dividend"},
    )
    raw = barflow.read("AAPL", FIRST, LAST, adjust="none", lake=lake.root)
    before = [row["close"] for row in raw.to_pylist() if row["session_date"] < PAID][-1]

    def expected(ratio: float, dividend: float) -> list[tuple[float, float]]:
        return [
            (
                row["close"]
                / (ratio if row["session_date"] < SPLIT else 1)
                * (dividend if row["session_date"] < PAID else 1),
                row["volume"] * (ratio if row["session_date"] < SPLIT else 1),
            )
            for row in raw.to_pylist()
        ]

    def close_and_volume(**arguments: Any) -> list[tuple[float, float]]:
        found = barflow.read("AAPL", FIRST, LAST, columns=["volume", "close"], lake=lake.root, **arguments)
        assert found.schema.names == ["volume", "close"]
        return [(row["close"], row["volume"]) for row in found.to_pylist()]

    for arguments, ratio, dividend in (
        ({}, 4.0, 1.0),
        ({"adjust": "all"}, 4.0, 1 - 2.5 / before),
        ({"adjust": "all", "as_of": late - timedelta(microseconds=1)}, 4.0, 1.0),
        ({"as_of": corrected - timedelta(seconds=1)}, 2.0, 1.0),
        ({"as_of": corrected}, 4.0, 1.0),
    ):
        for found, right in zip(close_and_volume(**arguments), expected(ratio, dividend), strict=True):
            assert found == pytest.approx(right, rel=1e-12), arguments
    # Prices are in the shares of the day of the moment: the split is known, and not in effect yet.
    eve = "2025-07-01T23:00-04:00"
    unsplit = barflow.read("AAPL", FIRST, LAST, as_of=eve, lake=lake.root)
    assert unsplit["close"].to_pylist() == raw["close"].to_pylist()[: unsplit.num_rows]


def test_a_dividend_is_measured_against_the_close_that_was_known(lake: Lake) -> None:
    """The close before the ex-date is revised from 50 to 100 dollars at noon of the ex-date."""
    revised = datetime(2025, 7, 8, 16, tzinfo=UTC)
    close = session(DAYS[DAYS.index(PAID) - 1]).slots[-1]  # type: ignore[union-attr]
    past = BarVersion(close, 80.0, 100.0, 50.0, 50.0, 7, close + timedelta(minutes=6), 0, revised)
    now = BarVersion(close, 80.0, 100.0, 50.0, 100.0, 7, revised, 1)
    lake.replace("PAYS", "2025-07", as_table([now], arrow_schema()))
    lake.stage_file("run", lake.history_path("PAYS", "2025-07"), as_table([past], history_schema()))
    lake.promote("run", [], [("PAYS", "2025-07")])
    store_actions(lake, "PAYS", [Version(Dividend("PAYS", PAID, 10.0, "USD", "file", LEARNED))], {"dividend"})
    for moment, right in ((revised - timedelta(seconds=1), 50 * 0.8), (revised, 100 * 0.9), (None, 100 * 0.9)):
        found = barflow.read("PAYS", FIRST, LAST, adjust="all", as_of=moment, lake=lake.root)
        assert found["close"].to_pylist() == pytest.approx([right], rel=1e-12)


def test_without_a_file_of_actions_splits_change_nothing_and_dividends_are_refused(lake: Lake) -> None:
    raw, adjusted = (barflow.read("AAPL", FIRST, LAST, adjust=adjust, lake=lake.root) for adjust in ("none", "splits"))
    assert raw["close"].to_pylist() == adjusted["close"].to_pylist()
    with pytest.raises(BadInputError, match="does not know the dividends of AAPL"):
        barflow.read("AAPL", FIRST, LAST, adjust="all", lake=lake.root)
    store_actions(lake, "AAPL", [Version(split())], {"split"})
    with pytest.raises(BadInputError, match="does not know the dividends of AAPL"):
        barflow.read("AAPL", FIRST, LAST, adjust="all", lake=lake.root)
    # It was asked for dividends, and there were none.
    store_actions(lake, "AAPL", [Version(split())], {"split", "dividend"})
    both = (barflow.read("AAPL", FIRST, LAST, adjust=adjust, lake=lake.root) for adjust in ("all", "splits"))
    assert next(both) == next(both)


def test_columns_that_are_not_asked_for_are_not_read(lake: Lake, tmp_path: Path) -> None:
    path = Path(lake.path("MSFT", "2025-07"))
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["open", "volume", "revision", "known_from"]), path)
    found = barflow.read("MSFT", "2025-07-01", LAST, columns=["close", "symbol"], lake=lake.root)
    assert (found.schema.names, found["symbol"][0].as_py()) == (["close", "symbol"], "MSFT")
    hours = barflow.read("MSFT", SPLIT, SPLIT, interval="1h", columns=["low", "bar_count"], lake=lake.root)
    assert hours["bar_count"].to_pylist() == [12, 12, 12, 12, 12, 12, 6]
    with pytest.raises(BarflowError, match=r"month=2025-07/bars.parquet could not be read"):
        barflow.read("MSFT", SPLIT, SPLIT, columns=["volume"], lake=lake.root)


@pytest.mark.parametrize("as_of", [None, datetime(2025, 7, 3, tzinfo=UTC)])
@pytest.mark.parametrize("interval", ["5min", *BUCKETS])
def test_each_column_alone_is_that_of_the_whole_table(lake: Lake, interval: Any, as_of: datetime | None) -> None:
    asked = {"symbols": ["AAPL", "MSFT"], "start": FIRST, "end": LAST, "interval": interval, "lake": lake.root}
    whole = barflow.read(**asked, as_of=as_of)
    assert whole.num_rows
    for name in whole.column_names:
        alone = barflow.read(**asked, as_of=as_of, columns=[name])
        assert alone.equals(whole.select([name])), name


def test_files_of_earlier_releases_are_known_since_they_were_written(lake: Lake) -> None:
    path = Path(lake.path("MSFT", "2025-06"))
    pq.write_table(pq.ParquetFile(path).read().drop_columns("known_from"), path)
    written = datetime(2025, 8, 1, 12, tzinfo=UTC)
    os.utime(path, (written.timestamp(), written.timestamp()))
    found = barflow.read("MSFT", "2025-06-30", "2025-06-30", lake=lake.root)
    assert {*found["known_from"].to_pylist()} == {written}
    assert not barflow.read("MSFT", "2025-06-30", "2025-06-30", as_of=written - timedelta(seconds=1), lake=lake.root)


def test_a_range_without_bars_is_an_empty_table_with_the_same_columns(lake: Lake) -> None:
    for arguments in ({}, {"interval": "1h"}, {"as_of": "2024-01-01T00:00Z"}, {"adjust": "none", "columns": ["close"]}):
        empty = barflow.read(["MSFT", "AAPL"], "2025-07-05", "2025-07-06", lake=lake.root, **arguments)
        full = barflow.read("MSFT", FIRST, LAST, lake=lake.root, **{**arguments, "as_of": None})
        assert (empty.num_rows, empty.schema) == (0, full.schema)


WRONG = [
    ({"interval": "2h"}, "interval '2h' does not exist. Choose 5min, 15min, 30min, 1h, 1d, 1w."),
    ({"adjust": "split"}, "adjust 'split' does not exist. Choose none, splits, all."),
    ({"end": "2025-06-01"}, "end 2025-06-01 is before start 2025-06-26."),
    ({"start": "1 July"}, "start '1 July' is not a day. Write it such as 2025-07-02."),
    ({"start": datetime(2025, 7, 1)}, "start datetime.datetime(2025, 7, 1, 0, 0) is not a day"),
    ({"end": "2099-01-01"}, "no exchange calendar for 2099-01-01"),
    ({"as_of": "2025-07-01T12:00"}, "the moment 2025-07-01T12:00 has no offset from UTC. Write it such as 2026-"),
    ({"as_of": datetime(2025, 7, 1)}, "the moment 2025-07-01 00:00:00 has no offset from UTC"),
    ({"as_of": "yesterday"}, "'yesterday' is not a moment. Write one such as"),
    ({"as_of": "0001-01-01T00:00+09:00"}, "'0001-01-01T00:00+09:00' is not a moment"),
    ({"columns": ["close", "vwap"]}, "bars of 5min have no column 'vwap'. Choose symbol, ts, session_date, open"),
    ({"columns": "closes"}, "bars of 5min have no column 'closes'"),
    ({"columns": []}, "columns must name at least one column, and each once."),
    ({"columns": ["ts", "ts"]}, "columns must name at least one column, and each once."),
    ({"symbols": []}, "symbols must be one symbol or several, such as AAPL or ['AAPL', 'MSFT']."),
    ({"symbols": [7]}, "symbols must be one symbol or several"),
    ({"symbols": None}, "symbols must be one symbol or several"),
    ({"symbols": ["", " "]}, "symbols must be one symbol or several"),
    ({"columns": 5}, "columns must be one column or several, such as close or ['ts', 'close']."),
    ({"symbols": "../etc"}, "is not a symbol: use letters"),
    ({"symbols": ["AAPL", "IBM", "GE"]}, "has no bars of GE, IBM. Check the spelling, or fetch them with"),
    ({"lake": "/nowhere/lake"}, "there is no archive at /nowhere/lake: it has no folder bars_5min."),
    ({"lake": "~no-such-user/lake"}, "/~no-such-user/lake: it has no folder bars_5min."),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_arguments_are_refused_in_one_line(lake: Lake, arguments: dict[str, Any], message: str) -> None:
    given = {"symbols": "AAPL", "start": FIRST, "end": LAST, "lake": lake.root, **arguments}
    with pytest.raises(BadInputError) as caught:
        barflow.read(**given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_named(lake: Lake) -> None:
    path = Path(lake.path("AAPL", "2025-06"))
    for damaged in (
        b"PAR1 no more",
        path.read_bytes()[:-40],
        path.read_bytes()[:300] + bytes(900) + path.read_bytes()[1200:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(
            BarflowError,
            match=r"AAPL/month=2025-06/bars.parquet could not be read .* restore its .* move the file away",
        ):
            barflow.read(["AAPL", "MSFT"], FIRST, LAST, lake=lake.root)


def test_the_archive_lists_its_symbols_actions_and_sessions(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # META's last day under its former symbol.
    fill(lake, "BRK/B", rows(DAYS[:1], 100))
    fill(lake, "FB", rows([date(2022, 6, 8)], 100))
    paid = Dividend("MSFT", PAID, 0.5, "USD", "file", LEARNED)
    earlier: list[Action] = [split(2.0), split(4.0, LEARNED + timedelta(days=1))]
    store_actions(lake, "AAPL", [Version(earlier[0], earlier[1].known_from), Version(earlier[1])], {"split"})
    store_actions(lake, "MSFT", [Version(paid)], {"dividend"})
    monkeypatch.setenv("BARFLOW_LAKE_URI", lake.root)
    # Files that a file manager or another program leaves are not the archive's.
    for name in (".DS_Store", "_SUCCESS", "symbol=AAPL/month=2025-06/._bars.parquet"):
        (Path(lake.root) / "bars_5min" / name).write_text("another program's")
    assert barflow.symbols() == ["AAPL", "BRK/B", "META", "MSFT"]
    assert barflow.read("AAPL", FIRST, FIRST).num_rows == 74
    assert [(row["symbol"], row["ratio"], row["amount"]) for row in barflow.actions().to_pylist()] == [
        ("AAPL", 4.0, None),
        ("MSFT", None, 0.5),
    ]
    then = barflow.actions("AAPL", as_of=LEARNED)
    assert (then["ratio"].to_pylist(), then["kind"].to_pylist()) == ([2.0], ["split"])
    assert barflow.actions("META").num_rows == 0
    assert barflow.sessions("2025-07-03", "2025-07-06").to_pylist() == [
        {
            "session_date": date(2025, 7, 3),
            "opens": datetime(2025, 7, 3, 13, 30, tzinfo=UTC),
            "closes": datetime(2025, 7, 3, 17, tzinfo=UTC),
            "expected_bars": 42,
        }
    ]
    # Without a setting: the lake of the state folder.
    monkeypatch.delenv("BARFLOW_LAKE_URI")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=r"no archive at .*/\.barflow/lake: .* run `barflow demo` to make one"):
        barflow.symbols()
    (tmp_path / ".barflow").mkdir()
    Path(lake.root).rename(".barflow/lake")
    assert barflow.read("fb", "2022-06-08", "2022-06-09")["symbol"].unique().to_pylist() == ["META"]
