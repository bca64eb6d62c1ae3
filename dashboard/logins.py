"""Logins to the page: sessions on the server, and limits on wrong tokens.

A browser that has signed in once keeps a second cookie, and its attempts are counted on their own. So nobody who
guesses tokens can keep it out. Everything runs in the event loop, without locks.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

SESSION_SECONDS = 12 * 3600
BROWSER_SECONDS = 365 * 24 * 3600
MAX_SESSIONS = 1000
# Wrong tokens: this many at once, and then one after each so many seconds.
CLIENT_ATTEMPTS, CLIENT_SECONDS = 10, 6.0
TOTAL_ATTEMPTS, TOTAL_SECONDS = 100, 1.0
# Clients whose wrong tokens are counted. Beyond that, the count that changed least recently is dropped.
MAX_CLIENTS = 1000
Clock = Callable[[], float]


class TooManyAttemptsError(Exception):
    """Too many wrong tokens: the next one is checked after ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = math.ceil(seconds)


class Attempts:
    """Wrong tokens per key: at most ``burst`` at once, and then one after each ``seconds``."""

    def __init__(self, burst: int, seconds: float, clock: Clock) -> None:
        self._seconds, self._reserve, self._clock = seconds, (burst - 1) * seconds, clock
        self._used_up_until: OrderedDict[str, float] = OrderedDict()

    def wait(self, key: str) -> float:
        """Return the seconds until the key may try again; 0 if it may now."""
        return max(0.0, self._used_up_until.get(key, 0.0) - self._clock() - self._reserve)

    def count(self, key: str) -> None:
        """Count a wrong token."""
        self._used_up_until[key] = max(self._used_up_until.pop(key, 0.0), self._clock()) + self._seconds
        if len(self._used_up_until) > MAX_CLIENTS:
            self._used_up_until.popitem(last=False)


class Logins:
    """Logins with one token; without a token no login is required. A session ends with the server, too."""

    def __init__(
        self, token: str | None, ended: Callable[[str], None] = lambda session: None, clock: Clock = time.time
    ) -> None:
        """Start without a session. ``ended`` is called with each session that ends. ``clock`` returns seconds."""
        self._token, self._ended, self._clock = _digest(token) if token else None, ended, clock
        self._key = _digest(f"barflow dashboard browser|{token}")
        self._expires: OrderedDict[str, float] = OrderedDict()  # by session; the oldest one comes first
        self._by_client = Attempts(CLIENT_ATTEMPTS, CLIENT_SECONDS, clock)
        self._by_browser = Attempts(CLIENT_ATTEMPTS, CLIENT_SECONDS, clock)
        self._in_total = Attempts(TOTAL_ATTEMPTS, TOTAL_SECONDS, clock)

    @property
    def required(self) -> bool:
        """Return whether a visitor must sign in."""
        return self._token is not None

    def sign_in(self, token: str, client: str, browser: str = "") -> str | None:
        """Return the cookie of a new session, or None for a wrong token. ``client`` is the visitor's address.

        ``browser`` is the cookie of a browser that has signed in before, or empty. Raises TooManyAttemptsError; the
        token was not checked then.
        """
        known = self._known_browser(browser)
        counts = [(self._by_browser, known)] if known else [(self._by_client, network(client)), (self._in_total, "")]
        if seconds := max(attempts.wait(key) for attempts, key in counts):
            raise TooManyAttemptsError(seconds)
        # Both digests have the same length, so the time of the comparison depends on nothing.
        if self._token is None or not hmac.compare_digest(_digest(token), self._token):
            for attempts, key in counts:
                attempts.count(key)
            return None
        cookie = secrets.token_urlsafe(32)
        self._expires[_name(cookie)] = self._clock() + SESSION_SECONDS
        while len(self._expires) > MAX_SESSIONS:
            self._end(next(iter(self._expires)))
        return cookie

    def session(self, cookie: str) -> str | None:
        """Return the session of a cookie, or None if it has ended. Without a token there is no session."""
        expires = self._expires.get(name := _name(cookie))
        if expires is None:
            return None
        if expires <= self._clock():
            self._end(name)
            return None
        return name

    def is_valid(self, cookie: str) -> bool:
        """Return whether the cookie belongs to a session. Without a token every cookie is valid."""
        return not self.required or self.session(cookie) is not None

    def seconds_left(self, session: str) -> float:
        """Return the seconds until a session expires."""
        return self._expires.get(session, 0.0) - self._clock()

    def sign_out(self, cookie: str) -> None:
        """End the session of a cookie, wherever the cookie was copied to."""
        if session := self.session(cookie):
            self._end(session)

    def new_browser(self) -> str:
        """Return the cookie of a browser that has signed in. A new token makes it invalid."""
        nonce = secrets.token_hex(16)
        return f"{nonce}.{self._sign(nonce)}"

    def _known_browser(self, cookie: str) -> str:
        nonce, _, signature = cookie.partition(".")
        return nonce if hmac.compare_digest(signature.encode(), self._sign(nonce).encode()) else ""

    def _sign(self, nonce: str) -> str:
        return hmac.new(self._key, nonce.encode(), hashlib.sha256).hexdigest()

    def _end(self, session: str) -> None:
        del self._expires[session]
        self._ended(session)


def network(client: str) -> str:
    """Return the address of a client, or the /64 network of an IPv6 address: one client has all of it."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 4:
        return client
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))


def _name(cookie: str) -> str:
    """Return the name of a cookie's session. The cookie itself is not stored."""
    return _digest(cookie).hex()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
