"""The page's application: the JSON API, the event stream and the page's own files. It only reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as UrlPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from pymongo.database import Database
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.gzip import GZipMiddleware

from barflow import __version__
from barflow.errors import BadInputError, BarflowError
from barflow.lake.partitions import Lake
from barflow.market.actions import Adjust
from barflow.market.instruments import Instruments
from barflow.market.sessions import new_york, utc_now
from barflow.market.vendor_days import Thresholds
from barflow.operations.why.collect import NoSuchBarError, Sources
from barflow.operations.why.collect import why as collect
from barflow.operations.why.moment import EXAMPLE
from barflow.operations.why.story import Why
from barflow.settings import MOST_BPS, MOST_VOLUME_PCT
from barflow.staging.connection import Document
from barflow.symbol import MAX_LENGTH, PATTERN
from dashboard import watch
from dashboard.adjustment import adjustment, bars_answer, today_factors
from dashboard.candles import newest_candles
from dashboard.health import read_health
from dashboard.live import Live, Page
from dashboard.logins import BROWSER_SECONDS, SESSION_SECONDS, Logins, TooManyAttemptsError
from dashboard.models import (
    Alert,
    Alerts,
    Alive,
    Backtests,
    Bars,
    Health,
    Interval,
    Login,
    Problem,
    SessionState,
    Watchlist,
    WatchRow,
)
from dashboard.queries import Loaded, Warehouse
from dashboard.security import BROWSER_COOKIE, COOKIE, MAX_BODY_BYTES, SecurityMiddleware
from dashboard.series import joined, newest_loaded
from dashboard.staged import Staged

HERE = Path(__file__).parent
STATIC = HERE / "static"
CHARTS = "lightweight-charts.standalone.production.mjs"
# The chart library is beside the page in a release, in node_modules in a checkout.
CHARTS_PATHS = (STATIC / "vendor" / CHARTS, HERE.parent / "node_modules/lightweight-charts/dist" / CHARTS)
POLL_SECONDS = 1.0
RETRY_SECONDS = 10
ALIVE = "/healthz"
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
Adjusted = Annotated[
    Adjust, Query(description="none: as stored; splits: in the shares of today; all: for dividends too")
]
ERRORS: dict[int | str, dict[str, object]] = {
    400: {"model": Problem, "description": "the request cannot be answered"},
    401: {"model": Problem, "description": "the caller is not signed in"},
    422: {"model": Problem, "description": "the request does not match this document"},
    503: {"model": Problem, "description": "a store does not answer"},
}
UNKNOWN: dict[int | str, dict[str, object]] = {404: {"model": Problem, "description": "the symbol has no bar"}}
NO_BAR: dict[int | str, dict[str, object]] = {404: {"model": Problem, "description": "no store holds the bar"}}


class Reads:
    """The reads behind the API, from both stores at the market's clock (UTC)."""

    def __init__(
        self,
        mongodb: Database[Document],
        warehouse: Warehouse,
        lake: Lake | None,
        clock: Callable[[], datetime],
        instruments: Instruments,
        lists: Mapping[str, Sequence[str]],
    ) -> None:
        self.lists = {name: [*instruments.resolve(symbols)[0]] for name, symbols in lists.items()}
        self.lake, self.clock, self.instruments = lake, clock, instruments
        self.staged, self.warehouse = Staged(mongodb), warehouse
        self.sources = Sources(lambda: mongodb, lambda: lake, warehouse.reading, instruments, clock)

    def symbols(self) -> list[str]:
        """Return every loaded or recently staged share by its present symbol, sorted."""
        return sorted({*map(self.instruments.present, {*self.warehouse.loaded(), *self.staged.recent})})

    def stored_names(self) -> Sequence[str]:
        """Return every name under which these shares may be stored."""
        return self.instruments.stored_names(self.symbols())

    def rows(self, symbols: Sequence[str]) -> list[WatchRow]:
        """Return the watch list's rows of these symbols. A former symbol gives the row of the present one."""
        now, loaded = self.clock(), self.warehouse.loaded()
        shares = dict.fromkeys(map(self.instruments.present, symbols))
        return [self._row(symbol, loaded, now) for symbol in shares]

    def _row(self, symbol: str, loaded: Mapping[str, Loaded], now: datetime) -> WatchRow:
        today, in_warehouse, recent = new_york(now).date(), loaded.get(symbol), self.staged.recent.get(symbol, ())
        stated = self.instruments.states(symbol)
        if stated:
            names = self.instruments.stored_names([symbol])
            held = [(name, [loaded[name]]) for name in names if name in loaded]
            in_warehouse = next(joined(self.instruments, symbol, held), None)
            staged = joined(self.instruments, symbol, [(name, self.staged.recent.get(name, ())) for name in names])
            recent = tuple(sorted(staged, key=lambda item: item.session_date)[-2:])
        splits = today_factors(self.staged.splits.get(symbol, ()), today)
        row = watch.watch_row(symbol, in_warehouse, recent, splits, now)
        # No bar of a delisted share is due.
        delisted = stated and self.instruments.ended(symbol, today)
        return row.model_copy(update={"freshness": "closed"}) if delisted else row

    def watchlist(self) -> Watchlist:
        """Return the whole watch list, the state of the exchange, and the named lists in present symbols."""
        return Watchlist(market=watch.market_at(self.clock()), rows=self.rows(self.symbols()), lists=self.lists)

    def bars(self, symbol: str, interval: Interval, adjust: Adjust, before: int | None, limit: int) -> Bars:
        """Return one page of candles that open before ``before`` (seconds since 1970). Raise 404 for no bar at all.

        A former symbol gives the candles of the present one, and those include the sessions of the former.
        """
        moment = None if before is None else datetime.fromtimestamp(before, UTC)
        symbol = self.instruments.present(symbol)
        names = self.instruments.stored_names([symbol])
        loaded = max(filter(None, map(self.warehouse.newest_session, names)), default=None)
        staged = [*joined(self.instruments, symbol, [(name, self.staged.sessions(name, loaded)) for name in names])]
        if loaded is None and not staged:
            raise HTTPException(404, f"There is no bar of {symbol}. GET /api/watchlist lists the symbols.")
        candles = newest_loaded(
            self.instruments,
            symbol,
            moment,
            limit + 1,
            lambda name, end, count: self.warehouse.candles(name, interval, end, count),
        )
        shown, older = newest_candles(interval, candles, staged, moment, limit)
        today = new_york(self.clock()).date()

        def closes(sessions: Sequence[date]) -> dict[date, float]:
            newer = {bars.session_date: bars.close[-1] for bars in staged}
            older: dict[date, float] = {}
            for name in names[::-1]:
                older |= self.warehouse.closes(
                    name, [day for day in sessions if self.instruments.present_on(name, day) == symbol]
                )
            return older | newer

        first = shown[0].session_date if shown else today
        applied = adjustment(symbol, self.staged.known(symbol), adjust, first, today, closes)
        return bars_answer(symbol, interval, applied, shown, older)

    def alerts(self, symbol: str | None, limit: int) -> list[Alert]:
        """Return the newest alerts, of one share under all its names or of all shares."""
        return self.staged.alerts(self.instruments.stored_names([symbol]) if symbol else (), limit)

    def why(self, symbol: str, time: str) -> Why:
        """Return where the bar that contains a time comes from and where it went. Raise 404 if no store holds it."""
        try:
            return collect(self.sources, symbol, time)
        except NoSuchBarError as error:
            raise HTTPException(404, str(error)) from None

    def health(self) -> Health:
        """Return how far each hop is, missing bars and rejected bars."""
        loaded = self.warehouse.loaded()
        return read_health(
            self.staged,
            self.warehouse,
            self.lake,
            self.rows(self.symbols()),
            loaded.values(),
            self.clock(),
            self.instruments,
        )


