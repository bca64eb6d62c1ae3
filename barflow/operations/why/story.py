"""What is known of one bar, as one JSON object: the result of `barflow why` and of the page's API.

Times are aware and in UTC, prices in US dollars, volumes in shares.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from barflow.market.actions import Kind, Source


class Part(BaseModel):
    """A body without unknown fields."""

    model_config = ConfigDict(extra="forbid")


class Values(Part):
    """Prices and volume of a bar."""

    open: float
    high: float
    low: float
    close: float
    volume: int


class Published(Part):
    """The process run that published a session, and the load that took it from the lake. None: not yet, or unknown."""

    manifest: str | None = Field(None, description="the run id of the process run, which names its manifest")
    published_at: datetime | None = Field(None, description="when the manifest was written")
    load_id: str | None = Field(None, description="the load that consumed the manifest")
    loaded_at: datetime | None = None


class Version(Values, Published):
    """One version of the bar, with the first manifest and the first load that held it."""

    revision: int = Field(description="its place among the versions, from 0")
    known_from: datetime = Field(description="when the answer that brought it was asked for")
    known_until: datetime | None = Field(description="when that of the next version was; null for the current one")


class BarAnswer(Part):
    """The HTTP answer that brought a version."""

    revision: int = Field(description="the version that it brought")
    requested_at: datetime
    run_id: str = Field(description="the run of ingest")
    http_status: int
    symbols: list[str] = Field(description="what the request asked for")
    credits: int = Field(description="API credits of the whole request")
    note: str | None = Field(description="what the stored body leaves out")
    rows: list[Any] = Field(description="the rows of this bar, as received")
    replayed: str | None = Field(description="the id of the rejected row whose replay stored this version")


class RejectedRow(Part):
    """A row of this bar that validation rejected."""

    id: str
    reasons: list[str]
    payload: Any = Field(description="the row as received")
    run_id: str
    seen_at: datetime
    last_seen_at: datetime
    times: int
    replayed_at: datetime | None


class Validation(Part):
    """What validation did with the rows of this bar."""

    accepted: int = Field(description="how many versions it accepted")
    rejected: list[RejectedRow]


class Stored(Part):
    """The current values by store. None where the store does not hold the bar, or does not answer."""

    staging: Values | None = None
    lake: Values | None = None
    warehouse: Values | None = None
    agree: bool = Field(True, description="whether all stores that hold the bar hold the same values")


class Delivered(Part):
    """How far a channel has an alert."""

    delivered_at: datetime | None
    dropped_at: datetime | None = Field(None, description="when it was given up: the webhook's endpoint is gone")
    muted_at: datetime | None = Field(None, description="when it was not sent, because the alert was muted")
    attempts: int
    last_error: str | None
    next_at: datetime | None = Field(description="the next attempt, if it still waits")


class Fired(Part):
    """An alert that the bar fired."""

    id: str
    rule: str
    severity: str
    text: str
    created_at: datetime = Field(description="when the alert was found")
    channels: dict[str, Delivered]


class BarAction(Part):
    """A split or dividend after the bar, which adjusts it."""

    kind: Kind
    ex_date: date
    ratio: float | None = Field(description="new shares for one old share")
    amount: float | None = Field(description="dollars per share")
    label: str
    source: Source
    known_from: datetime


class Why(Part):
    """Everything about one bar. ``missing`` names each link that is absent or could not be read, in one line each."""

    symbol: str = Field(description="the symbol under which the bar is stored")
    present_symbol: str = Field(description="the share's symbol today")
    bar_start: datetime
    session_date: date
    versions: list[Version] = Field(description="oldest first")
    answers: list[BarAnswer] = Field(description="in the order of the versions")
    validation: Validation
    file: str | None = Field(description="the file of the lake that holds the bar")
    manifest: str | None = Field(description="the process run that last published the session")
    published_at: datetime | None
    load_id: str | None = Field(description="the load that wrote the bar's row of the warehouse")
    loaded_at: datetime | None
    stored: Stored
    aggregates: dict[str, dict[str, Any]] = Field(description="the rows that contain the bar, by table")
    daily_metrics: dict[str, Any] | None
    actions: list[BarAction] = Field(description="oldest ex-date first")
    alerts: list[Fired]
    missing: list[str]
