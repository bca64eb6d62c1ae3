"""The plan of a load: which manifests it consumes and which sessions it replaces.

A load consumes the manifests that no load has consumed yet and replaces exactly the (symbol, session) rows they touch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from barflow.errors import BadInputError
from barflow.lake.partitions import Lake


@dataclass(frozen=True)
class Plan:
    """What one load takes: run ids of manifests, and the sessions to replace by (symbol, month) partition.

    ``whole`` names the symbols whose rows are all replaced, so that rows the lake no longer has are removed too.
    """

    manifests: tuple[str, ...] = ()
    sessions: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()

    @property
    def touched(self) -> list[tuple[str, date]]:
        """Return the (symbol, session_date) pairs to replace, sorted."""
        return sorted((symbol, date.fromisoformat(day)) for (symbol, _), days in self.sessions.items() for day in days)


def plan_new(lake: Lake, consumed: set[str]) -> Plan:
    """Plan the sessions of the manifests that no load has consumed."""
    waiting = [run_id for run_id in lake.manifest_ids() if run_id not in consumed]
    sessions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run_id in waiting:
        for item in lake.manifest(run_id).partitions:
            sessions[item.symbol, item.month].update(item.versions)
    return Plan(tuple(waiting), {key: frozenset(days) for key, days in sessions.items() if days})


def plan_full(lake: Lake, consumed: set[str], symbols: Iterable[str] | None) -> Plan:
    """Plan every session in the lake, of all symbols or of those named.

    A plan of all symbols also consumes the waiting manifests.

    Raises BadInputError when the lake has no bars of a named symbol.
    """
    chosen = None if symbols is None else set(symbols)
    waiting = tuple(run_id for run_id in lake.manifest_ids() if run_id not in consumed) if chosen is None else ()
    sessions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for symbol, day, _, _ in lake.session_counts(chosen):
        sessions[symbol, day[:7]].add(day)
    if unknown := sorted((chosen or set()) - {symbol for symbol, _ in sessions}):
        raise BadInputError(
            f"the lake {lake.uri} has no bars of {', '.join(unknown)}. Nothing was loaded. "
            "Check the spelling, or run `barflow process` first."
        )
    return Plan(
        waiting, {key: frozenset(days) for key, days in sessions.items()}, frozenset(key[0] for key in sessions)
    )
