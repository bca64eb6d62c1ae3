"""The parameters of a time series request, checked as Twelve Data checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from emulators.twelvedata import errors

INTERVAL = "5min"
DAILY = "1day"
MOST_SYMBOLS = 120
MOST_ROWS = 5000
ROWS_WITHOUT_DATES = 30


@dataclass(frozen=True)
class Query:
    """A checked request. ``start`` and ``end`` are in UTC; whether ``end`` is inclusive is a switch."""

    symbols: tuple[str, ...]  # as requested
    zone: ZoneInfo
    start: datetime | None
    end: datetime | None
    limit: int
    newest_first: bool
    decimals: int | None
    interval: str = INTERVAL
    split_adjusted: bool = True  # daily bars only: intraday bars are never adjusted


def symbols_of(params: Mapping[str, str]) -> tuple[str, ...]:
    """Return the requested symbols as written, each once; there may be none."""
    return tuple(dict.fromkeys(part.strip() for part in params.get("symbol", "").split(",") if part.strip()))


def parse(params: Mapping[str, str]) -> Query:
    """Return the checked parameters of /time_series.

    Raise Refusal: 400 for a bad parameter, 404 without a symbol, 414 for too many symbols.
    """
    symbols = symbols_of(params)
    if not symbols:
        raise errors.unknown_symbol()
    if len(symbols) > MOST_SYMBOLS:
        raise errors.too_many_symbols(MOST_SYMBOLS)
    interval = params.get("interval", "")
    if interval != DAILY:
        check_interval(params)
    if params.get("format", "json").lower() != "json":
        raise errors.bad_parameter("format", params["format"], "This emulator answers in JSON only.")
    zone = zone_of(params)
    start, end = _moment(params, "start_date", zone), _moment(params, "end_date", zone)
    dated = start is not None or end is not None
    adjust = params.get("adjust", "splits")
    if adjust not in ("none", "splits"):
        raise errors.bad_parameter("adjust", adjust, "This emulator serves none and splits")
    if interval == DAILY and dated:
        raise errors.bad_parameter("start_date", str(start or end), "This emulator serves daily bars without dates")
    order = params.get("order", "desc").lower()
    if order not in ("asc", "desc"):
        raise errors.bad_parameter("order", order, "Supported values: asc, desc")
    return Query(
        symbols,
        zone,
        start,
        end,
        limit=_whole(params, "outputsize", MOST_ROWS if dated else ROWS_WITHOUT_DATES, 1, MOST_ROWS),
        newest_first=order == "desc",
        decimals=_whole(params, "dp", 0, 0, 11) if "dp" in params else None,
        interval=interval,
        split_adjusted=adjust == "splits",
    )


def _whole(params: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 9 and least <= int(text) <= most):
        raise errors.bad_parameter(name, text, f"It must be a whole number from {least} to {most}")
    return int(text)


def check_interval(params: Mapping[str, str]) -> None:
    """Raise Refusal (400) for another interval than that of the 5-minute bars."""
    if params.get("interval", "") != INTERVAL:
        raise errors.bad_interval(params.get("interval", ""))


def zone_of(params: Mapping[str, str]) -> ZoneInfo:
    """Return the requested time zone. Raise Refusal (400) for an unknown one."""
    name = params.get("timezone", "Exchange")
    if name.lower() == "exchange":
        return ZoneInfo("America/New_York")
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise errors.bad_parameter("timezone", name, "Supported values: Exchange, UTC, or an IANA name") from None


def _moment(params: Mapping[str, str], name: str, zone: ZoneInfo) -> datetime | None:
    """Return a time in UTC, read in ``zone`` from `2025-07-02`, `2025-07-02 15:30:00` or `2025-07-02T15:30:00`.

    A date alone is its midnight.
    """
    text = params.get(name)
    if not text:
        return None
    try:
        naive = datetime.combine(date.fromisoformat(text), time()) if len(text) == 10 else datetime.fromisoformat(text)
        if naive.tzinfo is None:
            return naive.replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise errors.bad_parameter(name, text, "It must look like 2006-01-02 or 2006-01-02 15:04:05")
