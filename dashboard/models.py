"""What does the page's API answer? Its typed bodies, from which the OpenAPI document is made.

Times are aware and in UTC, prices US dollars, volumes shares. A bar's time is its open, in seconds since 1970.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from barflow.alerts.message import Message

Interval = Literal["5min", "30min", "1h", "1d"]
Trend = Literal["up", "down", "mixed"]
Freshness = Literal["fresh", "stale", "closed"]


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SessionState(Answer):
    """Whether this server wants a login, and whether the caller has one."""

    login_required: bool
    signed_in: bool


class Login(Answer):
    token: str = Field(min_length=1, max_length=512, description="BARFLOW_DASHBOARD_TOKEN of the server")


class Market(Answer):
    """The exchange at ``now``, the market's clock: the real one, or that of a replay."""

    now: datetime
    open: bool
    session_date: date | None = Field(description="the session that is open, or the last one")
    opens: datetime | None
    closes: datetime | None
    next_open: datetime | None = Field(description="when the market opens next; null while it is open")


class WatchRow(Answer):
    """One symbol of the watch-list. What is not known yet is null."""

    symbol: str
    last: float | None = Field(description="the newest bar's close")
    prev_close: float | None = Field(description="the close of the session before")
    change: float | None
    change_pct: float | None
    volume: int | None = Field(description="shares of the newest session so far")
    spark: list[float] = Field(description="closes of the last two sessions, thinned out")
    trend: Trend | None = Field(description="up: above both averages and sma_20 above sma_50; down: the reverse")
    sma_20: float | None = Field(description="of daily closes, as of the last load")
    sma_50: float | None
    rsi_14: float | None
    newest_bar: datetime | None
    age_minutes: float | None = Field(description="since the newest bar closed")
    freshness: Freshness


class Watchlist(Answer):
    market: Market
    rows: list[WatchRow]


class Bars(Answer):
    """Parallel arrays of equal length in time order; the last bar is forming where ``complete`` is false."""

    symbol: str
    interval: Interval
    time: list[int]
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[int]
    vwap: list[float | None]
    complete: list[bool]
    older: int | None = Field(description="pass as `before` for the next page; null when there is none")


class Alert(Answer):
    """An alert, with the moment at which it was noticed. The message is docs/alert-message.schema.json."""

    created_at: datetime
    message: Message


class Alerts(Answer):
    alerts: list[Alert]


class HopRun(Answer):
    """The newest run of a hop."""

    run_id: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str
    error: str | None


class Hop(Answer):
    """One hop, and how far its data reach: to a bar's close, or to a session where only that is known."""

    name: Literal["ingest", "process", "aggregate"]
    holds: str = Field(description="the store that it fills")
    data_until: datetime | None
    newest_session: date | None
    run: HopRun | None


class Gap(Answer):
    symbol: str
    session_date: date
    missing: int
    expected: int


class Rejected(Answer):
    symbol: str
    count: int


class Health(Answer):
    """The pipeline: how far each hop is, and what is missing or refused."""

    market: Market
    hops: list[Hop]
    symbols: int
    stale: list[str]
    gaps: list[Gap] = Field(description="of the last sessions, newest first")
    gaps_total: int
    rejected: list[Rejected]


class Problem(Answer):
    """Why a request was refused, for a person."""

    detail: str
