"""Access to the page: its settings, the headers of every answer, and which requests are answered at all."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from barflow.errors import BadInputError
from dashboard.logins import Logins

COOKIE, BROWSER_COOKIE = "barflow_session", "barflow_browser"
MIN_TOKEN_LENGTH = 16
MAX_BODY_BYTES = 4096
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
HSTS = {"strict-transport-security": "max-age=31536000"}


def is_https(url: str | None) -> bool:
    """Return whether visitors open the page by https, at this URL."""
    return url is not None and url.startswith("https:")


def is_loopback(host: str) -> bool:
    """Return whether a server on this address is reachable from this host only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_token(token: str | None, host: str, url: str | None = None, proxies: Iterable[str] = ()) -> str | None:
    """Return the token.

    Raises BadInputError for a short one, for none where others can reach the page, and for an https ``url`` without
    ``proxies`` that end TLS.
    """
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
    if token is None and url:
        raise BadInputError(
            "BARFLOW_PAGE_URL opens the page to others, and no BARFLOW_DASHBOARD_TOKEN is set. "
            "Nothing was served. Set one (`openssl rand -hex 24`)."
        )
    if is_https(url) and not tuple(proxies):
        raise BadInputError(
            "BARFLOW_PAGE_URL is https, and the page itself speaks plain HTTP. Nothing was served. "
            "Set BARFLOW_PAGE_PROXIES to the addresses of the proxy that ends TLS."
        )
    return token


class SecurityMiddleware:
    """Answers only requests for the page's own host names, from the page itself, and with a login where one is needed.

    ``url`` is the URL at which visitors open the page. Without a token the page serves this host only. Checking the
    name prevents DNS rebinding. ``open_paths`` need no login, and ``any_host_paths`` are answered under any name.
    """

    def __init__(
        self,
        app: ASGIApp,
        logins: Logins,
        url: str | None,
        open_paths: Iterable[str],
        any_host_paths: Iterable[str],
    ) -> None:
        self._app, self._logins, self._url = app, logins, url
        self._own_host = urlsplit(url).hostname if url else None
        self._open, self._any_host = frozenset(open_paths), frozenset(any_host_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_caching(message: Message) -> None:
            if message["type"] == "http.response.start":
                caching = "no-store" if scope["path"].startswith("/api/") else "no-cache"
                MutableHeaders(scope=message).setdefault("cache-control", caching)
            await send(message)

        rejection = self._rejection(scope)
        await (rejection or self._app)(scope, receive, send_with_caching)

    def _rejection(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if scope["path"] not in self._any_host and (problem := self._wrong_host(scope, headers)):
            return JSONResponse({"detail": problem}, 400)
        if not scope["path"].startswith("/api/"):
            return None
        if is_cross_site(headers):
            return JSONResponse({"detail": "Another site sent this request."}, 403)
        if scope["path"] in self._open:
            return None
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return (
            None if self._logins.is_valid(cookie) else JSONResponse({"detail": "Sign in with the page's token."}, 401)
        )

    def _wrong_host(self, scope: Scope, headers: Headers) -> str:
        """Return why a request for this host name is not answered, or nothing."""
        host = host_name(headers.get("host", ""))
        client = scope.get("client")
        if host in LOOPBACK_NAMES and (not self._logins.required or (client and is_loopback(client[0]))):
            return ""
        if not self._logins.required:
            return "This server answers to localhost and 127.0.0.1 only."
        if is_https(self._url):
            secure = host == self._own_host and scope["scheme"] == "https"
            return "" if secure else f"Open the page at {self._url}"
        # A rebound name is never an address.
        known = host == self._own_host or _is_address(host)
        return "" if known else "This server does not know that host name. Its setting is BARFLOW_PAGE_URL."


def is_cross_site(headers: Headers) -> bool:
    """Return whether a browser says that another site sent a request. Programs send neither header."""
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def host_name(host: str) -> str:
    """Return the host header without its port."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