def create_app(
    mongodb: Database[Document],
    warehouse_dsn: str,
    *,
    lake: Lake | None = None,
    instruments: Instruments | None = None,
    lists: Mapping[str, Sequence[str]] | None = None,
    token: str | None = None,
    url: str | None = None,
    clock: Callable[[], datetime] = utc_now,
    poll_seconds: float = POLL_SECONDS,
    thresholds: Thresholds = (MOST_BPS, MOST_VOLUME_PCT),
) -> FastAPI:
    """Return the page's application on two stores.

    Without a ``token`` no login is required, and only requests for this host's loopback names are answered. ``url`` is
    the URL at which visitors open the page. ``clock`` returns the market's time (UTC). ``thresholds`` are by how much a
    session may differ from the vendor's daily bar. Of the ``lake``, the newest manifest is read, and what belongs to
    one bar. ``instruments`` are the renames and listings, ``lists`` the symbols of each named list. Raises
    BadInputError if the chart library is not installed.
    """
    charts = _chart_library()
    reads = Reads(mongodb, Warehouse(warehouse_dsn, thresholds), lake, clock, instruments or Instruments(), lists or {})
    live = Live(reads.staged, reads.stored_names, reads.rows, clock, poll_seconds)
    logins = Logins(token, live.end)

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
    app.include_router(_data_routes(reads))
    app.include_router(_live_routes(live, logins))
    app.exception_handler(BarflowError)(_error_response)
    app.exception_handler(RequestValidationError)(_invalid_response)
    app.exception_handler(Exception)(_failed_response)
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=1)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES)
    app.add_middleware(
        SecurityMiddleware, logins=logins, url=url, open_paths=("/api/session",), any_host_paths=(ALIVE,)
    )

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

    def set_cookie(response: Response, request: Request, name: str, value: str, seconds: int) -> None:
        secure = request.url.scheme == "https"
        response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="strict", secure=secure)

    @routes.get("/session", summary="Whether a login is required, and whether the caller is signed in")
    async def session(request: Request) -> SessionState:
        signed_in = logins.is_valid(request.cookies.get(COOKIE, ""))
        return SessionState(login_required=logins.required, signed_in=signed_in)

    @routes.post(
        "/session",
        summary="Sign in",
        responses={
            401: {"model": Problem, "description": "the token is wrong"},
            413: {"model": Problem, "description": "the body is too large"},
            422: ERRORS[422],
            429: {"model": Problem, "description": "too many wrong tokens; retry-after has the seconds to wait"},
        },
    )
    async def sign_in(login: Login, request: Request, response: Response) -> SessionState:
        if logins.required:
            try:
                cookie = logins.sign_in(login.token, _address(request), request.cookies.get(BROWSER_COOKIE, ""))
            except TooManyAttemptsError as error:
                wait = f"Too many wrong tokens. Try again in {error.seconds} s."
                raise HTTPException(429, wait, {"retry-after": str(error.seconds)}) from None
            if cookie is None:
                raise HTTPException(401, "This is not the page's token.")
            logins.sign_out(request.cookies.get(COOKIE, ""))
            set_cookie(response, request, COOKIE, cookie, SESSION_SECONDS)
            set_cookie(response, request, BROWSER_COOKIE, logins.new_browser(), BROWSER_SECONDS)
        return SessionState(login_required=logins.required, signed_in=True)

    @routes.delete("/session", summary="Sign out: end the session and its event streams")
    async def sign_out(request: Request, response: Response) -> SessionState:
        logins.sign_out(request.cookies.get(COOKIE, ""))
        set_cookie(response, request, COOKIE, "", 0)
        return SessionState(login_required=logins.required, signed_in=not logins.required)

    return routes


