"""The real recordings: market data of several vendors, which may not be published with the repository.

The environment variable BARFLOW_REAL_DATA names their folder. Without it, they are in ``shared/data/real`` beside the
checkout, or absent.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from recordings.files import Recordings

REAL_DATA = Path(os.environ.get("BARFLOW_REAL_DATA") or Path(__file__).parents[3] / "shared/data/real")
ABSENT = None if REAL_DATA.is_dir() else f"the real recordings are not published, and {REAL_DATA} does not exist"
# The origins of the recordings that the tests run on.
ORIGINS = ("synthetic",) if ABSENT else ("synthetic", "real")
BODIES = {
    "one_symbol": "time_series_AAPL_1min_2023-08-24",
    "several_symbols": "batch_time_series_SPX_AAPL_1h_2023-05",
    "unknown_in_batch": "batch_price_partial_error",
    "bad_key": "error_401_bad_key",
    "unknown_symbol": "error_404_invalid_symbol",
    "symbol_needs_plan": "error_404_symbol_needs_plan",
    "no_data": "error_400_no_data_in_range",
    "minute_credits_spent": "error_429_minute_limit",
    "day_credits_spent": "error_429_day_limit",
}


def real(folder: Path) -> Recordings:
    """Return the recordings in this folder of files as their sources published them."""
    long = {symbol: folder / f"ibkr_5min/{symbol}_5min.csv" for symbol in ("AAPL", "GOOG", "MSFT", "TSLA", "NVDA")}
    bodies = {
        name: json.loads((folder / f"twelvedata_recorded/{file}.json").read_bytes()) for name, file in BODIES.items()
    }
    return Recordings(
        origin="real",
        watch_list=folder / "twelvedata_5min/all_symbols_5min_2025-07-02_2025-07-30.csv",
        answers=folder / "twelvedata_json",
        long=long,
        long_as_first_seen=long,
        with_gaps={symbol: folder / f"yfinance_5min/{symbol}_5min.csv" for symbol in ("AAPL", "GOOG", "MSFT", "TSLA")},
        bodies=bodies,
    )
