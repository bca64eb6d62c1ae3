"""One tick of ingestion, when the schedule asks for it: is it due, run it, count it. All else is in barflow.

An error is raised: Lambda then tries twice more and puts the event into the dead-letter queue. A refusal of the vendor
(wrong key, plan, the day's credits spent) is not: trying again within minutes would be refused again and may cost
credits, so it ends the tick, counts as TicksRefused for the alarm, and the next tick asks again.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from functools import cache
from typing import Any

from barflow import metrics
from barflow.errors import VendorRefusedError
from barflow.runtime import Run
from barflow.sessions import bars_due, last_sessions
from barflow.settings import load_settings


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Runs the tick that is due, or with ``{"force": true}`` one whatever the hour. Returns what it did.

    ``outcome`` is closed (the market is; nothing was asked), succeeded, partial (the vendor refused some symbols),
    failed (it refused all of them) or refused (it refused to talk). Raises BarflowError.
    """
    try:
        run = _run()
        now = run.clock()
        if not event.get("force") and not bars_due(now):
            return {"outcome": "closed"}
        return _tick(run, now)
    except BaseException:
        _run.cache_clear()  # the next try reads settings and secrets again: one may have been renewed
        raise


@cache
def _run() -> Run:
    """Settings and the connection to MongoDB, for as long as this execution environment lives."""
    return Run(load_settings())


def _tick(run: Run, now: datetime) -> dict[str, Any]:
    symbols = run.settings.symbols
    try:
        report = run.ingest(_say).tick(symbols)
    except VendorRefusedError as error:
        print(metrics.refused_line(run.settings.env, now))
        _count_alerts(run, now)
        _say(f"error: {error}")
        return {"outcome": "refused", "error": str(error)}
    newest = _newest(run, symbols, now)
    for line in metrics.tick_lines(run.settings.env, report, newest, now):
        print(line)
    _count_alerts(run, now)
    errors = {symbol: item.message for symbol, item in report.errors.items()}
    return {"outcome": report.outcome, "run_id": report.run_id, **asdict(report.total), "errors": errors}


def _count_alerts(run: Run, now: datetime) -> None:
    """Counts what the tick fired, a refused one too: that is when a feed goes silent."""
    print(metrics.alerts_line(run.settings.env, run.alerts.found, run.alerts.outbox.undelivered_age(), now))


def _newest(run: Run, symbols: tuple[str, ...], now: datetime) -> dict[str, datetime]:
    """The open of the newest stored bar by symbol, of those that have one within the history that a tick takes."""
    since = last_sessions(now, run.settings.history_sessions)[0].session_date
    newest: dict[str, datetime] = {}
    for document in run.staging.counts(symbols, since):
        symbol, last = document["symbol"], document["last"]
        newest[symbol] = max(last, newest.get(symbol, last))
    return newest


def _say(text: str) -> None:
    print(text, file=sys.stderr)
