"""Access to the page: security headers on every response, and a login with a token.

The login is a cookie that scripts cannot read and other sites cannot send. It holds its expiry and a signature under a
key derived from the token. A new token ends every login.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Callable, Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from barflow.errors import BadInputError

COOKIE = "barflow_session"
SESSION_SECONDS = 12 * 3600
MIN_TOKEN_LENGTH = 16
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
# No inline code, no other origin, no frame around the page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Return whether a server on this address is reachable from this host only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_token(token: str | None, host: str) -> str | None:
    """Return the token. Raise BadInputError for a short one, and for none on an address that others can reach."""
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        raise BadInputError(
            f"BARFLOW_DASHBOARD_TOKEN is shorter than {MIN_TOKEN_LENGTH} characters. Nothing was served. "
            "Create one with `openssl rand -hex 24`."
        )
    if token is None and not is_loopback(host):
        raise BadInputError(
            f"--host {host} can be reached from other hosts, and no BARFLOW_DASHBOARD_TOKEN is set. "
            "Nothing was served. Set one (`openssl rand -hex 24`), or leave --host at 127.0.0.1."
        )
    return token


class Logins:
    """Logins with one token; without a token no login is required. ``clock`` returns seconds since 1970."""

    def __init__(self, token: str | None, clock: Callable[[], float] = time.time) -> None:
        self._token, self._clock = token, clock
        self._key = hashlib.sha256(b"barflow dashboard session|" + (token or "").encode()).digest()

    @property
    def required(self) -> bool:
        """Return whether a visitor must sign in."""
        return self._token is not None

    def is_token(self, token: str) -> bool:
        """Return whether this is the token, by a comparison in constant time."""
        return self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())

    def new_cookie(self) -> str:
        """Return the cookie of a new login, valid for SESSION_SECONDS."""
        expires = str(int(self._clock()) + SESSION_SECONDS)
        return f"{expires}.{self._sign(expires)}"

    def is_valid(self, cookie: str) -> bool:
        """Return whether the cookie has our signature and has not expired. Without a token every cookie is valid."""
        if not self.required:
            return True
        expires, _, signature = cookie.partition(".")
        genuine = hmac.compare_digest(signature.encode(), self._sign(expires).encode())
        return genuine and expires.isdigit() and int(expires) > self._clock()

    def _sign(self, expires: str) -> str:
        return hmac.new(self._key, expires.encode(), hashlib.sha256).hexdigest()


class SecurityMiddleware:
    """Adds the security headers to every response, and rejects a request for data without a login.

    Without a token the page serves this host only. Then it rejects requests for any other host name, which prevents
    DNS rebinding. ``open_paths`` need no login.
    """

    def __init__(self, app: ASGIApp, logins: Logins, open_paths: Iterable[str]) -> None:
        self._app, self._logins, self._open = app, logins, frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store" if scope["path"].startswith("/api/") else "no-cache")
            await send(message)

        rejection = self._rejection(scope)
        await (rejection or self._app)(scope, receive, send_with_headers)

    def _rejection(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if not self._logins.required and _host_name(headers.get("host", "")) not in LOOPBACK_NAMES:
            return JSONResponse({"detail": "This server answers to localhost and 127.0.0.1 only."}, 400)
        if not scope["path"].startswith("/api/") or scope["path"] in self._open:
            return None
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return (
            None if self._logins.is_valid(cookie) else JSONResponse({"detail": "Sign in with the page's token."}, 401)
        )


def _host_name(host: str) -> str:
    """Return the host header without its port."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()
