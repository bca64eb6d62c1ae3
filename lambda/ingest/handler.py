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

from barflow.errors import VendorRefusedError
from barflow.market.sessions import bars_due
from barflow.operations import cloudwatch as metrics
from barflow.operations.counted_tick import counted_tick
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Runs the tick that is due, or with ``{"force": true}`` one whatever the hour. Returns what it did.

    ``outcome`` is closed (the market is; nothing was asked), succeeded, partial (the vendor refused some symbols),
    failed (it refused all of them) or refused (it refused to talk). Raises BarflowError.
    """
    try:
        stores = _run()
        now = stores.clock()
        if not event.get("force") and not bars_due(now):
            return {"outcome": "closed"}
        return _tick(stores, now)
    except BaseException:
        _run.cache_clear()  # the next try reads settings and secrets again: one may have been renewed
        raise


@cache
def _run() -> Stores:
    """Settings and the connection to MongoDB, for as long as this execution environment lives."""
    return Stores(load_settings())


def _tick(stores: Stores, now: datetime) -> dict[str, Any]:
    try:
        report = counted_tick(stores, stores.settings.symbols, _say, lambda measured: print(metrics.emf(measured, now)))
    except VendorRefusedError as error:
        _say(f"error: {error}")
        return {"outcome": "refused", "error": str(error)}
    errors = {symbol: item.message for symbol, item in report.errors.items()}
    return {"outcome": report.outcome, "run_id": report.run_id, **asdict(report.total), "errors": errors}


def _say(text: str) -> None:
    print(text, file=sys.stderr)
