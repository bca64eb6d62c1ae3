"""The period of a backtest of the archive: it ends with the newest session that has bars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from barflow.errors import BadInputError
from barflow.lake.partitions import Lake
from barflow.lake.series import Share, find_share, read_series
from barflow.market.instruments import Instruments
from barflow.market.sessions import last_sessions, new_york, session


class Period(NamedTuple):
    """The days of a backtest, both included, and the end of its data (UTC)."""

    first: date
    last: date
    until: datetime


def period(
    lake: Lake,
    instruments: Instruments,
    symbols: Sequence[str],
    start: date | None,
    end: date | None,
    now: datetime,
) -> Period:
    """Return the period of present symbols: all that the archive has of them, within ``start`` and ``end``.

    It ends by ``now`` (UTC), the market's clock. Without that end, a rule of silence would fire in each session since
    the newest bar. Raises BadInputError if the archive has no month of bars in it.
    """
    asked = f"from {start or 'the first bar'} to {end or 'the newest'}"
    last = min(end or date.max, new_york(now).date())
    shares = [find_share(lake, instruments, symbol) for symbol in symbols]
    months = {month for share in shares for month in share.months if month <= f"{last:%Y-%m}"}
    if start:
        months = {month for month in months if f"{start:%Y-%m}" <= month}
    for month in sorted(months, reverse=True):
        first_day = max(start or date.min, date.fromisoformat(f"{month}-01"))
        if newest := _newest(lake, shares, first_day, last, now):
            traded = session(newest)
            assert traded is not None, "only sessions are stored"
            return Period(start or date.fromisoformat(f"{min(months)}-01"), newest, min(now, traded.closes))
    names = ", ".join(symbols[:5]) + (" …" if len(symbols) > 5 else "")
    raise BadInputError(
        f"the archive {lake.uri} has no bars of {names} {asked}. Nothing was evaluated. Choose other days, or fetch "
        "the bars with `barflow backfill` and run `barflow process`."
    )


def _newest(lake: Lake, shares: Sequence[Share], first: date, last: date, now: datetime) -> date | None:
    """Return the newest session of any share from ``first`` to ``last``, or None.

    Most often the first share already has the session that is due, so the others are not read.
    """
    last = min(last, (date(first.year, first.month, 28) + timedelta(days=4)).replace(day=1) - timedelta(days=1))
    due = max((item.session_date for item in last_sessions(now, 1) if item.session_date <= last), default=last)
    newest: date | None = None
    for share in shares:
        if f"{first:%Y-%m}" not in share.months:
            continue
        days = read_series(lake, share, first, last, columns=())["session_date"]
        if len(days):
            newest = max(newest or date.min, days[-1].as_py())
        if newest and newest >= due:
            break
    return newest
