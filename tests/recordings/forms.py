"""The forms of recordings: Twelve Data's CSV and JSON, a broker's CSV, and Yahoo's. Each writes prices its own way."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterable, Mapping, Sequence

from recordings.market import DOLLAR, Bar

COLUMNS = ("datetime", "open", "high", "low", "close", "volume")
# With how many decimals of its float32 value Twelve Data writes a price (None: as short as it can), and how often.
DECIMALS = (None, 5, 6, 7, 8, 9)
CUMULATED = (190, 920, 990, 996, 998, 1000)
# A bar as text, in the order of COLUMNS.
Row = tuple[str, ...]


def twelve_data_rows(symbol: str, bars: Sequence[Bar]) -> list[Row]:
    """Return a symbol's bars in Twelve Data's text, newest first; the newest bar has six decimals.

    Equal prices of a bar have equal text, so that float32 noise puts no close above its high.
    """
    dice = random.Random(f"text of {symbol}")
    rows = []
    for bar in bars:
        styles = dice.choices(DECIMALS, cum_weights=CUMULATED, k=4) if bar is not bars[-1] else [6] * 4
        rows.append(
            _row(bar, {price: _decimals(price, style) for price, style in zip(_prices(bar), styles, strict=True)})
        )
    return rows[::-1]


def watch_list_csv(rows: Mapping[str, Iterable[Row]]) -> str:
    """Return one CSV of every symbol's rows, symbol after symbol."""
    lines = [",".join((*row, symbol)) for symbol, found in rows.items() for row in found]
    return _lines((*COLUMNS, "symbol"), lines)


def answer(symbol: str, rows: Iterable[Row]) -> bytes:
    """Return the rows as the body of Twelve Data's /time_series for one symbol."""
    meta = {
        "symbol": symbol,
        "interval": "5min",
        "currency": "USD",
        "exchange_timezone": "America/New_York",
        "exchange": "NASDAQ",
        "mic_code": "XNGS",
        "type": "Common Stock",
    }
    values = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    return json.dumps({"meta": meta, "values": values, "status": "ok"}, separators=(",", ":")).encode()


def broker_csv(bars: Iterable[Bar]) -> str:
    """Return a broker's CSV of one symbol: oldest first, four decimals."""
    return _lines(COLUMNS, (",".join(_row(bar, {p: f"{p / DOLLAR:.4f}" for p in _prices(bar)})) for bar in bars))


def yahoo_csv(bars: Iterable[Bar]) -> str:
    """Return Yahoo's CSV of one symbol: oldest first, each float32 price with every digit of a double."""
    rows = [_row(bar, {price: repr(_float32(price)) for price in _prices(bar)}) for bar in bars]
    return _lines(
        ("Date Time", "Open", "High", "Low", "Close", "Volume", "Adj Close"), (",".join((*r, r[4])) for r in rows)
    )


def _row(bar: Bar, text: Mapping[int, str]) -> Row:
    return (f"{bar.clock:%Y-%m-%d %H:%M:%S}", *(text[price] for price in _prices(bar)), str(bar.volume))


def _prices(bar: Bar) -> tuple[int, int, int, int]:
    return bar.open, bar.high, bar.low, bar.close


def _decimals(price: int, count: int | None) -> str:
    if count is None:
        return f"{price / DOLLAR:.4f}".rstrip("0").rstrip(".")
    return f"{_float32(price):.{count}f}"


def _float32(price: int) -> float:
    (value,) = struct.unpack("f", struct.pack("f", price / DOLLAR))
    return float(value)


def _lines(header: Iterable[str], lines: Iterable[str]) -> str:
    return "\n".join((",".join(header), *lines)) + "\n"
