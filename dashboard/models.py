"""Request and response bodies of the page's API. The OpenAPI document is made from them.

Times are aware and in UTC, prices in US dollars, volumes in shares. A bar's time is its open, in seconds since 1970.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from barflow.alerts.message import Message
from barflow.market.actions import Adjust, Kind, Source

Interval = Literal["5min", "30min", "1h", "1d"]
Trend = Literal["up", "down", "mixed"]
Freshness = Literal["fresh", "stale", "closed"]


class Answer(BaseModel):
    """A body without unknown fields."""

    model_config = ConfigDict(extra="forbid")


class SessionState(Answer):
    """Whether the server requires a login, and whether the caller is signed in."""

    login_required: bool
    signed_in: bool


class Login(Answer):
    """The token that a visitor signs in with."""

    token: str = Field(min_length=1, max_length=512, description="BARFLOW_DASHBOARD_TOKEN of the server")


class Market(Answer):
    """The exchange at ``now`` of the market's clock: the real time, or the time of a replay."""

    now: datetime
    open: bool
    session_date: date | None = Field(description="the open session, or the last one")
    opens: datetime | None
    closes: datetime | None
    next_open: datetime | None = Field(description="when the market opens next; null while it is open")


class WatchRow(Answer):
    """One symbol of the watch list, adjusted for splits. A value that is not known yet is null."""

    symbol: str
    last: float | None = Field(description="the newest bar's close")
    prev_close: float | None = Field(description="the close of the previous session")
    change: float | None
    change_pct: float | None
    volume: int | None = Field(description="shares of the newest session so far")
    spark: list[float] = Field(description="closes of the last two sessions, evenly sampled")
    trend: Trend | None = Field(description="up: above both averages and sma_20 above sma_50; down: the reverse")
    sma_20: float | None = Field(description="of daily closes, as of the last load")
    sma_50: float | None
    rsi_14: float | None
    newest_bar: datetime | None
    age_minutes: float | None = Field(description="since the newest bar closed")
    freshness: Freshness


class Watchlist(Answer):
    """Every symbol, the exchange, and the symbols of each list of the rules file by its name."""

    market: Market
    rows: list[WatchRow]
    lists: dict[str, list[str]]


class ChartAction(Answer):
    """A split or dividend of a chart: ``ratio`` is new shares for one old share, ``amount`` dollars per share."""

    kind: Kind
    ex_date: date
    ratio: float | None
    amount: float | None
    label: str = Field(description="in words, such as 10-for-1 split")
    source: Source = Field(description="endpoint: as Twelve Data lists it; derived from daily bars; file: imported")
    applied: bool = Field(description="whether the candles before it are adjusted for it")


class Bars(Answer):
    """Candles as parallel arrays of equal length, in time order. ``complete`` is false for a forming candle."""

    symbol: str
    interval: Interval
    time: list[int]
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float] = Field(description="shares; an adjusted volume may have a fraction")
    vwap: list[float | None]
    complete: list[bool]
    older: int | None = Field(description="the value of `before` for the next page; null on the last page")
    adjust: Adjust = Field(description="what is applied: none where the splits were never fetched")
    actions: list[ChartAction] = Field(description="splits and dividends after the oldest candle, oldest first")
    basis: date | None = Field(description="the newest ex-date in effect: prices are in the shares of that day")
    actions_known_from: datetime | None = Field(description="when the actions of the symbol changed last")
    splits_fetched: bool = Field(description="whether splits were ever fetched or imported")
    dividends_fetched: bool


class Alert(Answer):
    """An alert, with the moment of its detection. docs/alert-message.schema.json describes the message."""

    created_at: datetime
    message: Message


class Alerts(Answer):
    """Alerts, newest first, without those that this version cannot read."""

    alerts: list[Alert]
    unreadable: int = Field(description="alerts that the page has met since its start and cannot read")


class Followed(Answer):
    """What followed a rule's alerts over one horizon: fractions, in the direction of each alert."""

    alerts: int = Field(description="the alerts that have a return over the horizon")
    sessions: int
    mean: float | None
    mean_interval: list[float] | None = Field(description="low and high: 95 % of resamples of whole sessions")
    baseline: float | None = Field(description="the mean of all bars of the same symbols at the same time of day")
    hit_rate: float | None = Field(description="the share of these alerts with a return above 0")
    hit_interval: list[float] | None
    baseline_hit_rate: float | None


class BacktestRule(Answer):
    """The figures of one rule in a backtest."""

    rule: str
    condition: str
    alerts: int
    up: int
    down: int
    a_month: float = Field(description="alerts per 21 sessions")
    cooled_down: int = Field(description="alerts that a cool-down dropped")
    longest_silence: int = Field(description="sessions in a row without an alert")
    returns: dict[str, Followed] = Field(description="by horizon: 30min, 1h, close, 1_session, 5_sessions")


class Backtest(Answer):
    """A backtest of the archive, and the command that made it."""

    created_at: datetime
    command: str
    source: str
    first: date
    last: date = Field(description="included")
    sessions: int
    symbols: int
    symbol_names: list[str] = Field(description="the first 20")
    bars: int
    adjust: str
    as_known: bool = Field(description="whether each moment saw only what was known then")
    notes: list[str]
    rules: list[BacktestRule]


class Backtests(Answer):
    """The last 20 backtests, newest first, without those that this version cannot read."""

    backtests: list[Backtest]
    unreadable: int = Field(description="backtests that the page has met since its start and cannot read")


class HopRun(Answer):
    """The newest run of a hop."""

    run_id: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str
    error: str | None


class Hop(Answer):
    """One hop, and the end of its data: a bar's close, or only the session where the close is not known."""

    name: Literal["ingest", "process", "aggregate"]
    holds: str = Field(description="the store that the hop writes to")
    data_until: datetime | None
    newest_session: date | None
    run: HopRun | None


class Gap(Answer):
    """A session of one symbol that misses bars."""

    symbol: str
    session_date: date
    missing: int
    expected: int


class Rejected(Answer):
    """How many bars of a symbol are in quarantine."""

    symbol: str
    count: int


class Unread(Answer):
    """How many documents of a collection the page has met since its start and cannot read."""

    collection: str
    count: int


class Mute(Answer):
    """A mute that is active: the alerts that it covers are not sent until its end."""

    covers: str = Field(description="a rule, a symbol, or a rule for some symbols")
    until: datetime
    by: str
    reason: str | None


class Health(Answer):
    """The pipeline: how far each hop is, missing bars and rejected bars."""

    market: Market
    hops: list[Hop]
    symbols: int
    stale: list[str]
    gaps: list[Gap] = Field(description="of the last 20 sessions, newest first")
    gaps_total: int
    rejected: list[Rejected]
    differing: list[str] = Field(description="of the last 20 sessions, those that differ from Twelve Data's daily bar")
    mutes: list[Mute] = Field(description="the mutes of alerts that are active, the first to end first")
    unreadable: list[Unread]


class Alive(Answer):
    """Whether the server and its watcher work. The server answers 503 where the watcher does not."""

    ok: bool
    detail: str = Field(description="why not; empty where all works")


class Problem(Answer):
    """Why a request failed, in one sentence."""

    detail: str
