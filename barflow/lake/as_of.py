"""The archive as of a moment: the version of each bar that was known then. Pure."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc


def known_at(bars: pa.Table, history: pa.Table | None, moment: datetime) -> pa.Table:
    """Return the bars as they were known at a moment (UTC), sorted by ts, with the columns of ``bars``.

    ``bars`` are the current versions and ``history`` the superseded ones, which have ``known_until``, too. A version in
    both, because it was superseded between the two reads, counts once.
    """
    when = pa.scalar(moment, pa.timestamp("us", tz="UTC"))
    current = bars.filter(pc.less_equal(bars["known_from"], when))
    if history is None:
        return current
    then = pc.and_(pc.less_equal(history["known_from"], when), pc.greater(history["known_until"], when))
    old = history.filter(then).select(bars.schema.names)
    old = old.filter(pc.invert(pc.is_in(old["ts"], current["ts"])))
    return pa.concat_tables([current, old]).sort_by("ts") if old else current
