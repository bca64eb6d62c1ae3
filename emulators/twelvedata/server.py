"""The Twelve Data emulator as an HTTP server on a free loopback port, in a thread or as a process.

In a test: ``with TwelveDataEmulator(SyntheticBars()) as api: requests.get(f"{api.url}/time_series", …)``.
As a process: ``python -m emulators.twelvedata.server --seed 7`` prints its URL and serves until SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import queue
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from barflow.errors import BadInputError, BarflowError
from barflow.market.recordings import Recording
from barflow.market.sessions import utc_now
from emulators.twelvedata.answers import Answers, Call, injected_error
from emulators.twelvedata.bar_source import BarSource
from emulators.twelvedata.credits import Credits
from emulators.twelvedata.errors import Refusal
from emulators.twelvedata.query import symbols_of
from emulators.twelvedata.script import NO_SCRIPT, MarketScript
from emulators.twelvedata.switches import Fault, Switches
from local.synthetic import SyntheticBars

LOOPBACK = "127.0.0.1"
START_SECONDS = 20.0
_JSON = "application/json"
_GATEWAY_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"


class TwelveDataEmulator:
    """The Twelve Data API on a loopback port, from ``__enter__`` to ``__exit__``.

    While it runs, ``switches`` can be changed and ``requests`` read.
    """

    def __init__(
        self,
        source: BarSource,
        *,
        clock: Callable[[], datetime] | None = None,
        api_key: str = "emulator-key",
        credits_per_minute: int | None = None,
        credits_per_day: int | None = None,
        switches: Switches | None = None,
        port: int = 0,
    ):
        """Serve the bars of a source; ``clock`` returns the time in UTC.

        The actions of the source's script are shown where ``switches`` name no others for the symbol.

        Without a clock, the data is as of ``source.as_of`` if the source has one, and credits follow the real clock. So
        a recorded market stands still, and a minute's credits are restored after the minute.
        """
        as_of = source.as_of
        self.source = source
        self.clock = clock or ((lambda: as_of) if as_of is not None else utc_now)
        self.switches = switches if switches is not None else Switches()
        script: MarketScript = getattr(source, "script", NO_SCRIPT)  # a recording has none
        self.switches.splits = {**script.splits, **self.switches.splits}
        self.switches.dividends = {**script.dividends, **self.switches.dividends}
        self.requests: list[Call] = []
        self.url = ""
        self._port = port
        credits = Credits(clock or utc_now, credits_per_minute, credits_per_day)
        self._answers = Answers(source, self.clock, credits, self.switches, api_key, script)
        self._closing: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> TwelveDataEmulator:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((LOOPBACK, self._port))
        except OSError as error:
            self._socket.close()
            raise BadInputError(
                f"Cannot listen on port {self._port}: {error.strerror}. Choose another port, or 0 for a free one."
            ) from None
        config = uvicorn.Config(
            _with_transport(self._app()),
            http="h11",
            ws="none",
            loop="asyncio",
            log_level=logging.CRITICAL,
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=60,  # longer than the pause between a live demo's ticks
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="twelvedata-emulator", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"the Twelve Data emulator did not start in {START_SECONDS:.0f} s")
            time.sleep(0.005)
        self.url = f"http://{LOOPBACK}:{self._socket.getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._loop is not None and self._closing is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(timeout=10)
        self._socket.close()

    def _serve(self) -> None:
        async def serve() -> None:
            self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
            await self._server.serve(sockets=[self._socket])

        asyncio.run(serve())

    def _app(self) -> FastAPI:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.get("/time_series")
        async def time_series(request: Request) -> Response:
            call, key = self._record(request)
            faults = self.switches.take_faults(tuple(symbol.upper() for symbol in call.symbols))
            call.faults = [fault.kind for fault in faults]
            await self._pause(self.switches.latency)
            return await self._answer(
                call, faults, lambda: self._answers.time_series(call, request.query_params, key, faults)
            )

        @app.get("/earliest_timestamp")
        async def earliest_timestamp(request: Request) -> Response:
            call, key = self._record(request)
            await self._pause(self.switches.latency)
            return await self._answer(call, [], lambda: self._answers.earliest(call, request.query_params, key))

        @app.get("/splits")
        @app.get("/dividends")
        async def listing(request: Request) -> Response:
            call, key = self._record(request)
            await self._pause(self.switches.latency)
            return await self._answer(call, [], lambda: self._answers.listing(call, request.query_params, key))

        @app.get("/api_usage")
        async def api_usage(request: Request) -> Response:
            call, key = self._record(request)
            await self._pause(self.switches.latency)
            return await self._answer(call, [], lambda: self._answers.usage(call, key))

        return app

    def _record(self, request: Request) -> tuple[Call, str | None]:
        """Add the request to ``requests`` without its key; return both."""
        params = dict(request.query_params)
        url_key = params.pop("apikey", None)
        scheme, _, header_key = request.headers.get("authorization", "").partition(" ")
        in_header = scheme.lower() == "apikey" and header_key.strip() != ""
        key_in = "header" if in_header else "url" if url_key is not None else None
        call = Call(request.url.path, params, symbols_of(params), key_in, self.clock())
        self.requests.append(call)
        return call, header_key.strip() if in_header else url_key

    async def _answer(self, call: Call, faults: list[Fault], body: Callable[[], bytes]) -> Response:
        for fault in faults:
            if fault.kind == "dropped":
                return _DroppedResponse()
            if fault.kind == "http_error":
                call.status = fault.status
                page = _GATEWAY_PAGE.format(f"{fault.status} Gateway error")
                return Response(page, fault.status, media_type="text/html")
        try:
            for fault in faults:
                if fault.kind == "vendor_error" and (fault.symbol is None or len(call.symbols) == 1):
                    raise injected_error(fault)
            content, call.status = body(), 200
        except Refusal as refusal:
            content, call.status = (
                orjson.dumps(refusal.body),
                200 if self.switches.error_status_is_200 else refusal.code,
            )
        headers = self._answers.credits.headers if self.switches.credit_headers and call.credits else {}
        kinds = {fault.kind for fault in faults}
        if "truncated_json" in kinds:
            content = content[: len(content) // 2]
        for fault in faults:
            if fault.kind == "timeout":
                await self._pause(fault.seconds)  # the body is made before: the call has used its credits
            elif fault.kind == "gzip_bomb":
                content, headers = _bomb(content, fault.size), {**headers, "Content-Encoding": "gzip"}
            elif fault.kind in ("slow_drip", "slow_headers"):
                return _DripResponse(fault, self._pause)
        response = _BrokenOffResponse if "broken_off" in kinds else Response
        return response(content, call.status, headers, media_type=_JSON)

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than the server runs."""
        if seconds > 0 and self._closing is not None:
            try:
                await asyncio.wait_for(self._closing.wait(), seconds)
            except TimeoutError:
                return


