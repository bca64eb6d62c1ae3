"""Who may see the page, and what may a browser do with it? Headers for every answer, and a login by a token.

The login is a cookie that scripts cannot read and other sites cannot send: its expiry and a signature of it under a
key made from the token. Whoever changes the token ends every session.
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
LEAST_TOKEN = 16
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
# Nothing inline, nothing from elsewhere, framed by nobody.
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
    """Whether a server bound to this host is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_token(token: str | None, host: str) -> str | None:
    """The token under which the page may be served on a host. Raises BadInputError where it may not be."""
    if token is not None and len(token) < LEAST_TOKEN:
        raise BadInputError(
            f"BARFLOW_DASHBOARD_TOKEN is shorter than {LEAST_TOKEN} characters. Nothing was served. "
            "Make one with `openssl rand -hex 24`."
        )
    if token is None and not is_loopback(host):
        raise BadInputError(
            f"--host {host} can be reached from other machines, and no BARFLOW_DASHBOARD_TOKEN is set. "
            "Nothing was served. Set one (`openssl rand -hex 24`), or leave --host at 127.0.0.1."
        )
    return token


class Logins:
    """Sessions under a token; without one everybody is let in. ``clock`` gives seconds since 1970."""

    def __init__(self, token: str | None, clock: Callable[[], float] = time.time) -> None:
        self._token, self._clock = token, clock
        self._key = hashlib.sha256(b"barflow dashboard session|" + (token or "").encode()).digest()

    @property
    def required(self) -> bool:
        return self._token is not None

    def accepts(self, token: str) -> bool:
        """Whether it is the token, found out in the same time wherever it differs."""
        return self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())

    def cookie(self) -> str:
        expires = str(int(self._clock()) + SESSION_SECONDS)
        return f"{expires}.{self._sign(expires)}"

    def holds(self, cookie: str) -> bool:
        """Whether a cookie is one of ours that has not expired."""
        if not self.required:
            return True
        expires, _, signature = cookie.partition(".")
        genuine = hmac.compare_digest(signature.encode(), self._sign(expires).encode())
        return genuine and expires.isdigit() and int(expires) > self._clock()

    def _sign(self, expires: str) -> str:
        return hmac.new(self._key, expires.encode(), hashlib.sha256).hexdigest()


class Guard:
    """Around the whole application: the headers of each answer, and no data without a login.

    Without a login the page is for this machine only; then only requests for one of its names are answered, so that
    another site's name that is made to point here reads nothing.
    """

    def __init__(self, app: ASGIApp, logins: Logins, open_paths: Iterable[str]) -> None:
        self._app, self._logins, self._open = app, logins, frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if not self._logins.required and _name(headers.get("host", "")) not in LOOPBACK_NAMES:
            return JSONResponse({"detail": "This server answers to localhost and 127.0.0.1 only."}, 400)
        if not scope["path"].startswith("/api/") or scope["path"] in self._open:
            return None
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return None if self._logins.holds(cookie) else JSONResponse({"detail": "Sign in with the page's token."}, 401)


def _name(host: str) -> str:
    """The host header without its port."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()
