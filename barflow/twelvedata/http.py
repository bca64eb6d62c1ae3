"""One HTTP call to Twelve Data: the key, one GET, and the answer or refusal.

The key is sent in a header only, and is removed from everything that is stored or shown. An exception of the HTTP
library holds the request and so the key. None of them is chained to ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
import requests
from pydantic import SecretStr
from requests import exceptions as failures
from requests.auth import AuthBase

from barflow.errors import BadInputError

# Twelve Data's public key. It works for a few symbols such as AAPL.
DEMO_KEY = "demo"
REDACTED = "[key]"
LONGEST_MESSAGE = 400
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Both mean that there are no bars in the range. Twelve Data sends the second for a range before a listing.
NO_DATA = ("no data is available", "data not found")
# What every error about a symbol names: the symbol, its other identifier, or the plan that includes it.
ABOUT_SYMBOL = re.compile(r"\b(symbols?|figi|plan)\b", re.IGNORECASE)
# HTTP statuses that are refusals even without a message of Twelve Data's.
REFUSAL_STATUSES = (401, 403, 414, 429)


class NoAnswerError(Exception):
    """There was no usable answer, and a retry may get one. The text holds no secret."""


@dataclass(frozen=True)
class Refusal:
    """Twelve Data's error for a call or for one of its symbols.

    ``code`` has the meaning of an HTTP status. ``message`` holds no secret.
    """

    code: int
    message: str

    @property
    def is_no_data(self) -> bool:
        """Return whether nothing traded in the range, which is an empty answer and no failure."""
        return self.code in (400, 404) and self.message.lower().startswith(NO_DATA)

    @property
    def is_about_symbols(self) -> bool:
        """Return whether one of the symbols, or their number, is the cause. The code alone does not tell."""
        if self.code == 404:
            return is_about_symbol(self.message)
        return self.code == 414 or (self.code == 400 and "**symbol**" in self.message)

    @property
    def is_for_day(self) -> bool:
        """Return whether the credits of the UTC day are used up. Any other 429 ends with the minute."""
        return self.code == 429 and bool(re.search(r"\b(day|daily)\b", self.message, re.IGNORECASE))

    @property
    def limit(self) -> int | None:
        """Return the plan's credits a minute, if the text of a 429 names them."""
        found = re.search(r"current limit being (\d{1,9})\b", self.message)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Reply:
    """The answer to one call. ``body`` is the JSON object; ``refusal`` is set when the whole call was refused."""

    body: dict[str, Any]
    refusal: Refusal | None
    requested_at: datetime
    credits_left: int | None


@dataclass(frozen=True)
class RawResponse:
    """An HTTP answer as received, errors included, with the key redacted."""

    body: bytes
    symbols: tuple[str, ...]
    requested_at: datetime
    http_status: int