def _with_transport(app: ASGIApp) -> ASGIApp:
    """Put uvicorn's transport into the scope: ASGI cannot close a connection without an answer."""

    async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
        scope["barflow.transport"] = getattr(getattr(send, "__self__", None), "transport", None)
        await app(scope, receive, send)

    return with_transport


class _DroppedResponse(Response):
    """A response that closes the connection before the first byte."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["barflow.transport"].abort()
        await receive()  # the request, whole
        await receive()  # the disconnect, after which uvicorn does not expect an answer


class _BrokenOffResponse(Response):
    """A response that closes the connection after half of the body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = self.body[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        scope["barflow.transport"].close()


def _bomb(content: bytes, size: int) -> bytes:
    """Return the content and at least ``size`` blanks after it, compressed."""
    packer, blanks = zlib.compressobj(wbits=31), b" " * 1_000_000
    parts = [packer.compress(content), *(packer.compress(blanks) for _ in range(-(-size // len(blanks))))]
    return b"".join([*parts, packer.flush()])


class _DripResponse(Response):
    """A response that sends a byte at a time and never ends, from the body or from the first header on."""

    def __init__(self, fault: Fault, pause: Callable[[float], Awaitable[None]]) -> None:
        super().__init__()
        self._fault, self._pause = fault, pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = scope["barflow.transport"]
        start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        transport.write(start + (b"X-Slow: " if self._fault.kind == "slow_headers" else b"\r\n"))
        while not transport.is_closing():
            transport.write(b" ")
            await self._pause(self._fault.seconds)
        await receive()  # the request, whole
        await receive()  # the disconnect, after which uvicorn does not expect an answer


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Print the URL; write it to the ``--ready-file`` once the server answers."""
    parser = argparse.ArgumentParser(prog="python -m emulators.twelvedata.server", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="port; 0 (default) takes a free one")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--seed", type=int, default=7, help="seed of the synthetic sessions (default: 7)")
    what.add_argument("--replay", type=Path, help="serve a CSV file or a folder of JSON answers instead")
    parser.add_argument(
        "--now", type=datetime.fromisoformat, help="stop the clock at this time: 2026-11-20T21:00+00:00"
    )
    parser.add_argument("--credits-per-minute", type=int, help="limit of API credits (default: none)")
    parser.add_argument("--credits-per-day", type=int, help="limit of API credits (default: none)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--ready-file", type=Path, help="write the URL to this file when the server answers")
    options = parser.parse_args(arguments)
    if options.now is not None and options.now.tzinfo is None:
        parser.error("--now needs a time zone, such as 2026-11-20T21:00+00:00")
    try:
        _serve_until_signal(options)
    except BarflowError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _serve_until_signal(options: argparse.Namespace) -> None:
    source = Recording.load(options.replay) if options.replay else SyntheticBars(options.seed)
    stop = queue.SimpleQueue[None]()  # a signal handler can put into it; an Event could deadlock
    emulator = TwelveDataEmulator(
        source,
        clock=(lambda: options.now) if options.now else None,
        credits_per_minute=options.credits_per_minute,
        credits_per_day=options.credits_per_day,
        switches=Switches(latency=options.latency),
        port=options.port,
    )
    with emulator as api:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.put(None))
        print(api.url, flush=True)
        print(f"serving {source.describe}", file=sys.stderr)
        if options.ready_file:
            part = options.ready_file.with_name(options.ready_file.name + ".part")
            part.write_text(api.url)
            part.replace(options.ready_file)
        stop.get()


if __name__ == "__main__":
    sys.exit(main())
