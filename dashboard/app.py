"""The page's application: the JSON API, the event stream and the page's own files. It only reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as UrlPath
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from pymongo.database import Database
from starlette.middleware.gzip import GZipMiddleware

from barflow import __version__
from barflow.errors import BadInputError, BarflowError
from barflow.lake.partitions import Lake
from barflow.market.sessions import utc_now
from barflow.staging.connection import Document
from barflow.symbols import MAX_LENGTH, PATTERN
from dashboard import watch
from dashboard.candles import candle_page
from dashboard.health import read_health
from dashboard.live import Live
from dashboard.models import Alerts, Bars, Health, Interval, Login, Problem, SessionState, Watchlist, WatchRow
from dashboard.queries import Warehouse
from dashboard.security import COOKIE, SESSION_SECONDS, Logins, SecurityMiddleware
from dashboard.staged import Staged

HERE = Path(__file__).parent
STATIC = HERE / "static"
CHARTS = "lightweight-charts.standalone.production.mjs"
# The chart library is beside the page in a release, in node_modules in a checkout.
CHARTS_PATHS = (STATIC / "vendor" / CHARTS, HERE.parent / "node_modules/lightweight-charts/dist" / CHARTS)
POLL_SECONDS = 1.0
WRONG_TOKEN_SECONDS = 0.5
# 2100-01-01: no bar opens after it.
LAST_SECOND = 4_102_444_800

# In upper or lower case.
SYMBOL = PATTERN.replace("A-Z", "A-Za-z")
Symbol = Annotated[str, UrlPath(pattern=SYMBOL, max_length=MAX_LENGTH, description="a symbol such as AAPL or BRK.B")]
Limit = Annotated[int, Query(ge=1, le=2000, description="how many candles to return")]
Before = Annotated[
    int | None,
    Query(ge=0, le=LAST_SECOND, description="return only candles that open before this moment, in seconds since 1970"),
]
ERRORS: dict[int | str, dict[str, object]] = {
    400: {"model": Problem, "description": "the request cannot be answered"},
    401: {"model": Problem, "description": "the caller is not signed in"},
    503: {"model": Problem, "description": "a store does not answer"},
}
UNKNOWN: dict[int | str, dict[str, object]] = {404: {"model": Problem, "description": "the symbol has no bar"}}


class Reads:
    """The reads behind the API, from both stores at the market's clock (UTC)."""

    def __init__(
        self, mongodb: Database[Document], warehouse_dsn: str, lake: Lake | None, clock: Callable[[], datetime]
    ) -> None:
        self.lake, self.clock = lake, clock
        self.staged, self.warehouse = Staged(mongodb), Warehouse(warehouse_dsn)

    def symbols(self) -> list[str]:
        """Return every loaded or recently staged symbol, sorted."""
        return sorted({*self.warehouse.loaded(), *self.staged.recent})

    def rows(self, symbols: Sequence[str]) -> list[WatchRow]:
        """Return the watch list's rows of these symbols."""
        now, loaded = self.clock(), self.warehouse.loaded()
        return [watch.watch_row(name, loaded.get(name), self.staged.recent.get(name, ()), now) for name in symbols]

    def watchlist(self) -> Watchlist:
        """Return the whole watch list and the state of the exchange."""
        return Watchlist(market=watch.market_at(self.clock()), rows=self.rows(self.symbols()))

    def bars(self, symbol: str, interval: Interval, before: int | None, limit: int) -> Bars:
        """Return one page of candles that open before ``before`` (seconds since 1970). Raise 404 for no bar at all."""
        moment = None if before is None else datetime.fromtimestamp(before, UTC)
        loaded = self.warehouse.newest_session(symbol)
        staged = self.staged.sessions(symbol, loaded)
        if loaded is None and not staged:
            raise HTTPException(404, f"There is no bar of {symbol}. GET /api/watchlist lists the symbols.")
        candles = self.warehouse.candles(symbol, interval, moment, limit + 1)
        return candle_page(symbol, interval, candles, staged, moment, limit)

    def health(self) -> Health:
        """Return how far each hop is, missing bars and rejected bars."""
        loaded = self.warehouse.loaded()
        return read_health(
            self.staged, self.warehouse, self.lake, self.rows(self.symbols()), loaded.values(), self.clock()
        )


