"""A renamed share is one series under its present name, and every stored bar keeps the name under which it arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from alert_ticks import answer, at, hop, ids, rules
from clients import Command
from harness import lake_table, publish_actions
from pymongo.database import Database
from ticks import ingest, scripted
from twelvedata_calls import CLOCK

from barflow.alerts.tick import Alerts
from barflow.errors import BadInputError
from barflow.lake.partitions import Lake
from barflow.market.actions import Dividend, Split
from barflow.market.arrow import arrow_schema
from barflow.market.instruments import Instruments, parse_instruments
from barflow.market.sessions import session
from barflow.operations.ticks import run_tick, session_staleness
from barflow.pipeline import backfill
from barflow.pipeline.actions import import_file
from barflow.pipeline.backfill import Skipped
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.staging.connection import Document
from barflow.staging.quarantine import Quarantine
from barflow.twelvedata.client import Answer as Received
from barflow.warehouse.former_symbols import keep_former_symbols
from emulators.twelvedata.server import TwelveDataEmulator

LEARNED = datetime(2022, 7, 1, tzinfo=UTC)
MAY31, JUN7, JUN8, JUN9, JUN10 = (date(2022, 5, 31), *(date(2022, 6, day) for day in (7, 8, 9, 10)))
IS_META = "FB is META today: it was FB until 2022-06-08"


def bars(closes: dict[date, float]) -> pa.Table:
    """Return the first two bars of each session."""
    rows = [
        {
            "ts": traded.slots[number],
            "session_date": day,
            **{"open": close, "high": close + 1, "low": close - 1, "close": close + number / 2},
            **{"volume": 100 + number},
        }
        for day, close in closes.items()
        if (traded := session(day))
        for number in range(2)
    ]
    return lake_table(rows)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    made.replace("FB", "2022-05", bars({MAY31: 193.0}))
    # Another share has the ticker FB from June 9. The vendor served June 8 under both names.
    made.replace("FB", "2022-06", bars({JUN7: 195.0, JUN8: 196.0, JUN9: 20.0}))
    made.replace("META", "2022-06", bars({JUN8: 196.5, JUN9: 184.0, JUN10: 175.0}))
    return made


def export(barflow: Command, folder: Path, symbol: str, *arguments: str) -> tuple[pa.Table, str]:
    """Export the sessions from May 31 to June 10. Return the file's rows, and what the command logs."""
    target = folder / f"{symbol}.parquet"
    code, _, logged = barflow(
        *("export", "--symbol", symbol, "--start", "2022-05-31", "--end", "2022-06-10"),
        *("--to", str(target), "--force", *arguments),
    )
    assert code == 0, logged
    return pq.read_table(target), logged


