"""Ticks with metrics: run one tick and publish what it did, for the ingest function and for the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from barflow.errors import VendorRefusedError
from barflow.market.sessions import BAR, last_sessions, new_york, session_at
from barflow.operations import cloudwatch as metrics
from barflow.pipeline import ingest
from barflow.pipeline.ingest_report import IngestReport
from barflow.pipeline.stores import Stores
from barflow.progress import Log

Publish = Callable[[metrics.MetricSet], None]


def run_tick(
    stores: Stores,
    symbols: Sequence[str],
    log: Log,
    publish: Publish,
    on_symbol: Callable[[str], None] = lambda symbol: None,
) -> IngestReport:
    """Run one tick and pass its metrics to ``publish``.

    A tick that the vendor refuses also publishes its metrics; then VendorRefusedError is raised.
    """
    env, now = stores.settings.env, stores.clock()
    try:
        report = ingest.run(stores, symbols, log, on_symbol=on_symbol)
    except VendorRefusedError:
        publish(metrics.refused_tick_metrics(env))
        _publish_alerts(stores, publish)
        raise
    for measured in metrics.tick_metrics(env, report, _newest(stores, _asked(stores, symbols, now), now), now):
        publish(measured)
    _publish_alerts(stores, publish)
    return report


def session_staleness(stores: Stores, symbols: Sequence[str], now: datetime) -> float | None:
    """Return for how long (seconds) the stalest symbol has had no new bar of the open session, None between sessions.

    A symbol without any stored bar counts from the session's first bar, so that ticks that never ran are seen too.
    Delisted symbols do not count.
    """
    session, symbols = session_at(now), _asked(stores, symbols, now)
    if session is None or not symbols:
        return None
    newest = _newest(stores, symbols, now)
    oldest = min(max(newest.get(symbol, session.opens), session.opens) for symbol in symbols)
    return max(0.0, (now - oldest - BAR).total_seconds())


def _publish_alerts(stores: Stores, publish: Publish) -> None:
    """Publish the metrics of the tick's alerts. A refused tick also has some: rules report a silent feed."""
    publish(metrics.alert_metrics(stores.settings.env, stores.alerts.found, stores.alerts.outbox.undelivered_age()))


def _asked(stores: Stores, symbols: Sequence[str], now: datetime) -> Sequence[str]:
    """Return the symbols that a tick asks for."""
    return stores.instruments.to_ask(symbols, new_york(now).date())[0]


def _newest(stores: Stores, symbols: Sequence[str], now: datetime) -> dict[str, datetime]:
    """Return the open of the newest stored bar (UTC) by symbol, within the history that a tick fetches."""
    since = last_sessions(now, stores.settings.history_sessions)[0].session_date
    newest: dict[str, datetime] = {}
    for document in stores.staging.counts(symbols, since):
        symbol, last = document["symbol"], document["last"]
        newest[symbol] = max(last, newest.get(symbol, last))
    return newest
