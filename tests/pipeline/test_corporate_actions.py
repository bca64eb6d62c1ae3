"""Corporate actions: raw bars never change, and adjusted prices and metrics equal an oracle whenever actions arrive."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from harness import AGGREGATE, PROCESS, Pipeline, random_session, revised, succeeded

from barflow.lake.actions import read_actions
from barflow.market.actions import Action, Dividend, Kind, Split
from barflow.market.bars import BAR_TABLES
from barflow.market.sessions import sessions_between
from barflow.market.vendor_days import VendorDay
from barflow.staging.actions import Actions, Answer
from rehearsal.oracle import Oracle, differences, disagreements, read_table

DAYS = [item.session_date for item in sessions_between(date(2025, 7, 1), date(2025, 12, 31))]
SYMBOLS = ("AAPL", "FB", "GE", "META", "MSFT", "NVDA")
# The columns of bar_1d_adjusted by the oracle. The basis is the newest session of a symbol.
ADJUSTED = """
with newest as (select symbol, max(session_date) as basis from named_bar_1d group by 1),
dividend_factors as (
    select d.symbol, d.ex_date, 1 - d.amount
        * coalesce((select product(s.ratio) from splits s where s.symbol = d.symbol and s.ex_date = d.ex_date), 1)
        / (
            select arg_max(b.close, b.session_date) from named_bar_1d b
            where b.symbol = d.symbol and b.session_date < d.ex_date
        ) as factor
    from dividends d
)
select b.symbol, b.bar_start, b.session_date, b.open / s as open, b.high / s as high, b.low / s as low,
    b.close / s as close, b.volume * s as volume, b.vwap / s as vwap, b.bar_count, b.expected_bars, b.is_complete,
    b.open / s * d as open_all, b.high / s * d as high_all, b.low / s * d as low_all, b.close / s * d as close_all
from (
    select b.*,
        coalesce((select product(x.ratio) from splits x where x.symbol = b.symbol
            and x.ex_date > b.session_date and x.ex_date <= n.basis), 1) as s,
        coalesce((select product(x.factor) from dividend_factors x where x.symbol = b.symbol
            and x.ex_date > b.session_date and x.ex_date <= n.basis), 1) as d
    from named_{table} b join newest n using (symbol)
) b
"""


def split(symbol: str, day: date, ratio: float) -> Split:
    return Split(symbol, day, ratio, "endpoint", datetime.now(UTC))


def dividend(symbol: str, day: date, amount: float) -> Dividend:
    return Dividend(symbol, day, amount, "USD", "endpoint", datetime.now(UTC))


def learn(pipeline: Pipeline, symbol: str, *actions: Action) -> None:
    """Stage a complete answer with these actions: others of the symbol are withdrawn."""
    now = datetime.now(UTC)
    kinds: tuple[Kind, ...] = ("split", "dividend")
    answers = [
        Answer(symbol, kind, [item for item in actions if item.kind == kind], "endpoint", now, now) for kind in kinds
    ]
    Actions(pipeline.database).store(answers)


def load(pipeline: Pipeline) -> str:
    """Publish and load what is new. Return the load's id."""
    pipeline.process()
    return str(pipeline.aggregate()["run_id"])


def quick_load(pipeline: Pipeline) -> str:
    """Publish and load actions, which must start no Spark. Return what the load printed."""
    processed = pipeline.run(PROCESS)
    loaded = pipeline.run(AGGREGATE)
    assert succeeded(processed)["outcome"] == "published"
    assert succeeded(loaded)["outcome"] == "loaded"
    assert "starting Spark" not in processed.stderr + loaded.stderr
    return loaded.stderr


def raw(pipeline: Pipeline) -> tuple[Any, ...]:
    """Return every byte of the archive's bars, every raw row, and every staged session."""
    files = {str(path): path.read_bytes() for path in Path(pipeline.lake.root).glob("bars_5min/**/*.parquet")}
    rows = {table: pipeline.rows(f"market.{table}") for table in BAR_TABLES}
    return files, rows, sorted(pipeline.database["bars"].find(), key=lambda item: str(item["_id"]))


