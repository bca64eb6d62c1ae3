"""Ingest function: run a tick if one is due and log its metrics, or ask for what is due about corporate actions.

Errors are raised: Lambda retries twice and then sends the event to the dead-letter queue. A refusal of the vendor
(wrong key, wrong plan, no credits left today) is not raised, because a retry within minutes would be refused again and
may cost credits. It ends the tick, counts as TicksRefused for the alarm, and the next tick asks again.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from barflow.errors import VendorRefusedError
from barflow.market.sessions import bars_due
from barflow.operations import cloudwatch as metrics
from barflow.operations.ticks import run_tick
from barflow.pipeline.lineage import parse_parent
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.text import redacted, visible

# A request that starts within this time can wait for credits and end before the function's timeout. The next
# invocation resumes.
ACTIONS_TIME = timedelta(minutes=2)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Run a tick if the market is open, or with ``{"force": true}`` in any case. Return its outcome and counts.

    ``{"lineage_parent": …}`` names the OpenLineage run that invokes the function.
    ``{"actions": true}`` runs no tick: it asks for the corporate actions and daily bars that are due.

    ``outcome`` is closed (the market is closed, nothing was requested), succeeded, partial (the vendor refused some
    symbols), failed (it refused every symbol) or refused (it refused the request itself). Raises BarflowError.
    """
    try:
        stores = _stores()
        stores.lineage_parent = parse_parent(event["lineage_parent"]) if "lineage_parent" in event else None
        now = stores.clock()
        if event.get("actions"):
            return _actions(stores)
        if not event.get("force") and not bars_due(now):
            return {"outcome": "closed"}
        return _tick(stores, now)
    except BaseException:
        _stores.cache_clear()  # the next try reads the settings and secrets again: one may have been renewed
        raise


@cache
def _stores() -> Stores:
    """Return the settings and the MongoDB connection of this execution environment."""
    return Stores(load_settings())


def _tick(stores: Stores, now: datetime) -> dict[str, Any]:
    """Run a tick and print its metrics. Return its outcome."""
    try:
        report = run_tick(stores, stores.settings.symbols, _log, lambda measured: print(metrics.emf(measured, now)))
    except VendorRefusedError as error:
        _log(f"error: {error}")
        return {"outcome": "refused", "error": str(error)}
    errors = {symbol: item.message for symbol, item in report.errors.items()}
    return {"outcome": report.outcome, "run_id": report.run_id, **asdict(report.total), "errors": errors}


def _actions(stores: Stores) -> dict[str, Any]:
    """Ask for what is due about corporate actions. Return what was done."""
    from barflow.operations.daily_actions import run_due  # no tick needs it

    try:
        return run_due(stores, _log, ACTIONS_TIME).to_json()
    except VendorRefusedError as error:
        _log(f"error: {error}")
        return {"outcome": "refused", "error": str(error)}


def _log(text: str) -> None:
    """Write a line to the function's log, apart from the metrics on stdout."""
    print(visible(redacted(text)), file=sys.stderr)
