"""Merging an answer into a stored session: new, revised and unchanged bars, and the versions that they lose. Pure.

A bar's versions are in the order in which their answers were asked for, not in that in which they are stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from barflow.market.bars import ARRAYS, VALUES, SessionBars
from barflow.market.versions import BarVersion, history

MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Merge:
    """A session after a merge, and what became of the incoming bars.

    ``superseded`` are versions that the stored bars lose, or that an answer brought late. ``changed`` is whether the
    stored session changes.
    """

    bars: SessionBars
    new: int = 0
    revised: int = 0
    unchanged: int = 0
    superseded: tuple[BarVersion, ...] = ()
    changed: bool = False


def merge_session(
    stored: SessionBars | None,
    incoming: SessionBars,
    requested_at: datetime,
    *,
    newest: datetime | None = None,
    known_from: datetime | None = None,
    earlier: Callable[[], Iterable[BarVersion]] = tuple,
) -> Merge:
    """Merge the bars of an answer into the stored ones. Pure.

    A bar with other values is a revision: it raises the bar's ``revision`` by one, and the old values are superseded.
    An answer that was requested before ``newest``, the newest answer that is stored, only fills gaps, so that a slow
    tick cannot undo a correction. Its other values take their place among the ``earlier`` versions.

    ``known_from`` is the moment of the request, unless the bars became known later. All times are UTC.
    """
    known = known_from or requested_at
    if stored is None:
        count = len(incoming)
        return Merge(replace(incoming, known_from=[known] * count), new=count, changed=True)
    is_late = newest is not None and requested_at < newest
    values = [getattr(incoming, name) for name in VALUES]
    may_be_earlier = is_late and known_from is None
    rows = dict(zip(stored.ts, zip(*(getattr(stored, name) for name in ARRAYS), strict=True), strict=True))
    new = revised = unchanged = 0
    superseded: list[BarVersion] = []
    late: list[BarVersion] = []
    for row in zip(*values, strict=True):
        old = rows.get(row[0])
        if old is None:
            rows[row[0]] = (*row, 0, known)
            new += 1
        elif is_late:
            unchanged += 1
            if may_be_earlier and (known < old[-1] or old[:-2] != row):
                late.append(BarVersion.of(row, known))
        elif old[:-2] == row:
            unchanged += 1
        else:
            superseded.append(BarVersion.of(old[:-2], old[-1]))
            rows[row[0]] = (*row, old[-2] + 1, max(known, old[-1] + MILLISECOND))
            revised += 1
    if late:
        assert newest is not None, "a late answer comes after another one"
        superseded += _place(late, rows, earlier(), newest)
    before = len(stored)
    columns = map(list, zip(*(rows[ts] for ts in sorted(rows)), strict=True))
    merged = SessionBars(stored.symbol, stored.session_date, *columns)
    changed = bool(superseded or len(rows) > before or merged.known_from != stored.known_from)
    return Merge(merged, new, revised, unchanged, tuple(superseded), changed)


def _place(
    late: Iterable[BarVersion], rows: dict[datetime, tuple[Any, ...]], earlier: Iterable[BarVersion], newest: datetime
) -> list[BarVersion]:
    """Put what an answer brought late among the versions of its bars. Return all versions of the bars that changed.

    The newest answer holds these bars too, with the current values. A current bar keeps its values in ``rows``; its
    revision and known_from may change.
    """
    stored: dict[datetime, list[BarVersion]] = defaultdict(list)
    for item in earlier:
        stored[item.ts].append(item)
    changed: list[BarVersion] = []
    for item in late:
        old = rows[item.ts]
        current = BarVersion.of(old[:-2], old[-1])
        known = [*stored[item.ts], current]
        while any(other.known_from == item.known_from and other.values != item.values for other in known):
            item = replace(item, known_from=item.known_from + MILLISECOND)
        confirmed = BarVersion.of(old[:-2], max(newest, old[-1], item.known_from + MILLISECOND))
        placed = history([*known, item, confirmed])
        if placed != history(known):
            rows[item.ts] = (*old[:-2], placed[-1].revision, placed[-1].known_from)
            changed += placed
    return changed