def create_app(
    mongodb: Database[Document],
    warehouse_dsn: str,
    *,
    lake: Lake | None = None,
    token: str | None = None,
    clock: Callable[[], datetime] = utc_now,
    poll_seconds: float = POLL_SECONDS,
) -> FastAPI:
    """Return the page's application on two stores.

    Without a ``token`` no login is required, and only requests for this host's loopback names are answered. ``clock``
    returns the market's time (UTC). Only the newest manifest of the ``lake`` is read. Raises BadInputError if the
    chart library is not installed.
    """
    charts = _chart_library()
    reads, logins = Reads(mongodb, warehouse_dsn, lake, clock), Logins(token)
    live = Live(reads.staged, reads.symbols, reads.rows, clock, poll_seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        live.start()
        yield
        live.close()
        reads.warehouse.close()

    app = FastAPI(
        title="Barflow page",
        version=__version__,
        description="Bars, trends, alerts and health of one pipeline. Reads only.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.live = live
    app.include_router(_session_routes(logins))
    app.include_router(_data_routes(reads, live))
    app.exception_handler(BarflowError)(_error_response)
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=1)
    app.add_middleware(SecurityMiddleware, logins=logins, open_paths=("/api/session",))

    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/static/vendor/lightweight-charts.mjs", include_in_schema=False)
    def chart_library() -> FileResponse:
        return FileResponse(charts, media_type="text/javascript")

    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def _session_routes(logins: Logins) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["login"])

    @routes.get("/session", summary="Whether a login is required, and whether the caller is signed in")
    def session(request: Request) -> SessionState:
        signed_in = logins.is_valid(request.cookies.get(COOKIE, ""))
        return SessionState(login_required=logins.required, signed_in=signed_in)

    @routes.post(
        "/session", summary="Sign in", responses={401: {"model": Problem, "description": "the token is wrong"}}
    )
    async def sign_in(login: Login, request: Request, response: Response) -> SessionState:
        if logins.required:
            if not logins.is_token(login.token):
                await asyncio.sleep(WRONG_TOKEN_SECONDS)
                raise HTTPException(401, "This is not the page's token.")
            secure = request.url.scheme == "https"
            response.set_cookie(
                COOKIE, logins.new_cookie(), max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure
            )
        return SessionState(login_required=logins.required, signed_in=True)

    @routes.delete("/session", summary="Sign out")
    def sign_out(response: Response) -> SessionState:
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return SessionState(login_required=logins.required, signed_in=not logins.required)

    return routes


def _data_routes(reads: Reads, live: Live) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["data"], responses=ERRORS)

    @routes.get("/watchlist", summary="Every symbol: price, change, trend and freshness")
    def watchlist() -> Watchlist:
        return reads.watchlist()

    @routes.get("/bars/{symbol:path}", summary="Candles, newest page first", responses=UNKNOWN)
    def bars(symbol: Symbol, interval: Interval = "5min", before: Before = None, limit: Limit = 500) -> Bars:
        return reads.bars(symbol.upper(), interval, before, limit)

    @routes.get("/alerts", summary="Alerts that fired, newest first")
    def alerts(
        symbol: Annotated[str | None, Query(pattern=SYMBOL, max_length=MAX_LENGTH)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Alerts:
        return Alerts(alerts=reads.staged.alerts(symbol and symbol.upper(), limit))

    @routes.get("/health", summary="How far each hop is, missing bars, rejected bars and last runs")
    def health() -> Health:
        return reads.health()

    @routes.get(
        "/events",
        response_class=EventSourceResponse,
        summary="Server-sent events: bars (market, rows), alert, clock (market), outage (detail)",
    )
    async def events() -> AsyncIterator[ServerSentEvent]:
        async for name, body in live.events():
            yield ServerSentEvent(event=name, raw_data=body)

    return routes


async def _error_response(request: Request, error: Exception) -> JSONResponse:
    """Return an error of the library as JSON. Its message is one line for a person, without any secret."""
    return JSONResponse({"detail": str(error)}, 400 if isinstance(error, BadInputError) else 503)


def _chart_library() -> Path:
    for path in CHARTS_PATHS:
        if path.exists():
            return path
    raise BadInputError("The chart library is not installed. Nothing was served. Run `make setup`.")
