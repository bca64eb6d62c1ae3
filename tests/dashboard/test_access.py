"""Attacks on the page's server before and after login. Each is answered with 4xx or ends, and nothing is echoed."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from page_data import TOKEN
from pymongo.database import Database

from barflow.staging.connection import Document
from dashboard import live, logins, protocol, server
from dashboard.security import HEADERS, HSTS, MAX_BODY_BYTES

Served = Callable[..., AbstractContextManager[str]]
MARK = "marked-by-the-attacker"


def raw(url: str, data: bytes = b"", source: str = "127.0.0.1", small: bool = False) -> socket.socket:
    """Return a connection on which these bytes were sent. ``small`` limits what the system receives unread."""
    connection = socket.socket()
    if small:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.bind((source, 0))
    connection.connect(("127.0.0.1", urlsplit(url).port or 0))
    connection.sendall(data)
    return connection


def everything(connection: socket.socket) -> bytes:
    """Return all that the server sends until it closes the connection."""
    with closing(connection):
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            pass
        return received


def read_status(connection: socket.socket) -> int:
    """Read one whole response, and return its status."""
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def sign_in(url: str, token: str = TOKEN, **options: Any) -> requests.Response:
    return requests.post(f"{url}/api/session", json={"token": token}, timeout=20, **options)


def follow(url: str, cookies: Any) -> requests.Response:
    return requests.get(f"{url}/api/events", cookies=cookies, stream=True, timeout=20)


def ends(stream: requests.Response) -> bool:
    """Return whether the stream ends soon. Pings would keep it open."""
    started = time.monotonic()
    list(stream.iter_lines(chunk_size=1))
    return time.monotonic() - started < 10


@pytest.fixture
def page(served: Served) -> Iterator[str]:
    with served(token=TOKEN) as url:
        yield url


def broken() -> None:
    raise ZeroDivisionError(MARK)


def test_every_answer_has_the_security_headers_and_repeats_nothing_of_the_request(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    post = b"POST /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    long = json.dumps({"token": MARK * 1000}).encode()
    attacks = {
        200: [b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"],
        400: [
            b"GET / HTTP/1.1\r\nHost: marked-by-the-attacker\r\nConnection: close\r\n\r\n",
            b"marked-by-the-attacker\r\n\r\n",
            post + b"Transfer-Encoding: chunked\r\n\r\nmarked-by-the-attacker\r\n",
        ],
        401: [
            b"GET /api/watchlist?marked-by-the-attacker HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            post + b'Content-Length: 34\r\n\r\n{"token":"marked-by-the-attacker"}',
        ],
        404: [b"GET /marked-by-the-attacker HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"],
        405: [b"PUT / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"],
        413: [
            post + b"Content-Length: %d\r\n\r\n" % len(long) + long,
            post + b"Content-Length: 64000000\r\n\r\n" + MARK.encode(),
            post + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(long) + long + b"\r\n0\r\n\r\n",
        ],
        422: [
            post + b'Content-Length: 18\r\n\r\n{"token":"\\ud800"}',
            post + b'Content-Length: 36\r\n\r\n{"token":["marked-by-the-attacker"]}',
            post + b'Content-Length: 38\r\n\r\n{"marked-by-the-attacker":1,"token":1}',
            post + b'Content-Length: 23\r\n\r\n"marked-by-the-attacker',
        ],
        500: [b"GET /fault HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"],
    }  # fmt: skip
    with served(token=TOKEN, fault=broken) as url:
        for status, requested in attacks.items():
            for request in requested:
                head, _, body = everything(raw(url, request)).partition(b"\r\n\r\n")
                lines = head.decode().splitlines()
                given = dict(line.split(": ", 1) for line in lines[1:])
                assert int(lines[0].split()[1]) == status, request
                assert HEADERS.items() <= given.items(), request
                assert MARK not in (head + body).decode(), request
        assert "ZeroDivisionError" in capfd.readouterr().err, "the fault is logged"


def test_a_body_above_the_limit_is_not_read(page: str) -> None:
    head = f"POST /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n"
    with closing(raw(page, head.encode())) as connection:
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_request_beyond_the_connection_limit_has_the_security_headers(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    with served() as url, ExitStack() as held:
        for _ in range(3):
            held.enter_context(closing(raw(url)))
        answer = requests.get(url, timeout=20)
    assert answer.status_code == 503
    assert HEADERS.items() <= dict(answer.headers.lower_items()).items()


def test_a_slow_client_loses_its_connection(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SECONDS", {protocol.Phase.REQUEST: 1.0, protocol.Phase.SENDING: 1.0})
    get = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    post = b"POST /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    library = b"GET /static/vendor/lightweight-charts.mjs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with served(token=TOKEN) as url:
        silent = [
            raw(url),
            raw(url, get),
            raw(url, post + b"Content-Length: 30\r\n\r\n{"),
            raw(url, get + b"\r\n" + get),
        ]
        unread = raw(url, library * 40, small=True)
        dripping = raw(url, get)
        started = time.monotonic()
        try:
            while time.monotonic() - started < 10:
                dripping.sendall(b"X: drip\r\n")
                time.sleep(0.2)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - started < 5, "each byte must not extend the time"
        assert b"200 OK" not in b"".join(map(everything, silent[:3]))
        assert b"200 OK" in everything(silent[3])
        time.sleep(2)
        assert len(everything(unread)) < 40 * 100_000, "the server gave up"
        with closing(raw(url, get + b"\r\n")) as idle:
            assert read_status(idle) == 200
            time.sleep(2)
            idle.sendall(get + b"\r\n")
            assert read_status(idle) == 200, "an idle connection stays open"


def test_the_client_with_most_waiting_connections_loses_its_oldest(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_WAITING", 5)
    half = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with served() as url, ExitStack() as held:
        analyst = held.enter_context(closing(raw(url, half, source="127.0.0.3")))
        attacker = [held.enter_context(closing(raw(url, half, source="127.0.0.2"))) for _ in range(20)]
        assert requests.get(url, timeout=20).status_code == 200
        analyst.sendall(b"\r\n")
        assert analyst.recv(15) == b"HTTP/1.1 200 OK", "the oldest connection of all, but of another client"
        assert [is_closed(connection) for connection in attacker[:15]] == [True] * 15
        assert not is_closed(attacker[-1])


def test_a_malformed_request_during_an_event_stream_only_closes_it(
    page: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    cookie = sign_in(page).cookies["barflow_session"]
    head = f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: barflow_session={cookie}\r\n"
    connection = raw(page, (head + "Transfer-Encoding: chunked\r\n\r\n").encode())
    assert b"200 OK" in connection.recv(65536)
    connection.sendall(b"not a size\r\n")
    assert everything(connection) == b""
    assert (capfd.readouterr().err, caplog.text) == ("", "")


def test_wrong_tokens_are_limited_and_a_known_browser_is_not_locked_out(page: str) -> None:
    known = sign_in(page).cookies
    answers = [sign_in(page, "wrong") for _ in range(30)]
    assert [answer.status_code for answer in answers[:10]] == [401] * 10
    assert {answer.status_code for answer in answers[11:]} <= {401, 429}
    late = next(answer for answer in reversed(answers) if answer.status_code == 429)
    assert late.json()["detail"] == f"Too many wrong tokens. Try again in {late.headers['retry-after']} s."
    assert sign_in(page).status_code == 429
    assert sign_in(page, cookies={"barflow_browser": known["barflow_browser"]}).status_code == 200
    assert requests.get(f"{page}/api/watchlist", cookies=known, timeout=20).status_code == 200


def test_signing_out_ends_the_session_everywhere_and_its_streams(page: str) -> None:
    answer = sign_in(page)
    for line in answer.headers["set-cookie"].split(", barflow"):
        assert "HttpOnly" in line
        assert "samesite=strict" in line.lower()
        assert TOKEN not in line
    copied, other = answer.cookies.get_dict(), sign_in(page).cookies.get_dict()
    with follow(page, copied) as stream, follow(page, other) as kept:
        assert (stream.status_code, kept.status_code) == (200, 200)
        assert requests.delete(f"{page}/api/session", cookies=copied, timeout=20).status_code == 200
        assert ends(stream)
        assert requests.get(f"{page}/api/watchlist", cookies=copied, timeout=20).status_code == 401
        assert follow(page, copied).status_code == 401
        assert requests.get(f"{page}/api/watchlist", cookies=other, timeout=20).status_code == 200
        state = requests.get(f"{page}/api/session", cookies=other, timeout=20).json()
        assert state == {"login_required": True, "signed_in": True}
        again = sign_in(page, cookies=other)
        assert again.status_code == 200
        assert ends(kept), "a new login in the same browser replaces its session"


def test_an_event_stream_ends_when_its_session_expires(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "SESSION_SECONDS", 2)
    with served(token=TOKEN) as url, follow(url, sign_in(url).cookies) as stream:
        assert stream.status_code == 200
        assert ends(stream)


def test_event_streams_are_limited_per_visitor_and_in_all(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_PAGES_OF_VISITOR", 2)
    monkeypatch.setattr(live, "MAX_PAGES", 3)
    with served(token=TOKEN) as url:
        one, other = sign_in(url).cookies, sign_in(url).cookies
        streams = [follow(url, cookies) for cookies in (one, one, one, other, other)]
        assert [stream.status_code for stream in streams] == [200, 200, 429, 200, 429]
        streams[0].close()
        deadline = time.monotonic() + 20
        while (again := follow(url, other)).status_code != 200:
            assert time.monotonic() < deadline, "a closed stream makes room"
            time.sleep(0.2)
        for stream in (*streams, again):
            stream.close()


def test_another_site_can_neither_log_in_nor_out_nor_read(page: str) -> None:
    cookies = sign_in(page).cookies
    for browser in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://evil.example"},
                    {"origin": "null"}, {"origin": "http://127.0.0.1:1"}):  # fmt: skip
        assert sign_in(page, headers=browser).status_code == 403
        for method, path in (
            ("GET", "watchlist"),
            ("GET", "why"),
            ("GET", "events"),
            ("GET", "session"),
            ("DELETE", "session"),
        ):
            url = f"{page}/api/{path}"
            assert requests.request(method, url, headers=browser, cookies=cookies, timeout=20).status_code == 403
        assert requests.get(page, headers=browser, timeout=20).status_code == 200, "a link from another site opens it"
    text = requests.post(f"{page}/api/session", json.dumps({"token": TOKEN}), headers={"content-type": "text/plain"})
    assert text.status_code == 422, "a form of another site cannot send JSON"
    own = {"sec-fetch-site": "same-origin", "origin": page}
    assert requests.get(f"{page}/api/watchlist", headers=own, cookies=cookies, timeout=20).status_code == 200


def status(url: str, path: str = "/", **headers: str) -> int:
    return requests.get(url + path, headers=headers, timeout=20).status_code


def test_other_host_names_are_rejected_except_by_the_health_check(served: Served) -> None:
    with served() as url:
        assert [status(url, host=name) for name in ("localhost:1", "[::1]:1", "10.0.0.1", "evil.example", "")] == [
            200, 200, 400, 400, 400,
        ]  # fmt: skip
    with served(token=TOKEN, url="http://bars.example.com") as url:
        names = (
            "localhost",
            "10.0.0.1:8050",
            "[fd00::1]:8050",
            "bars.example.com",
            "BARS.example.com:80",
            "evil.example",
        )
        assert [status(url, host=name) for name in names] == [200, 200, 200, 200, 200, 400]
        assert status(url, "/healthz", host="evil.example") == 200


def test_behind_a_proxy_cookies_are_secure_and_only_its_forwarded_headers_are_believed(served: Served) -> None:
    name = {"host": "bars.example.com"}
    forwarded = name | {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9, 198.51.100.7"}
    with served(token=TOKEN, url="https://bars.example.com", proxies=("127.0.0.1/32",)) as url:
        answer = sign_in(url, headers=forwarded)
        assert answer.status_code == 200
        assert answer.headers["set-cookie"].lower().count("; secure") == 2
        assert HSTS.items() <= dict(answer.headers.lower_items()).items()
        plain = requests.get(url, headers=name, timeout=20)
        assert (plain.status_code, plain.json()) == (400, {"detail": "Open the page at https://bars.example.com"})
        assert status(url, **forwarded | {"host": "10.0.0.1"}) == 400
        assert status(url, host="localhost") == 200, "Session Manager forwards a port of the host"
        assert status(url, **forwarded | {"host": "localhost"}) == 400, "the visitor is not on this host"
        assert [sign_in(url, "wrong", headers=forwarded).status_code for _ in range(12)][-1] == 429
        other = forwarded | {"x-forwarded-for": "198.51.100.7, 203.0.113.9"}
        assert sign_in(url, headers=other).status_code == 200, "the last address is the visitor's"
    with served(token=TOKEN, url="https://bars.example.com", proxies=("10.0.0.0/24",)) as url:
        assert status(url, **forwarded) == 400
        answer = sign_in(url, headers={"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9"})
        assert "secure" not in answer.headers["set-cookie"].lower()
    with served(token=TOKEN) as url:
        for number in range(12):
            spoofed = sign_in(url, "wrong", headers={"x-forwarded-for": f"203.0.113.{number}"})
        assert spoofed.status_code == 429


def test_data_require_a_login_and_the_health_check_does_not(page: str, database: Database[Document]) -> None:
    for path in ("watchlist", "bars/AAPL", "alerts", "health", "why?symbol=AAPL&time=x", "events", "openapi.json"):
        assert status(page, f"/api/{path}") == 401
    assert requests.get(f"{page}/healthz", timeout=20).json() == {"ok": True, "detail": ""}
