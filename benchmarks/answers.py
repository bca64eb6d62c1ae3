"""How are both clients given the same answer? By an HTTP adapter that has it ready; and how long do they take?"""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import requests
from requests.adapters import BaseAdapter

ROUNDS = 40


def canned(body: bytes) -> requests.Session:
    """A session that gets this body whenever it asks for bars."""
    session = requests.Session()
    session.mount("https://", _Canned(body))
    return session


def milliseconds(work: Callable[[], object]) -> float:
    """The quickest of some rounds: the others were disturbed."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return 1000 * min(taken)


class _Canned(BaseAdapter):
    """Answers every request for bars with the same body."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.request, response.url = 200, request, request.url or ""
        response.headers["Content-Type"] = "application/json; charset=utf-8"
        response.encoding = "utf-8"
        # The other one is what the official client asks for when it is made: the list of indicators.
        response.raw = BytesIO(self.body if "/time_series" in response.url else b'{"data":{}}')
        return response

    def close(self) -> None:
        """There is nothing to close."""