def rewritten(pipeline: Pipeline, load_id: str) -> dict[str, list[date]]:
    """Return the sessions whose metrics a load wrote, by symbol."""
    found: dict[str, list[date]] = {}
    for (symbol, day), loads in sorted(pipeline.load_ids("daily_metrics").items()):
        if loads == {load_id}:
            found.setdefault(symbol, []).append(day)
    return found


def check_adjusted(pipeline: Pipeline, oracle: Oracle, dividends: Iterable[Dividend]) -> None:
    """Assert that every adjusted view equals the oracle, and that adjusting and aggregating commute."""
    oracle.db.execute("create or replace table dividends (symbol text, ex_date date, amount double)")
    for item in dividends:
        oracle.db.execute("insert into dividends values (?, ?, ?)", (item.symbol, item.ex_date, item.amount))
    former = pipeline_rows(pipeline, "select symbol, former, last_day from market.former_symbol")
    for table in sorted(BAR_TABLES):
        oracle.db.execute(f"create or replace table named_{table} as select * from {table}")
        for row in former:
            oracle.db.execute(f"update named_{table} set symbol = ? where symbol = ? and session_date <= ?", row)
    for table in BAR_TABLES:
        oracle.db.execute(f"create or replace view {table}_adjusted as {ADJUSTED.format(table=table)}")
        found = differences(read_table(pipeline.warehouse_dsn, f"{table}_adjusted"), oracle.table(f"{table}_adjusted"))
        assert found == [], table
    commuted = pipeline_rows(
        pipeline,
        """
        select count(*) from (
            select symbol, session_date, max(high) as high, min(low) as low, sum(volume) as volume,
                (array_agg(close_all order by bar_start desc))[1] as close_all
            from market.bar_5min_adjusted group by 1, 2
        ) as a full join market.bar_1d_adjusted as d using (symbol, session_date)
        where (abs(a.high / d.high - 1) < 1e-9 and abs(a.low / d.low - 1) < 1e-9
            and abs(a.volume / d.volume - 1) < 1e-9 and abs(a.close_all / d.close_all - 1) < 1e-9) is not true
        """,
    )
    assert commuted == [(0,)]