def _data_routes(reads: Reads) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["data"], responses=ERRORS)

    @routes.get("/watchlist", summary="Every symbol: price, change, trend and freshness; and the named lists")
    def watchlist() -> Watchlist:
        return reads.watchlist()

    @routes.get("/bars/{symbol:path}", summary="Candles, newest page first", responses=UNKNOWN)
    def bars(
        symbol: Symbol,
        interval: Interval = "5min",
        adjust: Adjusted = "splits",
        before: Before = None,
        limit: Limit = 500,
    ) -> Bars:
        return reads.bars(symbol.upper(), interval, adjust, before, limit)

    @routes.get("/alerts", summary="Alerts that fired, newest first")
    def alerts(
        symbol: Annotated[str | None, Query(pattern=SYMBOL, max_length=MAX_LENGTH)] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Alerts:
        found = reads.alerts(symbol and symbol.upper(), limit)
        return Alerts(alerts=found, unreadable=reads.staged.unreadable.counts().get("alerts", 0))

    @routes.get("/backtests", summary="The last backtests of alert rules, newest first")
    def backtests() -> Backtests:
        found = reads.staged.backtests()
        return Backtests(backtests=found, unreadable=reads.staged.unreadable.counts().get("backtests", 0))

    @routes.get("/why", summary="Where one 5-minute bar comes from, and where it went", responses=NO_BAR)
    def why(
        symbol: Annotated[str, Query(pattern=SYMBOL, max_length=MAX_LENGTH)],
        time: Annotated[str, Query(max_length=40, description=f"a time within the bar, {EXAMPLE}")],
    ) -> Why:
        return reads.why(symbol, time)

    @routes.get("/health", summary="How far each hop is, missing bars, rejected bars and last runs")
    def health() -> Health:
        return reads.health()

    return routes


def _live_routes(live: Live, logins: Logins) -> APIRouter:
    routes = APIRouter()

    async def opened(request: Request) -> AsyncIterator[tuple[Page, float | None]]:
        """Yield the caller's page, and the seconds until its session ends."""
        session = logins.session(request.cookies.get(COOKIE, ""))
        if not live.has_room(visitor := session or _address(request)):
            raise HTTPException(429, "Too many pages are open.", {"retry-after": str(RETRY_SECONDS)})
        with live.page(visitor) as page:
            yield page, logins.seconds_left(session) if session else None

    page_of_caller = Depends(opened)

    @routes.get(
        "/api/events",
        tags=["data"],
        response_class=EventSourceResponse,
        summary="Server-sent events: bars (market, rows), alert, clock (market), outage (detail)",
        responses=ERRORS | {429: {"model": Problem, "description": "too many pages are open"}},
    )
    async def events(page: tuple[Page, float | None] = page_of_caller) -> AsyncIterator[ServerSentEvent]:
        async for name, body in live.events(*page):
            yield ServerSentEvent(event=name, raw_data=body)

    @routes.get(
        ALIVE,
        tags=["health"],
        summary="Whether the server and its watcher of new bars work; needs no login",
        responses={503: {"model": Alive, "description": "the watcher ended, is stuck or fails"}},
    )
    async def alive(response: Response) -> Alive:
        problem = live.problem()
        if problem:
            response.status_code = 503
        return Alive(ok=not problem, detail=problem)

    return routes


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _invalid_response(request: Request, error: Exception) -> JSONResponse:
    """Return a fixed answer to a request that does not validate. It repeats nothing of the request."""
    return JSONResponse({"detail": "The request does not match GET /api/openapi.json."}, 422)


async def _failed_response(request: Request, error: Exception) -> JSONResponse:
    """Return a fixed answer where the page has a fault. The server logs it."""
    return JSONResponse({"detail": "The page's server failed. Its log has the reason."}, 500)


async def _error_response(request: Request, error: Exception) -> JSONResponse:
    """Return an error of the library as JSON. Its message is one line for a person, without any secret."""
    return JSONResponse({"detail": str(error)}, 400 if isinstance(error, BadInputError) else 503)


def _chart_library() -> Path:
    for path in CHARTS_PATHS:
        if path.exists():
            return path
    raise BadInputError("The chart library is not installed. Nothing was served. Run `make setup`.")
