"""The plans of a run: which manifests each load consumes, and which sessions and corporate actions it replaces.

A run consumes the manifests that no load has consumed yet, in slices of a bounded number of sessions. Each slice is a
load: it replaces exactly the (symbol, session) rows that its manifests touch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from barflow.errors import BadInputError
from barflow.lake.actions import symbols_with_actions
from barflow.lake.manifests import Manifest
from barflow.lake.partitions import Lake
from barflow.market.vendor_days import VendorDay

# About two million rows of all tables. It bounds the memory of Spark and the time of a transaction.
SLICE_SESSIONS = 20_000


@dataclass(frozen=True)
class Plan:
    """What one load takes: run ids of manifests, and the sessions to replace by (symbol, month) partition.

    ``whole`` names the symbols whose rows are all replaced, so that rows the lake no longer has are removed too.
    ``actions`` names the symbols whose corporate actions are read from the lake. ``vendor_days`` are the vendor's
    daily bars to store.
    """

    manifests: tuple[str, ...] = ()
    sessions: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    vendor_days: tuple[VendorDay, ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything to load."""
        return bool(self.sessions or self.actions or self.vendor_days)

    @property
    def touched(self) -> list[tuple[str, date]]:
        """Return the (symbol, session_date) pairs to replace, sorted."""
        return sorted((symbol, date.fromisoformat(day)) for (symbol, _), days in self.sessions.items() for day in days)


def plan_new(lake: Lake, consumed: set[str]) -> Iterator[Plan]:
    """Plan what is announced in the manifests that no load has consumed, in slices of at most ``SLICE_SESSIONS``.

    A manifest is never split. A manifest with more sessions is its own slice.
    """
    taken: list[Manifest] = []
    found: set[tuple[str, str]] = set()
    for manifest in (lake.manifest(run_id) for run_id in lake.manifest_ids() if run_id not in consumed):
        sessions = {(item.symbol, day) for item in manifest.partitions for day in item.versions}
        if taken and len(found | sessions) > SLICE_SESSIONS:
            yield _plan_of(taken)
            taken, found = [], set()
        taken.append(manifest)
        found |= sessions
    if plan := _plan_of(taken):
        yield plan


def _plan_of(manifests: list[Manifest]) -> Plan:
    sessions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for manifest in manifests:
        for item in manifest.partitions:
            sessions[item.symbol, item.month].update(item.versions)
    return Plan(
        tuple(manifest.run_id for manifest in manifests),
        {key: frozenset(days) for key, days in sessions.items() if days},
        actions=frozenset(file.symbol for manifest in manifests for file in manifest.actions),
        vendor_days=_newest_days(manifests),
    )


def _newest_days(manifests: Iterable[Manifest]) -> tuple[VendorDay, ...]:
    """Return the vendor's daily bars of manifests: for each session, the one that was requested last."""
    newest: dict[tuple[str, date], VendorDay] = {}
    for manifest in manifests:
        for item in manifest.vendor_days:
            key = item.symbol, item.session_date
            newest[key] = max(newest.get(key, item), item, key=lambda day: day.requested_at)
    return tuple(newest[key] for key in sorted(newest))


def plan_full(lake: Lake, consumed: set[str], symbols: Iterable[str] | None) -> Iterator[Plan]:
    """Plan every session and corporate action in the lake, of all symbols or of those named, in slices of symbols.

    A slice has at most ``SLICE_SESSIONS`` sessions, or one symbol. The last slice of a plan of all symbols also
    consumes the waiting manifests, with their daily bars of the vendor.

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
    actions = {symbol for symbol in symbols_with_actions(lake) if chosen is None or symbol in chosen}
    groups = _groups(sessions)
    for group in groups[:-1]:
        yield _whole(group, sessions, actions)
        actions -= {*group}
    last = _whole(groups[-1] if groups else [], sessions, actions)
    days = _newest_days(lake.manifest(run_id) for run_id in waiting)
    if plan := replace(last, manifests=waiting, actions=frozenset(actions), vendor_days=days):
        yield plan


def _groups(sessions: Mapping[tuple[str, str], set[str]]) -> list[list[str]]:
    """Return the symbols of sessions in groups of at most ``SLICE_SESSIONS`` sessions, or of one symbol."""
    counts: dict[str, int] = defaultdict(int)
    for (symbol, _), days in sessions.items():
        counts[symbol] += len(days)
    groups: list[list[str]] = []
    size = 0
    for symbol, count in sorted(counts.items()):
        if not groups or size + count > SLICE_SESSIONS:
            groups.append([])
            size = 0
        groups[-1].append(symbol)
        size += count
    return groups


def _whole(group: list[str], sessions: Mapping[tuple[str, str], set[str]], actions: set[str]) -> Plan:
    names = frozenset(group)
    return Plan(
        sessions={key: frozenset(days) for key, days in sessions.items() if key[0] in names},
        whole=names,
        actions=names & actions,
    )
