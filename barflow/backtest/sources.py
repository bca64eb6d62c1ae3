"""The sources of a backtest: where the bars of each share come from. The archive is read share by share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from types import MappingProxyType
from typing import Protocol

import numpy as np
import pyarrow as pa

from barflow.alerts.evaluate import NEWS_SESSIONS
from barflow.alerts.rules import RuleBook
from barflow.backtest.series import Floats, Series
from barflow.errors import BadInputError
from barflow.lake.actions import find_actions
from barflow.lake.partitions import Lake
from barflow.lake.series import find_share, read_series
from barflow.market.actions import Split
from barflow.market.bars import PRICES, SessionBars
from barflow.market.instruments import Instruments
from barflow.market.recordings import Recording, validate_rows
from barflow.market.sessions import BAR, previous_session, session
from barflow.progress import Log

Splits = Mapping[str, Sequence[Split]] | None
MINUTES = np.timedelta64(BAR // timedelta(minutes=1), "m")


class Source(Protocol):
    """Reads the bars of present symbols. A process that evaluates some of them gets a copy of the source."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the present symbols, sorted."""

    @property
    def instruments(self) -> Instruments:
        """Return the shares' names and listings."""

    def read(self, symbol: str) -> Series:
        """Return the bars of a share, with the sessions before the backtest that its rules look back at.

        Raises BadInputError if there are none at all.
        """


@dataclass(frozen=True)
class Held:
    """Series in memory."""

    series: Mapping[str, Series]
    instruments: Instruments = field(default_factory=Instruments)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the present symbols, sorted."""
        return tuple(sorted(self.series))

    def read(self, symbol: str) -> Series:
        """Return the bars of a share. Raise BadInputError if there are none."""
        if symbol not in self.series:
            raise BadInputError(f"there are no bars of {symbol}. Nothing was evaluated.")
        return self.series[symbol]


def from_sessions(sessions: Iterable[SessionBars], splits: Splits = MappingProxyType({})) -> Held:
    """Return a source of sessions in any order. With ``splits`` None, all prices are compared as they are."""
    found: dict[str, list[SessionBars]] = defaultdict(list)
    for bars in sessions:
        found[bars.symbol].append(bars)
    known: Mapping[str, Sequence[Split]] = splits or {}
    return Held(
        {name: Series.of(name, bars, None if splits is None else known.get(name, ())) for name, bars in found.items()}
    )


def from_recording(
    recording: Recording, splits: Splits = MappingProxyType({}), on_note: Log = lambda note: None
) -> Held:
    """Return a source of the sessions that ingest would store of a recording."""
    return from_sessions(recorded_sessions(recording, on_note), splits)


def recorded_sessions(recording: Recording, on_note: Log = lambda note: None) -> Iterator[SessionBars]:
    """Yield the sessions that ingest would store of a recording. Note how many bars it would reject."""
    for symbol in recording.symbols:
        checked = validate_rows(symbol, recording.rows(symbol, recording.first, recording.as_of), recording.as_of)
        if checked.rejected:
            on_note(f"{symbol}: validation rejected {len(checked.rejected)} bars; they are left out")
        yield from checked.sessions.values()


@dataclass(frozen=True)
class Archived:
    """Bars and splits of the archive, of sessions from ``first`` to ``last``, both included."""

    uri: str
    symbols: tuple[str, ...]
    first: date
    last: date
    adjust: bool
    instruments: Instruments

    def read(self, symbol: str) -> Series:
        """Return the bars of a share under all its names.

        Raises:
            BadInputError: The archive has no bars of the share at all.
            BarflowError: A file is damaged.
            UnavailableError: S3 does not answer.
        """
        lake = Lake(self.uri)
        share = find_share(lake, self.instruments, symbol)
        if not share.parts:
            raise BadInputError(
                f"the archive {self.uri} has no bars of {symbol}. Nothing was evaluated. Check the spelling, or fetch "
                "them with `barflow backfill` and run `barflow process`."
            )
        bars = read_series(lake, share, self.first, self.last, columns=(*PRICES, "volume"))
        return _series(symbol, bars, self._splits(lake, symbol))

    def _splits(self, lake: Lake, symbol: str) -> tuple[Split, ...] | None:
        if not self.adjust:
            return None
        known = (version.action for version in find_actions(lake, symbol).known_at(None))
        return tuple(action for action in known if isinstance(action, Split))


def from_lake(
    lake: Lake,
    symbols: Iterable[str],
    book: RuleBook,
    days: tuple[date, date],
    instruments: Instruments | None = None,
    *,
    adjust: bool = True,
) -> Archived:
    """Return a source of the archive's bars from the first to the last of ``days``, both included.

    It also reads the sessions before them that the rules of the book look back at. ``symbols`` may be former ones.
    Without ``adjust``, all prices are compared as they are stored.
    """
    instruments = instruments or Instruments()
    names = tuple(sorted(instruments.resolve(symbols)[0]))
    before = previous_session(days[0], book.history + NEWS_SESSIONS)
    return Archived(lake.uri, names, before.session_date if before else days[0], days[1], adjust, instruments)


def _series(symbol: str, bars: pa.Table, splits: tuple[Split, ...] | None) -> Series:
    """Return the series of a table that is sorted by ts."""
    numbers = bars["session_date"].cast(pa.int32()).to_numpy()
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    days = tuple(numbers[starts].astype("datetime64[D]").tolist())
    opens = np.array([_opens(day) for day in days], "datetime64[m]")
    starts = np.append(starts, len(numbers))
    minutes = bars["ts"].to_numpy().astype("datetime64[m]") - np.repeat(opens, np.diff(starts))
    return Series(
        symbol,
        days,
        starts,
        (minutes // MINUTES).astype(np.uint8),
        {name: _floats(bars, name) for name in PRICES},
        bars["volume"].to_numpy(),
        splits,
    )


def _floats(bars: pa.Table, name: str) -> Floats:
    found: Floats = bars[name].to_numpy()
    return found


def _opens(day: date) -> np.datetime64:
    traded = session(day)
    assert traded is not None, "only sessions are stored"
    return np.datetime64(traded.opens.replace(tzinfo=None), "m")
