"""How is a tick counted? Stores, and told as metrics, whoever runs it: the function or the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from barflow.errors import VendorRefusedError
from barflow.market.sessions import last_sessions
from barflow.operations import cloudwatch as metrics
from barflow.pipeline import ingest
from barflow.pipeline.ingest import IngestReport
from barflow.pipeline.stores import Stores

Say = Callable[[str], None]
Tell = Callable[[metrics.Measured], None]


def counted_tick(
    stores: Stores, symbols: Sequence[str], say: Say, tell: Tell, on_symbol: Callable[[str], None] = lambda symbol: None
) -> IngestReport:
    """One tick, whose metrics ``tell`` hears. A tick that the vendor refuses is told as such, and raised."""
    env, now = stores.settings.env, stores.clock()
    try:
        report = ingest.run(stores, symbols, say, on_symbol=on_symbol)
    except VendorRefusedError:
        tell(metrics.of_refusal(env))
        _tell_alerts(stores, tell)
        raise
    for measured in metrics.of_tick(env, report, _newest(stores, symbols, now), now):
        tell(measured)
    _tell_alerts(stores, tell)
    return report


def _tell_alerts(stores: Stores, tell: Tell) -> None:
    """What the tick fired, a refused one too: that is when a feed goes silent."""
    tell(metrics.of_alerts(stores.settings.env, stores.alerts.found, stores.alerts.outbox.undelivered_age()))


def _newest(stores: Stores, symbols: Sequence[str], now: datetime) -> dict[str, datetime]:
    """The open of the newest stored bar by symbol, of those that have one within the history that a tick takes."""
    since = last_sessions(now, stores.settings.history_sessions)[0].session_date
    newest: dict[str, datetime] = {}
    for document in stores.staging.counts(symbols, since):
        symbol, last = document["symbol"], document["last"]
        newest[symbol] = max(last, newest.get(symbol, last))
    return newest
