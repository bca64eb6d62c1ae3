"""Replay of the quarantine: rejected bars that pass today's checks are stored, and evaluated for alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pymongo.database import Database

from barflow.alerts.outbox import PendingEvaluations
from barflow.staging.connection import Document
from barflow.staging.ledger import Ledger
from barflow.staging.quarantine import Quarantine, Replayed
from barflow.staging.sessions import Staging


def replay_rejected(database: Database[Document], documents: Sequence[Document], now: datetime) -> Replayed:
    """Check rejected bars again and store those that pass. The next tick evaluates their sessions for alerts."""
    pending = PendingEvaluations(database)
    with Ledger(database).storing("replay") as run_id:
        return Quarantine(database).replay(
            Staging(database), documents, run_id, now, before_store=lambda key: pending.add(run_id, [key])
        )
