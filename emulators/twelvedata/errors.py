"""Twelve Data's errors in its own words: as recorded, otherwise as documented."""

from __future__ import annotations

SITE = "https://twelvedata.com"
INTERVALS = "1min, 5min, 15min, 30min, 45min, 1h, 2h, 4h, 8h, 1day, 1week, 1month"


class Refusal(Exception):
    """An error answer of the vendor. ``code`` is the vendor's, and usually the HTTP status too."""

    def __init__(self, code: int, message: str, meta: dict[str, str] | None = None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.meta = meta

    @property
    def body(self) -> dict[str, object]:
        """The error as a JSON object, with its keys in the recorded order."""
        body: dict[str, object] = {"code": self.code, "message": self.message, "status": "error"}
        return body if self.meta is None else {**body, "meta": self.meta}


def bad_parameter(name: str, value: str, hint: str) -> Refusal:
    """Return the error of an invalid parameter."""
    return Refusal(400, f"Invalid **{name}** provided: {value}. {hint}")


def bad_interval(value: str) -> Refusal:
    """Return the error of an unsupported interval."""
    return bad_parameter("interval", value, f"Supported intervals: {INTERVALS}")


def no_data(symbol: str, interval: str) -> Refusal:
    """Return the error of a range without bars."""
    return Refusal(
        400,
        "No data is available on the specified dates. Try setting different start/end dates.",
        {"symbol": symbol, "interval": interval, "exchange": ""},
    )


def data_not_found(symbol: str, interval: str) -> Refusal:
    """Return the recorded error of a range before the first bar of a symbol, or of a symbol without any bar."""
    return Refusal(404, "Data not found", {"symbol": symbol, "interval": interval, "exchange": ""})


def bad_key() -> Refusal:
    """Return the error of a wrong or missing key."""
    return Refusal(
        401,
        "**apikey** parameter is incorrect or not specified. You can get your free API key instantly following this "
        f"link: {SITE}/pricing. If you believe that everything is correct, you can contact us at "
        f"{SITE}/contact/customer",
    )


def endpoint_not_in_plan(path: str) -> Refusal:
    """Return the error of an endpoint that the plan does not include."""
    return Refusal(
        403,
        f"{path} is available exclusively with grow or pro or ultra or enterprise plans. Consider upgrading your "
        f"API Key now at {SITE}/pricing",
    )


def unknown_symbol() -> Refusal:
    """Return the error of an unknown or missing symbol."""
    return Refusal(
        404,
        "**symbol** or **figi** parameter is missing or invalid. Please provide a valid symbol according to API "
        f"documentation: {SITE}/docs#reference-data",
    )


def unknown_symbol_of_batch(symbol: str, requested: str) -> Refusal:
    """Return the other recorded error of an unknown symbol in a batch."""
    return Refusal(
        400,
        f"**symbol** not found: {symbol}. Please specify it correctly according to API Documentation.",
        {"symbol": requested, "interval": "", "exchange": ""},
    )


def symbol_not_in_plan() -> Refusal:
    """Return the error of a symbol that the plan does not include."""
    return Refusal(
        404,
        f"This symbol is available starting with the Grow or Venture plan. Consider upgrading now at {SITE}/pricing",
    )


def too_many_symbols(limit: int) -> Refusal:
    """Return the error of a request with too many symbols."""
    return Refusal(414, f"The maximum number of symbols in the **symbol** parameter is {limit}. Split the request.")


def minute_credits_spent(used: int, limit: int) -> Refusal:
    """Return the error of a minute without credits."""
    return _credits_spent("the current minute", "minute", used, limit)


def day_credits_spent(used: int, limit: int) -> Refusal:
    """Return the error of a day without credits."""
    return _credits_spent("the day", "day", used, limit)


def _credits_spent(window: str, unit: str, used: int, limit: int) -> Refusal:
    return Refusal(
        429,
        f"You have run out of API credits for {window}. {used} API credits were used, with the current limit being "
        f"{limit}. Wait for the next {unit} or consider switching to a higher tier plan at {SITE}/pricing",
    )
