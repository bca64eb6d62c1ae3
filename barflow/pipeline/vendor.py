"""The client of Twelve Data for the settings, and the credits of the day that ticks leave to other requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from pydantic import SecretStr

from barflow.market.sessions import BAR, session, utc_now
from barflow.pipeline.stores import Stores
from barflow.progress import Log
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.twelvedata.client import TwelveDataClient

# The last scheduled tick runs this long after the close, for the closing bars.
LAST_TICK = timedelta(minutes=10)


def open_client(settings: Settings, log: Log) -> TwelveDataClient:
    """Return a client for these settings. Long waits for credits are written to ``log``."""
    key = settings.twelvedata_api_key
    return TwelveDataClient(
        settings.twelvedata_url,
        SecretStr(resolve(key, "TWELVEDATA_API_KEY")) if key else None,
        credits_per_minute=settings.credits_per_minute,
        credits_per_day=settings.credits_per_day,
        batch_size=settings.batch_size,
        on_wait=lambda seconds, why: log(f"waiting {seconds:.0f} s: {why}"),
    )


@dataclass
class Allowance:
    """What requests other than ticks may spend: ``spare`` credits of the day (None: no cap), until ``until`` (UTC)."""

    spare: int | None = None
    until: datetime | None = None
    clock: Callable[[], datetime] = utc_now

    def takes(self, client: TwelveDataClient, cost: int) -> bool:
        """Return whether requests of ``cost`` credits can start in time, and count them if so."""
        if self.spare is not None and cost > self.spare:
            return False
        if self.until is not None and max(client.ready_at(cost), self.clock()) > self.until:
            return False
        if self.spare is not None:
            self.spare -= cost
        return True


def spare_credits(stores: Stores) -> int | None:
    """Return the credits of today (UTC) that the remaining ticks do not need, or None without a daily cap."""
    settings = stores.settings
    if settings.credits_per_day is None:
        return None
    spent = stores.raw_answers.credits_since(datetime.combine(utc_now().date(), time(), UTC))
    ticks = ticks_left(stores.clock(), timedelta(minutes=settings.tick_minutes))
    return max(0, settings.credits_per_day - spent - ticks * len(settings.symbols))


def ticks_left(now: datetime, every: timedelta) -> int:
    """Return how many ticks of the UTC day of ``now`` are still to come. Regular sessions do not pass midnight UTC."""
    traded = session(now.date())
    if traded is None:
        return 0
    first, last = max(now, traded.opens + BAR), traded.closes + LAST_TICK
    return max(0, (last - first) // every + 1)
