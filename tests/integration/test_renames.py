"""A renamed share is one series under its present name, and every stored bar keeps the name under which it arrived."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymongo.database import Database

from barflow.cli.main import main
from barflow.lake.partitions import Lake
from barflow.market.actions import Dividend, Split
from barflow.market.arrow import arrow_schema
from barflow.market.sessions import session
from barflow.staging.actions import Actions, Answer
from barflow.staging.connection import Document

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
            **{"volume": 100 + number, "revision": 0},
        }
        for day, close in closes.items()
        if (traded := session(day))
        for number in range(2)
    ]
    return pa.Table.from_pylist(rows, arrow_schema())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    made.replace("FB", "2022-05", bars({MAY31: 193.0}))
    # Another share has the ticker FB from June 9. The vendor served June 8 under both names.
    made.replace("FB", "2022-06", bars({JUN7: 195.0, JUN8: 196.0, JUN9: 20.0}))
    made.replace("META", "2022-06", bars({JUN8: 196.5, JUN9: 184.0, JUN10: 175.0}))
    return made


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def barflow(
    lake: Lake,
    database: Database[Document],
    mongodb_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    """Yield the function that runs a command. In the end, the archive must be byte for byte what it was."""
    monkeypatch.setenv("BARFLOW_MONGODB_URI", mongodb_uri)
    monkeypatch.setenv("BARFLOW_MONGODB_DATABASE", database.name)
    monkeypatch.setenv("BARFLOW_LAKE_URI", lake.root)
    before = digests(lake)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["barflow", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    yield run
    assert digests(lake) == before


def digests(lake: Lake) -> dict[str, str]:
    files = (path for path in Path(lake.root).rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def export(barflow: Run, folder: Path, symbol: str, *arguments: str) -> tuple[pa.Table, str]:
    """Export the sessions from May 31 to June 10. Return the file's rows, and what the command logs."""
    target = folder / f"{symbol}.parquet"
    code, _, logged = barflow(
        *("export", "--symbol", symbol, "--start", "2022-05-31", "--end", "2022-06-10"),
        *("--to", str(target), "--force", *arguments),
    )
    assert code == 0, logged
    return pq.read_table(target), logged


class TestExport:
    def test_it_is_the_former_names_sessions_and_then_the_present_ones(self, barflow: Run, tmp_path: Path) -> None:
        found, logged = export(barflow, tmp_path, "META")
        # Of June 8, which both names hold, the newest name counts. FB's June 9 is another share.
        whole = bars({MAY31: 193.0, JUN7: 195.0, JUN8: 196.5, JUN9: 184.0, JUN10: 175.0})
        assert found.drop(["symbol"]).cast(arrow_schema()).equals(whole)
        assert {*found["symbol"].to_pylist()} == {"META"}
        assert IS_META not in logged
        assert "no bars of META for 4 of the sessions: 2022-06-01" in logged

    def test_the_former_name_means_the_same_share_and_the_command_says_so(self, barflow: Run, tmp_path: Path) -> None:
        found, logged = export(barflow, tmp_path, "fb")
        assert logged.splitlines()[0] == IS_META
        assert found.equals(export(barflow, tmp_path, "META")[0])

    def test_a_ticker_that_another_share_has_today_means_that_share(
        self, barflow: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        self, barflow: Run, tmp_path: Path, database: Database[Document], adjust: str
    ) -> None:
        split, paid = (
            Split("META", JUN9, 2.0, "endpoint", LEARNED),
            Dividend("META", JUN8, 1.95, "USD", "endpoint", LEARNED),
        )
        for kind, action in (("split", split), ("dividend", paid)):
            Actions(database).store([Answer("META", kind, [action], "endpoint", LEARNED, LEARNED)])
        found, _ = export(barflow, tmp_path, "FB", "--adjust", adjust)
        factor = 1 - 1.95 / 195.5 if adjust == "all" else 1.0  # FB's close of June 7
        expected = [193.0 / 2 * factor, 195.0 / 2 * factor, 196.5 / 2, 184.0, 175.0]
        assert found["open"].to_pylist()[::2] == pytest.approx(expected)
