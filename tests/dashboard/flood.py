"""Attacks on the page from one process: half-open connections, event streams, wrong tokens and malformed requests.

`flood.py PORT COOKIE` prints the answers of each attack by status as JSON. "closed" is a connection without an answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

HALF_OPEN, STREAMS, WRONG_TOKENS, MALFORMED = 300, 300, 10_000, 1000
WORKERS = 20
HEAD = "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n"
JSON = "Content-Type: application/json\r\n"


def request(method: str, path: str, more: str = "", body: bytes = b"") -> bytes:
    """Return a request of the page."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return HEAD.format(method=method, path=path, more=more + length).encode() + body


def login(body: bytes, more: str = JSON) -> bytes:
    """Return a request that signs in."""
    return request("POST", "/api/session", more, body)


CHUNKED = JSON + "Transfer-Encoding: chunked\r\n"
# Each is answered with a status from 400 to 499, or the connection is closed.
MALFORMED_REQUESTS = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    request("GET", "/static/%00"),
    request("GET", "/static/" + "%2e%2e/" * 8 + "etc/passwd"),
    request("GET", "/static/" + "n" * 400),
    request("GET", "/api/bars/AAPL?before=" + "9" * 5000),
    login(b'{"token":"\\ud800"}'),
    login(b'{"token":"' + b"\xff\xfe" + b'"}'),
    login(b"[" * 4000),
    login(b'{"token":' + b"9" * 4000 + b"}"),
    login(b'{"token":"a","other":"' + b"o" * 1000 + b'"}'),
    login(b'{"token":"' + b"t" * 1000 + b'"}'),
    login(b'{"token":"' + b"t" * 100_000 + b'"}'),
    login(b'{"token":"plain text"}', "Content-Type: text/plain\r\n"),
    login(b"\x00\x01\x02"),
    request("POST", "/api/session", JSON + "Content-Length: 64000000\r\n"),
    request("POST", "/api/session", JSON + "Content-Length: -1\r\n"),
    request("POST", "/api/session", JSON + "Content-Length: 5\r\nContent-Length: 6\r\n") + b"12345",
    request("POST", "/api/session", CHUNKED) + b"zz\r\nnot a size\r\n0\r\n\r\n",
    request("POST", "/api/session", CHUNKED) + b"10000\r\n" + b"c" * 0x10000 + b"\r\n0\r\n\r\n",
    request("DELETE", "/api/session", "Sec-Fetch-Site: cross-site\r\n"),
    request("BREW", "/api/session"),
    request("GET", "/api/events", "Cookie: barflow_session=" + "c" * 3000 + "\r\n"),
]  # fmt: skip


async def answer(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Return the status of an answer and its head, and read its body. An event stream has no end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    if "content-length: " in head:
        await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
    return head.split()[1], head


async def once(port: int, data: bytes) -> str:
    """Send one request on a connection of its own, and return the status."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        status, _ = await asyncio.wait_for(answer(reader), 30)
    except (OSError, asyncio.IncompleteReadError):
        return "closed"
    finally:
        if writer:
            writer.close()
    return status


async def half_open(port: int, until: asyncio.Event) -> Counter[str]:
    """Send half of a request's head on each of many connections, and hold them. Count those that the server closed."""
    held = []
    for _ in range(HALF_OPEN):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: ")
        held.append((reader, writer))
    await until.wait()
    await asyncio.sleep(11)  # longer than the server waits for a request
    counts: Counter[str] = Counter()
    for reader, writer in held:
        try:
            await asyncio.wait_for(reader.read(), 1)
            counts["closed"] += 1
        except ConnectionError:
            counts["closed"] += 1
        except TimeoutError:
            counts["open"] += 1
        writer.close()
    return counts


async def streams(port: int, cookie: str, until: asyncio.Event) -> Counter[str]:
    """Open many event streams of one session, and hold them. Count those that the server closed at once, too."""
    counts: Counter[str] = Counter()
    held = []
    for _ in range(STREAMS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("GET", "/api/events", f"Cookie: barflow_session={cookie}\r\n"))
        try:
            counts[(await answer(reader))[0]] += 1
        except (ConnectionError, asyncio.IncompleteReadError):
            counts["closed"] += 1
        held.append(writer)
    await until.wait()
    for writer in held:
        writer.close()
    return counts


async def wrong_tokens(port: int) -> Counter[str]:
    """Try wrong tokens from several addresses, each on one connection."""

    async def guess(worker: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.0.{2 + worker}", 0))
        for number in range(WRONG_TOKENS // WORKERS):
            writer.write(login(b'{"token":"guess-%d-%d"}' % (worker, number)))
            counts[(await answer(reader))[0]] += 1
        writer.close()
        return counts

    return sum(await asyncio.gather(*map(guess, range(WORKERS))), Counter[str]())


async def malformed(port: int) -> Counter[str]:
    """Send malformed requests, one after the other."""
    counts: Counter[str] = Counter()
    for number in range(MALFORMED):
        counts[await once(port, MALFORMED_REQUESTS[number % len(MALFORMED_REQUESTS)])] += 1
    return counts


async def main(port: int, cookie: str) -> dict[str, Counter[str]]:
    """Run every attack at the same time, and return the answers."""
    over = asyncio.Event()
    holding = [asyncio.create_task(half_open(port, over)), asyncio.create_task(streams(port, cookie, over))]
    tokens, broken = await asyncio.gather(wrong_tokens(port), malformed(port))
    over.set()
    opened, followed = await asyncio.gather(*holding)
    return {"half_open": opened, "streams": followed, "wrong_tokens": tokens, "malformed": broken}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(int(sys.argv[1]), sys.argv[2]))))
