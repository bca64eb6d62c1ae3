"""HTTP/1.1 of one connection, with limits on what uvicorn leaves unlimited: clients that are slow or silent."""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import Enum

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# A client sends a whole request, and reads what the connection buffers, within these times.
REQUEST_SECONDS = 10.0
SEND_SECONDS = 20.0
# Connections that may wait for their client. Beyond that, the client with most of them loses its oldest one.
MAX_WAITING = 200


class Phase(Enum):
    """What a connection waits for."""

    REQUEST = "the client sends a request"
    ANSWER = "the page answers"
    SENDING = "the client reads the answer"
    IDLE = "the client sends its next request, or closes"


SECONDS = {Phase.REQUEST: REQUEST_SECONDS, Phase.SENDING: SEND_SECONDS}


class PageProtocol(H11Protocol):
    """Closes a connection whose client is too slow, and the oldest waiting one where too many wait.

    uvicorn itself closes idle connections, and limits the size of a request's head.
    """

    _phase: Phase | None = None
    _since = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._follow()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._follow()

    def pause_writing(self) -> None:
        """Wait until the client has read a part of the answer."""
        super().pause_writing()
        self._follow()

    def resume_writing(self) -> None:
        """Continue the answer."""
        super().resume_writing()
        self._follow()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        super().connection_lost(exc)
        self._enter(None)

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request with the headers of every answer. In the middle of an answer, only close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [*self.server_state.default_headers, (b"content-type", b"text/plain; charset=utf-8")]
            start = h11.Response(status_code=400, headers=[*headers, (b"connection", b"close")], reason=b"Bad Request")
            for event in (start, h11.Data(data=msg.encode("ascii")), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def waits_for_client(self) -> bool:
        """Return whether the client must act next."""
        return self._phase not in (None, Phase.ANSWER) and not self.transport.is_closing()

    def _follow(self) -> None:
        """Enter the phase that the connection is in now."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.flow.write_paused:
            phase = Phase.SENDING
        elif self.conn.their_state is h11.SEND_BODY:
            phase = Phase.REQUEST
        elif answering:
            phase = Phase.ANSWER
        elif self.cycle is None or self.conn.trailing_data[0]:
            phase = Phase.REQUEST
        else:
            phase = Phase.IDLE
        if phase is not self._phase:
            self._enter(phase)

    def _enter(self, phase: Phase | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._phase, self._since = phase, self.loop.time()
        seconds = SECONDS.get(phase) if phase else None
        self._timer = self.loop.call_later(seconds, self.transport.abort) if seconds else None

    def _make_room(self) -> None:
        """Close a waiting connection where there are too many."""
        waiting = [item for item in self.connections if isinstance(item, PageProtocol) and item.waits_for_client]
        if len(waiting) > MAX_WAITING:
            [(busiest, _)] = Counter(item.host for item in waiting).most_common(1)
            min((item for item in waiting if item.host == busiest), key=lambda item: item._since).transport.abort()

    @property
    def host(self) -> str:
        """Return the client's address."""
        return self.client[0] if self.client else ""