class TestExport:
    def test_it_is_the_former_names_sessions_and_then_the_present_ones(self, barflow: Command, tmp_path: Path) -> None:
        found, logged = export(barflow, tmp_path, "META")
        # Of June 8, which both names hold, the newest name counts. FB's June 9 is another share.
        whole = bars({MAY31: 193.0, JUN7: 195.0, JUN8: 196.5, JUN9: 184.0, JUN10: 175.0})
        assert found.drop(["symbol"]).cast(arrow_schema()).equals(whole)
        assert {*found["symbol"].to_pylist()} == {"META"}
        assert IS_META not in logged
        assert "no bars of META in 4 sessions: 2022-06-01 to 2022-06-06" in logged

    def test_the_former_name_means_the_same_share_and_the_command_says_so(
        self, barflow: Command, tmp_path: Path
    ) -> None:
        found, logged = export(barflow, tmp_path, "fb")
        assert logged.splitlines()[0] == IS_META
        assert found.equals(export(barflow, tmp_path, "META")[0])

    def test_a_ticker_that_another_share_has_today_means_that_share(
        self, barflow: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "instruments.toml"
        file.write_text(
            '[[instrument]]\nsymbol = "META"\nformer = [{ symbol = "FB", last_day = 2022-06-08 }]\n'
            '[[instrument]]\nsymbol = "FB"\nfirst_session = 2022-06-09\nlast_session = 2022-06-09\n'
        )
        monkeypatch.setenv("BARFLOW_INSTRUMENTS_FILE", str(file))
        found, logged = export(barflow, tmp_path, "FB")
        assert found.drop(["symbol"]).cast(arrow_schema()).equals(bars({JUN9: 20.0}))
        assert (IS_META in logged, "no bars" in logged) == (False, False)

    @pytest.mark.parametrize("adjust", ["splits", "all"])
    def test_the_actions_of_the_present_name_adjust_the_sessions_of_the_former_one(
        self, barflow: Command, tmp_path: Path, lake: Lake, adjust: str
    ) -> None:
        split, paid = (
            Split("META", JUN9, 2.0, "endpoint", LEARNED),
            Dividend("META", JUN8, 1.95, "USD", "endpoint", LEARNED),
        )
        publish_actions(lake, "META", split, paid)
        found, _ = export(barflow, tmp_path, "FB", "--adjust", adjust)
        factor = 1 - 1.95 / 195.5 if adjust == "all" else 1.0  # FB's close of June 7
        expected = [193.0 / 2 * factor, 195.0 / 2 * factor, 196.5 / 2, 184.0, 175.0]
        assert found["open"].to_pylist()[::2] == pytest.approx(expected)


# AAPL was OLD until June 30, 2025. GONE was delisted on the same day. The emulator's clock is at July 2.
TEXT = """
[[instrument]]
symbol = "AAPL"
former = [{ symbol = "OLD", last_day = 2025-06-30 }]
[[instrument]]
symbol = "GONE"
first_session = 2025-06-05
last_session = 2025-06-30
"""
JUN27, JUN30, JUL1, JUL2 = date(2025, 6, 27), date(2025, 6, 30), date(2025, 7, 1), date(2025, 7, 2)


@pytest.fixture
def stores(
    market: TwelveDataEmulator, database: Database[Document], mongodb_uri: str, tmp_path: Path
) -> Callable[..., Stores]:
    """Return the function that opens the stores with these instruments."""
    file = tmp_path / "renamed.toml"
    file.write_text(TEXT)

    def start(**options: object) -> Stores:
        settings = load_settings(
            mongodb_uri=mongodb_uri, mongodb_database=database.name, twelvedata_url=market.url,
            twelvedata_api_key="emulator-key", credits_per_minute=1000, credits_per_day=None, instruments_file=file,
            **options,
        )  # fmt: skip
        return Stores(settings, clock=CLOCK)

    return start


def arrive_as_old(market: TwelveDataEmulator, database: Database[Document], *days: date) -> None:
    """Stage sessions that arrived under OLD: before the rename, the vendor knew no other name."""
    for day in days:
        traded = session(day)
        assert traded
        ingest(market, database).tick(["OLD"], window=(traded.opens, traded.slots[-1]))
    market.requests.clear()


def sessions_of(database: Database[Document], symbol: str) -> list[str]:
    return [item["session_date"] for item in database["bars"].find({"symbol": symbol}, sort=[("session_date", 1)])]


def asked(market: TwelveDataEmulator) -> set[str]:
    return {symbol for call in market.requests for symbol in call.symbols}


class TestTicks:
    def test_a_new_name_continues_where_the_former_one_ended(
        self, stores: Callable[..., Stores], market: TwelveDataEmulator, database: Database[Document]
    ) -> None:
        arrive_as_old(market, database, JUN27, JUN30)
        before = [*database["bars"].find({"symbol": "OLD"}, sort=[("_id", 1)])]
        report = run_tick(stores(), ("OLD", "AAPL"), print, lambda _: None)
        assert asked(market) == {"AAPL"}
        assert report.notes["OLD"] == ["asked for as AAPL, its symbol since 2025-07-01"]
        # The revision window of two sessions, and not the history of twenty.
        assert sessions_of(database, "AAPL") == ["2025-06-26", "2025-06-27", "2025-06-30", "2025-07-01", "2025-07-02"]
        assert [*database["bars"].find({"symbol": "OLD"}, sort=[("_id", 1)])] == before
        # The splits and dividends of a share are staged under its present name only.
        assert {call.path for call in market.requests} >= {"/splits", "/dividends"}

    def test_a_delisted_share_is_not_asked_for_and_is_not_late(
        self, stores: Callable[..., Stores], market: TwelveDataEmulator, database: Database[Document]
    ) -> None:
        opened, metrics = stores(), []
        report = run_tick(opened, ("GONE", "AAPL"), print, metrics.append)
        assert asked(market) == {"AAPL"}
        assert report.notes["GONE"] == ["not asked for: its last session was 2025-06-30"]
        assert "GONE: not asked for: its last session was 2025-06-30" in opened.ledger.last("ingest")["notes"]
        assert {item.dimensions.get("Symbol") for item in metrics} == {None, "AAPL"}
        assert session_staleness(opened, ("GONE", "AAPL"), CLOCK()) == session_staleness(opened, ("AAPL",), CLOCK())
        market.requests.clear()
        assert run_tick(opened, ("GONE",), print, metrics.append).counts == {}
        assert (asked(market), session_staleness(opened, ("GONE",), CLOCK())) == (set(), None)
        assert database["alerts"].count_documents({}) == 0


class TestBackfill:
    def test_sessions_of_the_former_name_count_as_stored(
        self, stores: Callable[..., Stores], market: TwelveDataEmulator, database: Database[Document]
    ) -> None:
        arrive_as_old(market, database, JUN27, JUN30)
        report = backfill.run(stores(), ("AAPL",), JUN27, JUN30, print, lambda _: None)
        assert (report.skipped, asked(market), sessions_of(database, "AAPL")) == (Skipped(stored=2), set(), [])
        again = backfill.run(stores(), ("AAPL",), JUN27, JUN30, print, lambda _: None, again=True)
        assert (again.skipped, asked(market)) == (Skipped(), {"AAPL"})
        assert sessions_of(database, "AAPL") == sessions_of(database, "OLD") == ["2025-06-27", "2025-06-30"]

    def test_sessions_outside_of_a_listing_are_not_asked_for(
        self, stores: Callable[..., Stores], market: TwelveDataEmulator
    ) -> None:
        logged: list[str] = []
        report = backfill.run(stores(), ("GONE",), JUL1, JUL2, logged.append, lambda _: None)
        assert (report.skipped, asked(market)) == (Skipped(not_listed=2), set())
        assert logged == ["skipped 2 sessions: 2 outside of the listing."]


class TestFormerNamesInCommands:
    @pytest.fixture(autouse=True)
    def _renamed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "own.toml").write_text(TEXT)
        monkeypatch.setenv("BARFLOW_INSTRUMENTS_FILE", str(tmp_path / "own.toml"))

    def test_a_row_of_an_imported_file_is_stored_under_the_present_name(
        self, stores: Callable[..., Stores], barflow: Command, database: Database[Document], tmp_path: Path
    ) -> None:
        file = tmp_path / "actions.csv"
        file.write_text("symbol,kind,ex_date,ratio,amount\nOLD,split,2025-06-10,4,\nAAPL,split,2025-07-01,2,\n")
        import_file(stores(), file)
        assert [item["_id"] for item in database["corporate_actions"].find()] == ["AAPL"]
        code, out, logged = barflow("actions", "list", "--symbols", "OLD", "--json")
        assert (code, out.count('"symbol": "AAPL"')) == (0, 2)
        assert logged.splitlines()[0] == "OLD is AAPL today: it was OLD until 2025-06-30"
        file.write_text("symbol,kind,ex_date,ratio,amount\nOLD,split,2025-06-10,4,\nAAPL,split,2025-06-10,2,\n")
        with pytest.raises(BadInputError, match="line 3: another row has the same symbol, kind and ex_date"):
            import_file(stores(), file)

    def test_filters_find_what_is_stored_under_any_name(
        self, barflow: Command, database: Database[Document], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: dict[str, object] = {}
        monkeypatch.setattr(Quarantine, "find", lambda self, names, *_, **__: seen.update(rejected=names) or [])
        assert barflow("rejected", "list", "--symbols", "OLD,MSFT", "--json")[0] == 0
        assert seen["rejected"] == ["AAPL", "OLD", "MSFT"]
        database["alerts"].insert_many(
            {"_id": f"gap|{name}", "symbol": name, "rule": "gap", "bar_start": CLOCK()}
            for name in ("OLD", "AAPL", "FB")
        )
        code, out, _ = barflow("alerts", "list", "--symbols", "AAPL", "--json")
        assert (code, out.count("gap|OLD"), out.count("gap|AAPL"), out.count("gap|FB")) == (0, 1, 1, 0)


class TestWarehouse:
    @pytest.fixture
    def warehouse(self, warehouse_dsn: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """Yield a connection to a warehouse that holds June 8 under three names of one share."""
        rows = [
            ("F", JUN7, 1),
            ("F", JUN8, 2),
            ("FB", JUN8, 3),
            ("FB", JUN9, 20),
            ("META", JUN8, 4),
            ("META", JUN10, 5),
        ]
        with psycopg.connect(warehouse_dsn, autocommit=True) as connection:
            for table in ("bar_5min", "bar_30min", "bar_1h", "bar_1d"):
                connection.cursor().executemany(
                    f"insert into market.{table} (symbol, session_date, bar_start, open, high, low, close, volume, "
                    "bar_count, expected_bars, load_id) values (%s, %s, %s, %s, %s, %s, %s, 100, 1, 1, 'test')",
                    [(name, day, f"{day} 13:30Z", *[price] * 4) for name, day, price in rows],
                )
            yield connection

    @pytest.mark.parametrize("interval", ["5min", "30min", "1h", "1d"])
    def test_the_views_take_each_session_once_from_the_newest_name(
        self, warehouse: psycopg.Connection[tuple[Any, ...]], interval: str
    ) -> None:
        keep_former_symbols(warehouse, {"F": ("META", JUN7), "FB": ("META", JUN8)})
        view = f"select symbol, session_date, open from market.bar_{interval}_adjusted"
        series = f"{view} where symbol = 'META' order by bar_start"
        assert warehouse.execute(series).fetchall() == [("META", JUN7, 1.0), ("META", JUN8, 4.0), ("META", JUN10, 5.0)]
        warehouse.execute("delete from market.bar_1d where symbol = 'META' and session_date = %s", [JUN8])
        warehouse.execute(f"delete from market.bar_{interval} where symbol = 'META' and session_date = %s", [JUN8])
        assert warehouse.execute(series).fetchall()[1] == ("META", JUN8, 3.0)
        # Bars under a former symbol after its last day are another share's.
        assert warehouse.execute(f"{view} where symbol in ('F', 'FB') order by 1").fetchall() == [
            ("F", JUN8, 2.0),
            ("FB", JUN9, 20.0),
        ]

    def test_the_table_of_former_symbols_is_that_of_the_instruments(
        self, warehouse: psycopg.Connection[tuple[Any, ...]]
    ) -> None:
        query = "select former, symbol, last_day, xmin::text from market.former_symbol order by 1"
        keep_former_symbols(warehouse, {"F": ("META", JUN7), "FB": ("META", JUN8), "X": ("Y", JUN8)})
        before = warehouse.execute(query).fetchall()
        keep_former_symbols(warehouse, {"F": ("META", JUN7), "FB": ("META", JUN9)})
        after = warehouse.execute(query).fetchall()
        assert [row[:3] for row in after] == [("F", "META", JUN7), ("FB", "META", JUN9)]
        assert after[0] == before[0], "a row that did not change was written"


class TestAlerts:
    BEFORE, DAY = date(2025, 7, 29), date(2025, 7, 30)
    GAP = {"id": "gap", "kind": "gap", "percent": 5.0}  # noqa: RUF012
    SILENCE = {"id": "quiet", "kind": "silence", "minutes": 30}  # noqa: RUF012

    def tick(
        self, database: Database[Document], instruments: Instruments, *answers: Received, slot: int, day: date
    ) -> None:
        """Run a tick that gets these answers, in the middle of a session."""
        now = at(slot, day)
        running = hop(database, *answers, now=now)
        running.alerts = Alerts(database, rules(self.GAP, self.SILENCE), (), lambda: now, instruments)
        running.tick([item.symbol for item in answers])

    @pytest.mark.parametrize(("under_both", "value"), [(False, -10.0), (True, -9.0909)], ids=["one", "both"])
    def test_the_gap_of_a_new_name_is_that_from_the_last_close_of_the_former_one(
        self, database: Database[Document], under_both: bool, value: float
    ) -> None:
        renamed = parse_instruments(
            {"instrument": [{"symbol": "NEW", "former": [{"symbol": "OLD", "last_day": self.BEFORE}]}]}
        )
        closes = dict.fromkeys(range(78), 100.0)
        self.tick(database, renamed, answer("OLD", closes, at(77, self.BEFORE), self.BEFORE), slot=78, day=self.BEFORE)
        if under_both:
            later = answer("NEW", {**closes, 77: 99.0}, at(2), self.BEFORE)
            scripted(database, later, now=at(0, self.DAY)).tick(
                ["NEW"], window=(at(0, self.BEFORE), at(77, self.BEFORE))
            )
        self.tick(database, renamed, answer("NEW", {0: 90.0}, at(2), self.DAY), slot=1, day=self.DAY)
        [alert] = database["alerts"].find()
        assert alert["_id"] == "gap|NEW|2025-07-30T13:30:00Z"
        assert alert["message"]["value"] == value

    def test_a_delisted_share_is_not_silent(self, database: Database[Document]) -> None:
        listed = {"symbol": "GONE", "last_session": self.BEFORE}
        late = answer("GONE", {0: 100.0}, at(20), self.BEFORE)
        self.tick(database, parse_instruments({"instrument": [listed]}), late, slot=20, day=self.DAY)
        assert ids(database) == []
        database["alert_state"].delete_many({})
        database["bars"].delete_many({})
        self.tick(database, Instruments(), late, slot=20, day=self.DAY)
        assert ids(database) == ["quiet|GONE|2025-07-30T13:30:00Z"]
