"""The Bar: one definition from which every schema is derived.

The MongoDB validator, the Glue columns and the check of the SQL tables are derived here from ``FIELDS``, the Arrow and
Spark schemas in barflow.market.arrow. Prices are US dollars, volumes are shares, ``ts`` is the bar's open in UTC.
Every store holds prices as IEEE doubles and volumes as 64-bit integers. That is lossless: Twelve Data sends at most 15
significant digits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

INTERVAL = "5min"
# Bounds of a bar, far above any real one (the highest price of a US share is below 1e6 dollars, the largest volume of a
# session below 1e10 shares). Within them, no sum over a session overflows a 64-bit integer or a double.
MAX_PRICE = 1e9
MAX_VOLUME = 10**13
# How far, as a share of the price, open or close may be outside of low and high: the noise of binary floats, such as a
# close of 0.30000000000000004 over a high of 0.3. The SQL tables allow the same.
OHLC_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Field:
    """One column of a bar with its type in every store."""

    name: str
    bson: str
    arrow: str
    spark: str
    sql: str
    meaning: str


FIELDS: tuple[Field, ...] = (
    Field("ts", "date", "timestamp[us, tz=UTC]", "timestamp", "timestamp with time zone", "the bar's open, UTC"),
    Field("session_date", "string", "date32", "date", "date", "exchange-local trading day"),
    Field("open", "double", "double", "double", "double precision", "first price, dollars"),
    Field("high", "double", "double", "double", "double precision", "highest price, dollars"),
    Field("low", "double", "double", "double", "double precision", "lowest price, dollars"),
    Field("close", "double", "double", "double", "double precision", "last price, dollars"),
    Field("volume", "long", "int64", "bigint", "bigint", "shares traded"),
    Field(
        "revision",
        "int",
        "int32",
        "int",
        "integer",
        "how often the source changed the bar; 0 = as first seen",
    ),
    Field(
        "known_from",
        "date",
        "timestamp[us, tz=UTC]",
        "timestamp",
        "timestamp with time zone",
        "when the answer that brought these values was asked for, UTC",
    ),
)
PRICES = ("open", "high", "low", "close")
# What an answer says of a bar, and what a Bar holds.
VALUES = ("ts", *PRICES, "volume")
OF_A_BAR = (*VALUES, "revision")
# The parallel arrays of a session document, in their order.
ARRAYS = (*OF_A_BAR, "known_from")
# What a history says of a version beyond the columns of a bar.
KNOWN_UNTIL = Field(
    "known_until",
    "date",
    "timestamp[us, tz=UTC]",
    "timestamp",
    "timestamp with time zone",
    "when the answer that brought the next version was asked for, UTC",
)
# The warehouse's bar tables: the same bars in buckets of different lengths.
BAR_TABLES = ("bar_5min", "bar_30min", "bar_1h", "bar_1d")


@dataclass(frozen=True, slots=True)
class Bar:
    """One 5-minute bar. The constructor raises ValueError for other values, so the invariants hold for every Bar."""

    ts: datetime
    open: float
    high: float
    low: float
    close: float
    volume: int
    revision: int = 0

    def __post_init__(self) -> None:
        prices = (self.open, self.high, self.low, self.close)
        if not all(0 < price <= MAX_PRICE for price in prices):
            raise ValueError(f"a price is not a number above 0 and up to {MAX_PRICE:,.0f}: {prices}")
        if not encloses(*prices):
            raise ValueError(f"low {self.low} and high {self.high} do not enclose open {self.open}, close {self.close}")
        if not 0 <= self.volume <= MAX_VOLUME or self.revision < 0:
            raise ValueError(f"volume {self.volume} or revision {self.revision} is out of range")
        if self.ts.tzinfo is None:
            raise ValueError(f"naive time {self.ts}: a bar's open must be aware, in UTC")

    def same_values(self, other: Bar) -> bool:
        """Return whether both bars have the same prices and volume. Their revisions may differ."""
        return (self.open, self.high, self.low, self.close, self.volume) == (
            other.open,
            other.high,
            other.low,
            other.close,
            other.volume,
        )


@dataclass(slots=True)
class SessionBars:
    """One symbol's session as parallel columns of equal length in time order. It is the unit that is stored.

    ``known_from`` is empty in a session that is not stored yet.
    """

    symbol: str
    session_date: date
    ts: list[datetime] = field(default_factory=list)
    open: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    close: list[float] = field(default_factory=list)
    volume: list[int] = field(default_factory=list)
    revision: list[int] = field(default_factory=list)
    known_from: list[datetime] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def key(self) -> str:
        """Return the ``_id`` of the session's document."""
        return document_key(self.symbol, self.session_date)

    def bars(self) -> list[Bar]:
        """Return the bars as objects, for code that reads one bar at a time."""
        columns = (getattr(self, name) for name in OF_A_BAR)
        return [Bar(*row) for row in zip(*columns, strict=True)]

    @classmethod
    def of(cls, symbol: str, session_date: date, bars: list[Bar]) -> SessionBars:
        """Return the session with these bars, sorted by their open."""
        ordered = sorted(bars, key=lambda bar: bar.ts)
        return cls(symbol, session_date, *([getattr(bar, name) for bar in ordered] for name in OF_A_BAR))


def encloses(opened: float, high: float, low: float, close: float) -> bool:
    """Return whether low and high enclose open and close (dollars), within ``OHLC_TOLERANCE``."""
    noise = high * OHLC_TOLERANCE
    return low - noise <= min(opened, high, close) and max(opened, low, close) <= high + noise


def document_key(symbol: str, session_date: date | str) -> str:
    """Return the ``_id`` of a symbol's session, such as ``AAPL|5min|2025-07-02``."""
    return f"{symbol}|{INTERVAL}|{session_date}"


def day_of_key(key: str) -> date:
    """Return the session's day of a ``_id`` that document_key made."""
    return date.fromisoformat(key.rpartition("|")[2])


def mongo_validator() -> dict[str, Any]:
    """Return the ``$jsonSchema`` of the ``bars`` collection: one document per symbol and session."""
    types = {item.name: item.bson for item in FIELDS}
    arrays = {name: {"bsonType": "array", "items": {"bsonType": types[name]}, "minItems": 1} for name in ARRAYS}
    scalars = {
        "_id": "string",
        "symbol": "string",
        "interval": "string",
        "session_date": "string",
        "version": "int",
        "run_id": "string",
        "first_seen_at": "date",
        "updated_at": "date",
        "requested_at": "date",
    }
    return {
        "$jsonSchema": {
            "bsonType": "object",
            "required": [*scalars, *arrays],
            "properties": {**{name: {"bsonType": bson} for name, bson in scalars.items()}, **arrays},
        }
    }


def glue_columns() -> list[tuple[str, str]]:
    """Return (name, Hive type) of each column of the Glue catalog's table, without its partition columns."""
    return [(item.name, item.spark) for item in FIELDS]


def sql_columns() -> dict[str, str]:
    """Return the PostgreSQL type of each value column of the bar tables, where ``ts`` is called ``bar_start``."""
    kept = (item for item in FIELDS if item.name in (*VALUES, "session_date"))
    return {"bar_start" if item.name == "ts" else item.name: item.sql for item in kept}
