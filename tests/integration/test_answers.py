"""Answers that look right and are not: each is rejected by name, and nothing of it is stored."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pymongo.database import Database
from ticks import ingest

from barflow.errors import BadInputError
from barflow.market.recordings import Recording, validate_rows
from barflow.pipeline.ingest_report import raise_errors
from barflow.staging.connection import Document
from emulators.twelvedata.server import TwelveDataEmulator

CASES = Path(__file__).parents[1] / "cases"
BOUNDS = "out_of_bounds, a price is above 1,000,000,000 dollars, or the volume is above 10,000,000,000,000 shares"


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("json_1h", "interval 1h instead of 5min"),
        ("json_1min", "interval 1min instead of 5min"),
        ("json_lse", "currency GBp instead of USD; exchange LSE in Europe/London instead of America/New_York"),
        ("json_tsx", "currency CAD instead of USD; exchange TSX in America/Toronto instead of America/New_York"),
        (
            "json_utc_asked",
            "only 90 of 234 times are in a session as America/New_York, which is stated, and 234 as UTC",
        ),
    ],
)
def test_a_recorded_answer_that_contradicts_the_contract_is_rejected_by_name(case: str, says: str) -> None:
    with pytest.raises(BadInputError) as error:
        Recording.load(CASES / case)
    assert says in str(error.value)
    assert "Nothing was stored" in str(error.value)


def test_a_csv_of_utc_times_is_rejected(tmp_path: Path) -> None:
    lines = [f"2025-07-30 {13 + n // 12}:{n % 12 * 5:02},1,1,1,1,1,AAPL" for n in range(6, 84)]
    path = tmp_path / "utc.csv"
    path.write_text("\n".join(["datetime,open,high,low,close,volume,symbol", *lines]))
    with pytest.raises(BadInputError, match="AAPL: only 30 of 78 times are in a session as America/New_York"):
        Recording.load(path)
    before_open = "2025-07-30 08:00,1,1,1,1,1,AAPL"
    path.write_text("\n".join(["datetime,open,high,low,close,volume,symbol", *lines, before_open]))
    with pytest.raises(BadInputError, match=r"only 30 of 79 times .*, and 78 as UTC"):  # one odd row hides nothing
        Recording.load(path)


@pytest.mark.parametrize(
    ("minutes", "says"),
    [
        (1, "312 of 390 times are not on a five-minute mark"),
        (15, "steps between bars are 15 minutes or longer"),
        (60, "12 of 12 steps between bars are 15 minutes or longer"),
    ],
)
def test_a_csv_of_another_interval_is_refused(tmp_path: Path, minutes: int, says: str) -> None:
    path = tmp_path / "bars.csv"
    opens = [datetime(2025, 7, day, 9, 30) + timedelta(minutes=at) for day in (29, 30) for at in range(0, 390, minutes)]
    opens = opens if minutes > 1 else opens[:390]
    path.write_text(
        "\n".join(["datetime,open,high,low,close,volume,symbol", *(f"{at},1,1,1,1,1,AAPL" for at in opens)])
    )
    with pytest.raises(BadInputError, match=f"AAPL: .*{says}. Nothing was stored. Give 5min bars."):
        Recording.load(path)


@pytest.mark.parametrize(
    ("case", "stored", "says"),
    [
        ("crypto_24_7.csv", [], "BTC/USD (300 of 300 outside_session, the exchange was closed when the bar opened"),
        ("price_huge.csv", ["TSLA"], f"AAPL (9 of 9 {BOUNDS})"),
        ("vol_sentinel2.csv", ["TSLA"], f"AAPL (2 of 2 {BOUNDS})"),
    ],
)
def test_a_symbol_whose_bars_are_all_rejected_is_an_error_of_the_symbol(
    database: Database[Document], case: str, stored: list[str], says: str
) -> None:
    recording = Recording.load(CASES / case)
    with TwelveDataEmulator(recording) as api:
        report = ingest(api, database, clock=lambda: recording.as_of).tick(recording.symbols)
    assert report.outcome == "partial"
    with pytest.raises(BadInputError) as error:
        raise_errors(report)
    assert f"Every bar was rejected for {says}" in str(error.value)
    assert "Barflow stores regular sessions of US shares and funds, in dollars." in str(error.value)
    assert database["bars"].distinct("symbol") == stored
    total = report.total
    assert total.received == sum(len(recording.rows(name, *ALWAYS)) for name in recording.symbols)
    assert total.balanced


ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def test_absurd_volumes_of_some_bars_leave_the_other_bars() -> None:
    recording = Recording.load(CASES / "vol_sentinel.csv")
    for symbol in recording.symbols:
        rows = recording.rows(symbol, *ALWAYS)
        result = validate_rows(symbol, rows, recording.as_of)
        assert {reason for item in result.rejected for reason in item.reasons} <= {"out_of_bounds"}
        assert result.accepted + len(result.rejected) == len(rows)
    assert result.accepted == len(rows), "TSLA is whole"


def test_float_noise_is_stored_as_received() -> None:
    rows = Recording.load(CASES / "ulp.csv").rows("AAPL", *ALWAYS)
    [session] = validate_rows("AAPL", rows, ALWAYS[1]).sessions.values()
    assert dataclasses.astuple(session)[4:7] == ([0.3, 0.31], [0.29, 0.29], [0.30000000000000004, 0.3])
