"""One HTTP call to Twelve Data: the key, one GET of limited size and time, and the answer or refusal.

The key is sent in a header only, and is removed from everything that is stored or shown. An exception of the HTTP
library holds the request and so the key. None of them is chained to ours.
"""

from __future__ import annotations

import queue
import re
import threading
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
from urllib3.exceptions import ReadTimeoutError

from barflow.errors import BadInputError
from barflow.settings import LOOPBACK
from barflow.text import redacted

# Twelve Data's public key. It works for a few symbols such as AAPL.
DEMO_KEY = "demo"
REDACTED = "[key]"
LONGEST_MESSAGE = 400
# Both mean that there are no bars in the range. Twelve Data sends the second for a range before a listing.
NO_DATA = ("no data is available", "data not found")
# What every error about a symbol names: the symbol, its other identifier, or the plan that includes it.
ABOUT_SYMBOL = re.compile(r"\b(symbols?|figi|plan)\b", re.IGNORECASE)
# HTTP statuses that are refusals even without a message of Twelve Data's.
REFUSAL_STATUSES = (401, 403, 414, 429)
# The most bytes of an answer after decompression. A full page of 120 symbols has about 20 MB.
MAX_BODY_BYTES = 32_000_000
TOO_LARGE = 413
CHUNK_BYTES = 256 * 1024
# How much of an answer that is too large is stored.
SAMPLE_BYTES = 64 * 1024


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
        return self.code in (TOO_LARGE, 414) or (self.code == 400 and "**symbol**" in self.message)

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
    """The answer to one call. ``body`` is the JSON object; ``refusal`` is set when the whole call was refused.

    ``date`` is the server's Date header, None where it sends none.
    """

    body: dict[str, Any]
    refusal: Refusal | None
    requested_at: datetime
    credits_left: int | None
    date: str | None = None


@dataclass(frozen=True)
class RawResponse:
    """An HTTP answer as received, errors included, with the key redacted. ``note`` says what ``body`` leaves out."""

    body: bytes
    symbols: tuple[str, ...]
    requested_at: datetime
    http_status: int
    note: str | None = None


@dataclass(frozen=True)
class _Received:
    """A whole HTTP answer after decompression. ``body`` is None if it is larger than ``MAX_BODY_BYTES``."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    sample: bytes


class _Key(AuthBase):
    """Sets the key's header on each request. An ``auth`` object, since a .netrc file would replace a plain header."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"apikey {self._key.get_secret_value()}"
        return request


class Http:
    """The API at one address with one key.

    ``timeout`` is the seconds to connect, and to wait for the next bytes. ``deadline`` is the seconds for all of a
    request, however slowly its bytes arrive.
    """

    def __init__(
        self,
        url: str,
        api_key: SecretStr | None,
        *,
        timeout: tuple[float, float],
        deadline: float,
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
        self._timeout, self._deadline = timeout, deadline
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
        received = self._send(path, params)
        status = received.status
        note = None if received.body is not None else f"the answer has more than {MAX_BODY_BYTES:,} bytes; cut"
        if on_raw is not None:
            content = self._without_key(received.sample if received.body is None else received.body)
            on_raw(RawResponse(content, symbols, requested_at, status, note))
        if received.body is None:
            return Reply(
                {}, Refusal(TOO_LARGE, f"the answer has more than {MAX_BODY_BYTES:,} bytes"), requested_at, None
            )
        try:
            body = orjson.loads(received.body)
        except orjson.JSONDecodeError:
            body = None
        if isinstance(body, dict) and (status < 300 or body.get("status") == "error"):
            refusal = self.refusal(body, status)
        elif status < 300 and received.headers.get("Content-Type", "").startswith("text/html"):
            raise wrong_address(f"HTTP {status} with a web page")
        elif status in REFUSAL_STATUSES:
            body, refusal = {}, Refusal(status, f"HTTP {status} without a message")
        elif 300 <= status < 500 and status != HTTPStatus.REQUEST_TIMEOUT:
            raise wrong_address(f"HTTP {status} in another format")
        else:
            raise NoAnswerError(f"HTTP {status} with a body that is not the API's")
        if refusal is not None and refusal.code >= 500:
            raise NoAnswerError(f"error {refusal.code}: {refusal.message}")
        left = received.headers.get("api-credits-left", "")
        credits_left = int(left) if re.fullmatch(r"[0-9]{1,9}", left) else None
        return Reply(body, refusal, requested_at, credits_left, received.headers.get("Date"))

    def refusal(self, body: Mapping[str, Any], status: int = 200) -> Refusal | None:
        """Return the error in a body or in one symbol's part of it, or None. ``status`` is the HTTP status."""
        if body.get("status") != "error":
            return None
        code = body.get("code")
        if not (isinstance(code, int) and 400 <= code < 600):
            code = status if status >= 400 else 500
        received = str(body.get("message") or f"error {code} without a message")
        message = " ".join(redacted(self.redact(received)).split())
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

    def _send(self, path: str, params: Mapping[str, str | int]) -> _Received:
        """Send the request in a thread, and wait for the whole answer until the deadline.

        The name look-up, the TLS handshake and the headers have no other limit in time. A thread that is late is left
        behind; it ends with its connection, of which no more is read. Raises NoAnswerError.
        """
        done = queue.SimpleQueue[_Received | str]()
        responses: list[requests.Response] = []
        arguments = (self._url + path, params, responses, done)
        threading.Thread(target=self._receive, args=arguments, daemon=True, name="twelvedata request").start()
        try:
            found = done.get(timeout=self._deadline)
        except queue.Empty:
            found = f"no complete answer within {self._deadline:g} s"
            for response in responses:
                with suppress(OSError, ValueError, RuntimeError):
                    response.raw.shutdown()
        if isinstance(found, str):
            raise NoAnswerError(found)
        return found

    def _receive(
        self,
        url: str,
        params: Mapping[str, str | int],
        responses: list[requests.Response],
        done: queue.SimpleQueue[_Received | str],
    ) -> None:
        """Put the whole answer into ``done``, or the reason why there is none: an exception would hold the key."""
        try:
            with self._session.get(
                url, params=params, auth=self._auth, timeout=self._timeout, allow_redirects=False, stream=True
            ) as response:
                responses.append(response)
                done.put(_read(response))
        except failures.ConnectTimeout:
            done.put(f"no connection within {self._timeout[0]:g} s")
        except failures.Timeout:
            done.put(f"no answer within {self._timeout[1]:g} s")
        except failures.SSLError:
            done.put("no trusted TLS connection")
        except failures.ProxyError:
            done.put("the proxy did not connect")
        except failures.ChunkedEncodingError:
            done.put("the connection closed during the answer")
        except failures.ConnectionError as error:
            stopped = isinstance(next(iter(error.args), None), ReadTimeoutError)
            done.put(f"no answer within {self._timeout[1]:g} s" if stopped else "the connection failed or was closed")
        except Exception as error:
            done.put(type(error).__name__)


def _read(response: requests.Response) -> _Received:
    """Return the answer, at most ``MAX_BODY_BYTES`` of it. urllib3 decompresses no more than each chunk holds."""
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_content(CHUNK_BYTES):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            return _Received(response.status_code, response.headers, None, b"".join(chunks)[:SAMPLE_BYTES])
    return _Received(response.status_code, response.headers, b"".join(chunks), b"")


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
