"""How does one call to Twelve Data go over the wire? The key, one GET, and what came back: an answer or a refusal.

The key travels in a header only. It is taken out of everything that is kept or said, and no exception of the HTTP
library, which holds the request and so the key, is chained to ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

import orjson
import requests
from pydantic import SecretStr
from requests import exceptions as failures
from requests.auth import AuthBase

from barflow.errors import BadInputError

# The vendor's public key, good for a few symbols such as AAPL.
DEMO_KEY = "demo"
HIDDEN = "[key]"
LONGEST_MESSAGE = 400
LOOPBACK = ("localhost", "127.0.0.1", "::1")
NO_DATA = "no data is available"
# Answers without the vendor's own words that still say what to do: by their HTTP status.
WORDLESS = (401, 403, 414, 429)
GATEWAY_TIMED_OUT = 408


class NoAnswer(Exception):
    """No usable answer came; asking again may help. Its text holds no secret."""


@dataclass(frozen=True)
class Refusal:
    """The vendor's error, for a call or for one symbol of it. ``code`` is as an HTTP status; no secret in the text."""

    code: int
    message: str

    @property
    def is_no_data(self) -> bool:
        """Nothing traded in the range: an empty answer, not a failure."""
        return self.code == 400 and self.message.lower().startswith(NO_DATA)

    @property
    def is_about_symbols(self) -> bool:
        """One of the symbols, or their number, is at fault."""
        return self.code in (404, 414) or (self.code == 400 and "**symbol**" in self.message)

    @property
    def is_for_day(self) -> bool:
        """Out of credits until the next UTC day; any other 429 is until the next minute."""
        return self.code == 429 and bool(re.search(r"\b(day|daily)\b", self.message, re.IGNORECASE))

    @property
    def limit(self) -> int | None:
        """The plan's credits, where the text of a 429 names them."""
        found = re.search(r"current limit being (\d{1,9})\b", self.message)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Reply:
    """What came back. ``body`` is the JSON object; ``refusal`` is set when all of it is an error."""

    body: dict[str, Any]
    refusal: Refusal | None
    requested_at: datetime
    credits_left: int | None


@dataclass(frozen=True)
class RawResponse:
    """An HTTP answer as received, but for the key: also one that is an error."""

    body: bytes
    symbols: tuple[str, ...]
    requested_at: datetime
    http_status: int


class _Key(AuthBase):
    """Signs each request. As an ``auth`` and not a header: a .netrc file would replace that."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"apikey {self._key.get_secret_value()}"
        return request


class Http:
    """The API at one address with one key. ``timeout``: seconds to connect, and of silence while reading."""

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
            self._session.trust_env = False  # a proxy does not lead to this machine

    def get(
        self,
        path: str,
        params: Mapping[str, str | int],
        symbols: tuple[str, ...],
        on_raw: Callable[[RawResponse], None] | None,
    ) -> Reply:
        """One GET. ``on_raw`` hears of every answer, before it is looked at.

        Raises NoAnswer when asking again may help, BadInputError when the address is not the API's.
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
        elif status in WORDLESS:
            body, refusal = {}, Refusal(status, f"HTTP {status} without a message")
        elif 300 <= status < 500 and status != GATEWAY_TIMED_OUT:
            raise BadInputError(
                f"BARFLOW_TWELVEDATA_URL does not lead to the API: HTTP {status} came from there, not in its manner. "
                "Correct the address."
            )
        else:
            raise NoAnswer(f"HTTP {status} with a body that is not the API's")
        if refusal is not None and refusal.code >= 500:
            raise NoAnswer(f"error {refusal.code}: {refusal.message}")
        left = response.headers.get("api-credits-left", "")
        return Reply(body, refusal, requested_at, int(left) if left.isdecimal() and left.isascii() else None)

    def refusal(self, body: Mapping[str, Any], status: int = 200) -> Refusal | None:
        """The error that a body, or one symbol's part of it, holds, if any; ``status`` is its HTTP status."""
        if body.get("status") != "error":
            return None
        code = body.get("code")
        if not (isinstance(code, int) and 400 <= code < 600):
            code = status if status >= 400 else 500
        message = " ".join(self.redact(str(body.get("message") or f"error {code} without a message")).split())
        return Refusal(code, message[:LONGEST_MESSAGE])

    def redact(self, text: str) -> str:
        """The text without the key, should somebody have echoed it."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def _without_key(self, body: bytes) -> bytes:
        for secret in self._secrets:
            body = body.replace(secret.encode(), HIDDEN.encode())
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
            reason = "the answer broke off"
        except failures.ConnectionError:
            reason = "the connection failed or was closed"
        except failures.RequestException as error:
            reason = type(error).__name__
        raise NoAnswer(reason)  # out of the handlers: what they caught holds the key


def _host(url: str) -> str:
    """The host of the API's address. Raises BadInputError for what is none, or holds a key or a password."""
    with suppress(ValueError):
        parts = urlsplit(url)
        plain = not parts.query and parts.username is None and parts.port != 0  # reading a port that is none raises
        if parts.scheme in ("http", "https") and parts.hostname and plain:
            return parts.hostname
    raise BadInputError("BARFLOW_TWELVEDATA_URL is not an address such as https://api.twelvedata.com")
