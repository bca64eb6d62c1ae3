"""The series of a renamed share on the page: what the stores hold under its names, joined under the present one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol, TypeVar

from barflow.market.instruments import Instruments
from dashboard.candles import Candle


class OfSession(Protocol):
    """What belongs to one session, such as a candle."""

    @property
    def session_date(self) -> date:
        """Return the exchange-local day."""


Item = TypeVar("Item", bound=OfSession)


def joined(instruments: Instruments, symbol: str, by_name: Iterable[tuple[str, Sequence[Item]]]) -> Iterator[Item]:
    """Yield what belongs to a share, each session from the newest name that has it. The newest name comes first."""
    held: set[date] = set()
    for name, items in by_name:
        own = [
            item
            for item in items
            if item.session_date not in held and instruments.present_on(name, item.session_date) == symbol
        ]
        held.update(item.session_date for item in own)
        yield from own


def newest_loaded(
    instruments: Instruments,
    symbol: str,
    before: datetime | None,
    limit: int,
    read: Callable[[str, datetime | None, int], Sequence[Candle]],
) -> list[Candle]:
    """Return the newest candles of a share that open before a moment (UTC), newest first.

    ``read`` returns those of one name. A former name is read only where the newer ones do not fill the limit.
    """
    found: list[tuple[str, Sequence[Candle]]] = []
    for name in instruments.names(symbol)[::-1]:
        end = before
        if found:
            _, newer = found[-1]
            if len(newer) == limit and newer[-1].session_date > name.last:
                break
            # A session is within one UTC day.
            after = datetime.combine(name.last + timedelta(days=1), time(), UTC)
            end = after if before is None else min(before, after)
        found.append((name.symbol, read(name.symbol, end, limit)))
    return sorted(joined(instruments, symbol, found), key=lambda candle: candle.time, reverse=True)[:limit]