def pipeline_rows(pipeline: Pipeline, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(pipeline.warehouse_dsn) as connection:
        return connection.execute(query.encode()).fetchall()


def test_late_changed_and_withdrawn_actions_adjust_prices_and_metrics_and_no_bar(pipeline: Pipeline) -> None:
    days = DAYS[:110]
    last_of_fb = days[39]
    bars = [
        random_session(symbol, str(day), bars=7)
        for symbol in SYMBOLS
        for day in days
        if (symbol != "FB" or day <= last_of_fb) and (symbol != "META" or day > last_of_fb)
    ]
    with psycopg.connect(pipeline.warehouse_dsn) as connection:
        connection.execute("insert into market.former_symbol values ('FB', 'META', %s)", [last_of_fb])
    pipeline.stage(bars)
    first = load(pipeline)
    assert disagreements(pipeline.warehouse_dsn, Oracle.of_sessions(bars)) == {}
    before = raw(pipeline)

    # Learned late: splits of three symbols, and dividends, which change no metric.
    nvda, reverse, spin_off = split("NVDA", days[55], 10), split("GE", days[30], 1 / 8), split("GE", days[90], 1.281)
    paid = [dividend("AAPL", days[index], 0.25 + index / 100) for index in (12, 40, 66, 101)]
    paid.append(dividend("META", days[40], 0.5))  # the close before it is FB's
    paid.append(dividend("GE", days[90], 1.5))  # on the day of the spin-off
    learn(pipeline, "AAPL", *paid[:4])
    learn(pipeline, "META", paid[4])
    assert "dividend is not applied" not in quick_load(pipeline)
    check_adjusted(pipeline, Oracle.of_sessions(bars), paid[:5])
    assert rewritten(pipeline, first).keys() == {*SYMBOLS}

    learn(pipeline, "NVDA", nvda)
    learn(pipeline, "GE", reverse, spin_off, paid[5])
    late = load(pipeline)
    oracle = Oracle.of_sessions(bars, [(item.symbol, item.ex_date, item.ratio) for item in (nvda, reverse, spin_off)])
    assert disagreements(pipeline.warehouse_dsn, oracle) == {}
    check_adjusted(pipeline, oracle, paid)
    assert rewritten(pipeline, late) == {"GE": [*days[30:80], *days[90:110]], "NVDA": days[55:105]}
    assert raw(pipeline) == before

    # Changed and withdrawn.
    changed = split("NVDA", days[55], 4)
    learn(pipeline, "NVDA", changed)
    learn(pipeline, "GE", reverse, paid[5])
    again = load(pipeline)
    oracle = Oracle.of_sessions(bars, [(item.symbol, item.ex_date, item.ratio) for item in (changed, reverse)])
    assert disagreements(pipeline.warehouse_dsn, oracle) == {}
    check_adjusted(pipeline, oracle, paid)
    assert rewritten(pipeline, again) == {"GE": days[90:110], "NVDA": days[55:105]}
    assert raw(pipeline) == before
    versions = pipeline_rows(
        pipeline, "select ratio, known_until is null from market.corporate_action where symbol = 'NVDA' order by ratio"
    )
    assert versions == [(4.0, True), (10.0, False)]

    # A full load gives the same rows.
    incremental = {table: pipeline.rows(f"market.{table}") for table in ("corporate_action", "adjustment")}
    pipeline.aggregate("--full")
    assert disagreements(pipeline.warehouse_dsn, oracle) == {}
    for table, rows in incremental.items():
        assert {row[:-1] for row in pipeline.rows(f"market.{table}")} == {row[:-1] for row in rows}


def test_an_action_that_is_known_before_its_day_takes_effect_with_the_first_session(pipeline: Pipeline) -> None:
    days = DAYS[:8]
    bars = {day: random_session("NVDA", str(day), bars=7) for day in days}
    due = (split("NVDA", days[5], 10), dividend("NVDA", days[5], 0.1))
    pipeline.stage(bars[day] for day in days[:5])
    learn(pipeline, "NVDA", *due)
    load(pipeline)
    assert pipeline.rows("market.adjustment") == []
    pipeline.stage([bars[days[5]]])
    load(pipeline)
    known = Oracle.of_sessions([bars[day] for day in days[:6]], [("NVDA", days[5], 10.0)])
    assert disagreements(pipeline.warehouse_dsn, known) == {}
    check_adjusted(pipeline, known, due[1:])
    # A correction of the close before the dividend, which a later session does not touch again.
    bars[days[4]] = revised(bars[days[4]], 6, close=bars[days[4]].low[6])
    pipeline.stage([bars[days[4]], bars[days[6]]])
    load(pipeline)
    known = Oracle.of_sessions([bars[day] for day in days[:7]], [("NVDA", days[5], 10.0)])
    assert disagreements(pipeline.warehouse_dsn, known) == {}
    check_adjusted(pipeline, known, due[1:])
    before = pipeline.rows("market.adjustment")
    pipeline.stage([bars[days[7]]])
    load(pipeline)
    assert pipeline.rows("market.adjustment") == before  # with its load_id: nothing was computed again


def test_a_dividend_without_a_close_before_it_leaves_earlier_factors_empty(pipeline: Pipeline) -> None:
    days = [*DAYS[:4], *DAYS[5:9]]
    pipeline.stage(random_session("AAPL", str(day), bars=7) for day in days)
    learn(pipeline, "AAPL", dividend("AAPL", DAYS[5], 0.25), dividend("AAPL", DAYS[7], 0.5), split("AAPL", DAYS[2], 2))
    pipeline.process()
    ran = pipeline.run(AGGREGATE)
    assert ran.code == 0
    assert f"AAPL {DAYS[5]}: the dividend is not applied" in ran.stderr
    shown = "select session_date, close_all is null, close from market.bar_1d_adjusted order by 1"
    raw_closes = dict(pipeline_rows(pipeline, "select session_date, close from market.bar_1d"))
    assert pipeline_rows(pipeline, shown) == [
        (day, day < DAYS[5], raw_closes[day] / (2 if day < DAYS[2] else 1)) for day in days
    ]
    pipeline.stage([random_session("AAPL", str(DAYS[4]), bars=7)])
    load(pipeline)
    assert pipeline_rows(pipeline, "select count(*) from market.adjustment where dividend is null") == [(0,)]


def test_vendor_days_are_loaded_without_spark_and_compared(pipeline: Pipeline) -> None:
    bars = random_session("AAPL", str(DAYS[0]))
    pipeline.stage([bars])
    load(pipeline)
    total, asked = sum(bars.volume), datetime(2025, 12, 1, tzinfo=UTC)
    vendor = VendorDay(
        "AAPL", DAYS[0], bars.open[0] / 1.001, max(bars.high), min(bars.low), bars.close[-1], total * 2, asked
    )
    documents = pipeline.database["vendor_days"]

    def stage(day: VendorDay) -> None:
        key = f"{day.symbol}|{day.session_date}"
        values = {**vars(day), "session_date": str(day.session_date), "updated_at": datetime.now(UTC)}
        documents.replace_one({"_id": key}, {"_id": key, **values}, upsert=True)

    stage(vendor)
    quick_load(pipeline)
    (row,) = pipeline_rows(
        pipeline, "select round(open_bps::numeric, 6), high_bps, close_bps, volume_pct, complete from ops.vendor_day"
    )
    assert (float(row[0]), *row[1:]) == (10.0, 0.0, 0.0, -50.0, True)
    assert pipeline.run(PROCESS).result["outcome"] == "nothing changed"
    # A day without our bars, and an older answer that arrives late.
    stage(VendorDay("MSFT", DAYS[0], 1, 2, 1, 2, 9, asked))
    stage(VendorDay("AAPL", DAYS[0], 1, 2, 1, 2, 9, asked - timedelta(days=1)))
    quick_load(pipeline)
    shown = "select symbol, close_bps, complete from ops.vendor_day order by 1"
    assert pipeline_rows(pipeline, shown) == [("AAPL", 0.0, True), ("MSFT", None, False)]


def test_full_publishes_all_actions_again_and_a_new_warehouse_gets_them(pipeline: Pipeline) -> None:
    pipeline.stage([random_session(symbol, str(DAYS[0]), bars=7) for symbol in ("AAPL", "MSFT")])
    learn(pipeline, "AAPL", dividend("AAPL", DAYS[1], 0.25))
    learn(pipeline, "MSFT")  # fetched, and without any action
    done = pipeline.process()
    assert (done["actions"], pipeline.process()["outcome"]) == (2, "nothing changed")
    assert [read_actions(pipeline.lake, symbol).kinds for symbol in ("AAPL", "MSFT")] == [{"split", "dividend"}] * 2
    assert pipeline.process("--full")["actions"] == 2
    assert pipeline.process("--full", "--symbols", "MSFT")["actions"] == 1
    pipeline.aggregate("--full")
    assert len(pipeline.rows("market.corporate_action")) == 1


def test_documents_of_an_earlier_release_are_published_once(pipeline: Pipeline) -> None:
    pipeline.stage([random_session("AAPL", str(DAYS[0]), bars=7)])
    learn(pipeline, "AAPL", split("AAPL", DAYS[1], 2))
    pipeline.process()
    pipeline.database["corporate_actions"].update_one({"_id": "AAPL"}, {"$unset": {"updated_at": ""}})
    assert pipeline.process()["actions"] == 1
    assert pipeline.process()["outcome"] == "nothing changed"
