"""Bodies that Twelve Data answers, as its documentation and its clients show them: fields in order, and its wordings.

The bars in them are made up; the wordings of the errors are the API's.
"""

from __future__ import annotations

from typing import Any

PRICING = "https://twelvedata.com/pricing"
DOCS = "https://twelvedata.com/docs"


def _series(symbol: str, interval: str, exchange: tuple[str, str, str], *values: tuple[str, ...]) -> dict[str, Any]:
    name, code, kind = exchange
    return {
        "meta": {
            "symbol": symbol,
            "interval": interval,
            "currency": "USD",
            "exchange_timezone": "America/New_York",
            "exchange": name,
            "mic_code": code,
            "type": kind,
        },
        "values": [
            dict(zip(("datetime", "open", "high", "low", "close", "volume"), value, strict=True)) for value in values
        ],
        "status": "ok",
    }


def _error(code: int, message: str, **more: object) -> dict[str, Any]:
    return {"code": code, "message": message, "status": "error", **more}


def _credits_spent(window: str, unit: str, used: int, limit: int) -> dict[str, Any]:
    return _error(
        429,
        f"You have run out of API credits for {window}. {used} API credits were used, with the current limit being "
        f"{limit}. Wait for the next {unit} or consider switching to a higher tier plan at {PRICING}",
    )


STOCK = ("NASDAQ", "XNGS", "Common Stock")
ONE_SYMBOL = _series(
    "AAPL",
    "1min",
    STOCK,
    ("2025-11-28 12:59:00", "208.10001", "208.22000", "208.08000", "208.21001", "181023"),
    ("2025-11-28 12:58:00", "208.05000", "208.12000", "208.03999", "208.10001", "90412"),
)
SEVERAL_SYMBOLS = {
    "SPX": _series(
        "SPX",
        "1h",
        ("NYSE", "XNYS", "Index"),
        ("2025-11-28 12:30:00", "6840.14990", "6849.43994", "6838.64990", "6848.85010", "262000323"),
    ),
    "AAPL": _series(
        "AAPL",
        "1h",
        STOCK,
        ("2025-11-28 12:30:00", "207.98000", "208.22000", "207.91000", "208.21001", "4218870"),
    ),
}
UNKNOWN_IN_BATCH = {
    "SPY": {"price": "683.53000"},
    "NIKK": _error(
        400,
        "**symbol** not found: NIKK. Please specify it correctly according to API Documentation.",
        meta={"symbol": "SPY,NIKK", "interval": "", "exchange": ""},
    ),
}
BODIES: dict[str, Any] = {
    "one_symbol": ONE_SYMBOL,
    "several_symbols": SEVERAL_SYMBOLS,
    "unknown_in_batch": UNKNOWN_IN_BATCH,
    "bad_key": _error(
        401,
        "**apikey** parameter is incorrect or not specified. You can get your free API key instantly following this "
        f"link: {PRICING}. If you believe that everything is correct, you can contact us at "
        "https://twelvedata.com/contact/customer",
    ),
    "unknown_symbol": _error(
        404,
        "**symbol** or **figi** parameter is missing or invalid. Please provide a valid symbol according to API "
        f"documentation: {DOCS}#reference-data",
    ),
    "symbol_needs_plan": _error(
        404, f"This symbol is available starting with the Grow or Venture plan. Consider upgrading now at {PRICING}"
    ),
    "no_data": _error(
        400,
        "No data is available on the specified dates. Try setting different start/end dates.",
        meta={"symbol": "AAPL", "interval": "1day", "exchange": ""},
    ),
    "minute_credits_spent": _credits_spent("the current minute", "minute", 9, 8),
    "day_credits_spent": _credits_spent("the day", "day", 801, 800),
}