class _Key(AuthBase):
    """Sets the key's header on each request. An ``auth`` object, since a .netrc file would replace a plain header."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"apikey {self._key.get_secret_value()}"
        return request


class Http:
    """The API at one address with one key. ``timeout`` is the seconds to connect, and to wait for the next bytes."""

    def __init__(
        self,
        url: str,
        api_key: SecretStr | None,
        *,
        timeout: tuple[float, float],
        clock: Callable[[], datetime],
        session: requests.Session | None,
    ) -> None:
        key = api_key.get_secret_value().strip() if api_key else ""
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise BadInputError("TWELVEDATA_API_KEY holds a space or a character that no key has. Copy the key again.")
        host = _host(url)
        self.has_key = key not in ("", DEMO_KEY)
        self._url = url.rstrip("/")
        self._auth = _Key(SecretStr(key or DEMO_KEY))
        self._secrets = {key, quote(key, safe="")} if self.has_key else set()
        self._timeout = timeout
        self._clock = clock
        self._session = session or requests.Session()
        if session is None and host in LOOPBACK:
            self._session.trust_env = False  # a proxy cannot reach the loopback address of this machine

    def get(
        self,
        path: str,
        params: Mapping[str, str | int],
        symbols: tuple[str, ...],
        on_raw: Callable[[RawResponse], None] | None,
    ) -> Reply:
        """Send one GET. ``on_raw`` is called with every answer before it is parsed.

        Raises NoAnswerError when a retry may help, and BadInputError when the address is not the API's.
        """
        requested_at = self._clock()
        response = self._send(path, params)
        if on_raw is not None:
            on_raw(RawResponse(self._without_key(response.content), symbols, requested_at, response.status_code))
        status = response.status_code
        try:
            body = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            body = None
        if isinstance(body, dict) and (status < 300 or body.get("status") == "error"):
            refusal = self.refusal(body, status)
        elif status < 300 and response.headers.get("Content-Type", "").startswith("text/html"):
            raise wrong_address(f"HTTP {status} with a web page")
        elif status in REFUSAL_STATUSES:
            body, refusal = {}, Refusal(status, f"HTTP {status} without a message")
        elif 300 <= status < 500 and status != HTTPStatus.REQUEST_TIMEOUT:
            raise wrong_address(f"HTTP {status} in another format")
        else:
            raise NoAnswerError(f"HTTP {status} with a body that is not the API's")
        if refusal is not None and refusal.code >= 500:
            raise NoAnswerError(f"error {refusal.code}: {refusal.message}")
        left = response.headers.get("api-credits-left", "")
        return Reply(body, refusal, requested_at, int(left) if left.isdecimal() and left.isascii() else None)

    def refusal(self, body: Mapping[str, Any], status: int = 200) -> Refusal | None:
        """Return the error in a body or in one symbol's part of it, or None. ``status`` is the HTTP status."""
        if body.get("status") != "error":
            return None
        code = body.get("code")
        if not (isinstance(code, int) and 400 <= code < 600):
            code = status if status >= 400 else 500
        message = " ".join(self.redact(str(body.get("message") or f"error {code} without a message")).split())
        return Refusal(code, message[:LONGEST_MESSAGE])

    def redact(self, text: str) -> str:
        """Return the text without the key, which an answer may repeat."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text

    def _without_key(self, body: bytes) -> bytes:
        for secret in self._secrets:
            body = body.replace(secret.encode(), REDACTED.encode())
        return body

    def _send(self, path: str, params: Mapping[str, str | int]) -> requests.Response:
        try:
            return self._session.get(
                self._url + path, params=params, auth=self._auth, timeout=self._timeout, allow_redirects=False
            )
        except failures.ConnectTimeout:
            reason = f"no connection within {self._timeout[0]:g} s"
        except failures.Timeout:
            reason = f"no answer within {self._timeout[1]:g} s"
        except failures.SSLError:
            reason = "no trusted TLS connection"
        except failures.ProxyError:
            reason = "the proxy did not connect"
        except failures.ChunkedEncodingError:
            reason = "the connection closed during the answer"
        except failures.ConnectionError:
            reason = "the connection failed or was closed"
        except failures.RequestException as error:
            reason = type(error).__name__
        raise NoAnswerError(reason)  # outside the handlers: the exceptions that they caught hold the key


def is_about_symbol(message: str) -> bool:
    """Return whether the message of an error is about a symbol, so that the same request fails again."""
    return bool(ABOUT_SYMBOL.search(message))


def wrong_address(answer: str) -> BadInputError:
    """Return the error of an address that is not the API's. ``answer`` describes what it answered."""
    return BadInputError(
        f"BARFLOW_TWELVEDATA_URL is not the address of the API: it answered {answer}. Correct the address, such as "
        "https://api.twelvedata.com, then run the same command again."
    )


def _host(url: str) -> str:
    """Return the host of the API's address. Raises BadInputError for another text, a query, or a user name."""
    with suppress(ValueError):
        parts = urlsplit(url)
        # Reading .port raises ValueError if it is not a number.
        plain = not parts.query and parts.username is None and parts.port != 0
        if parts.scheme in ("http", "https") and parts.hostname and plain:
            return parts.hostname
    raise BadInputError("BARFLOW_TWELVEDATA_URL is not an address such as https://api.twelvedata.com")
