"""Synthetic bars: deterministic sessions for any symbol, generated from a seed.

Each session depends only on (seed, symbol, date), so sessions can be generated in any order. A session opens at the
previous close, moved by an overnight gap. Holidays, half days and DST come from barflow.market.sessions.

Generated prices are on one share basis. A script (emulators.twelvedata.script) turns them into raw bars: before a
split's ex-date prices are higher and volumes lower by its ratio, and a dividend lowers the open of its ex-date.
"""

from __future__ import annotations

import hashlib
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import accumulate

import numpy as np

from barflow.errors import BadInputError
from barflow.market.recordings import Row
from barflow.market.sessions import Session, new_york, session, sessions_between
from barflow.settings import DEFAULT_SYMBOLS
from barflow.symbol import parse_symbols
from emulators.twelvedata.script import NO_SCRIPT, MarketScript

FIRST_DAY = date(2008, 1, 1)
LAST_DAY = date(2031, 12, 31)

# Standard deviations of log prices: overnight, over a session, and from bar to bar.
_NIGHT, _DAY, _WIGGLE = 0.006, 0.012, 0.0011
_JUMP_CHANCE, _JUMP_LEAST, _JUMP_MOST = 0.015, 0.05, 0.11  # overnight jumps, as after news
_PULL = 0.997  # the share of its distance from the long-run level that a price keeps overnight
# How a bar's prices are rounded (decimals) and printed: most are cents, as float32 text (`211.49001`). A bar has one
# style: with two, rounding could put its close above its high.
_STYLES = ((2, "%.5f"), (2, "%.5f"), (2, "%.5f"), (4, "%.5f"), (4, "%.5f"), (3, "%.6f"), (2, "%.2f"), (3, "%.7f"))
_DECIMALS = np.array([decimals for decimals, _ in _STYLES])
_FORMS = tuple(form for _, form in _STYLES)


class SyntheticBars:
    """A repeatable market from 2008 to 2031. It knows every valid symbol but those that start with UNKNOWN or BAD."""

    as_of = None

    def __init__(
        self,
        seed: int = 7,
        *,
        symbols: tuple[str, ...] = DEFAULT_SYMBOLS,
        cached_sessions: int = 2048,
        script: MarketScript = NO_SCRIPT,
    ):
        """Prepare a market without generating sessions.

        Args:
            seed: Another seed is another market.
            symbols: The symbols to ask for by default.
            cached_sessions: How many generated sessions stay in memory, about 35 kB each.
            script: The splits, dividends and renames. Without it, no symbol has any.
        """
        self.seed, self.script = seed, script
        self.symbols = symbols
        self._session_rows = lru_cache(maxsize=cached_sessions)(self._make_session)
        self._levels = lru_cache(maxsize=1024)(self._make_levels)

    @property
    def first(self) -> datetime:
        """Return the open of the first session (UTC)."""
        return _calendar()[0].opens

    @property
    def describe(self) -> str:
        """Return what it holds, in a few words."""
        return f"synthetic sessions (seed {self.seed}) of any symbol, {FIRST_DAY.year} to {LAST_DAY.year}"

    def knows(self, symbol: str) -> bool:
        """Return whether the symbol is valid and does not start with UNKNOWN or BAD."""
        try:
            return parse_symbols(symbol) == (symbol,) and not symbol.startswith(("UNKNOWN", "BAD"))
        except BadInputError:
            return False

    def rows(self, symbol: str, start: datetime, end: datetime) -> list[Row]:
        """Return the bars that open in [start, end) (UTC), oldest first, future ones too: the server hides them."""
        if start >= end or not self.knows(symbol):
            return []
        first = max(new_york(start).date(), FIRST_DAY)
        last = min(new_york(end).date(), LAST_DAY)
        found: list[Row] = []
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            hours = session(day)
            if hours is None or hours.closes <= start or hours.opens >= end or not self.script.has_bars(symbol, day):
                continue
            made = self._session_rows(symbol, day)
            whole = start <= hours.opens and hours.closes <= end
            found.extend(made if whole else (row for row in made if start <= row[0] < end))
        return found

    def _random(self, symbol: str, what: str) -> np.random.Generator:
        digest = hashlib.blake2b(f"{self.seed}|{symbol}|{what}".encode(), digest_size=16).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))

    def _make_levels(self, symbol: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the log price at the open and at the close of every session, and the usual daily volume (shares)."""
        random = self._random(symbol, "levels")
        count = len(_calendar())
        night = random.normal(0.0, _NIGHT, count)
        jumps = random.uniform(_JUMP_LEAST, _JUMP_MOST, count) * random.choice([-1.0, 1.0], count)
        night += np.where(random.random(count) < _JUMP_CHANCE, jumps, 0.0)
        day = random.normal(0.0002, _DAY, count)
        moves = _PULL * night + day
        closes = np.fromiter(accumulate(moves.tolist(), lambda level, move: _PULL * level + move), float, count)
        base = random.uniform(np.log(20.0), np.log(500.0))
        return base + closes - day, base + closes, float(np.exp(random.uniform(np.log(2e6), np.log(6e7))))

    def _make_session(self, symbol: str, day: date) -> tuple[Row, ...]:
        hours = session(day)
        assert hours is not None
        ratio, paid = self.script.ratio_after(symbol, day), self.script.paid_on(symbol, day)
        symbol = self.script.present(symbol)
        opens, closes, day_volume = self._levels(symbol)
        index = _index()[day]
        random = self._random(symbol, day.isoformat())
        start = float(opens[index])
        if paid:
            start = float(np.log(np.exp(start) - paid / ratio))
        prices = _prices(random, start, float(closes[index]), hours.expected_bars) * ratio
        volumes = _volumes(random, day_volume / ratio, hours.expected_bars)
        texts = _texts(prices, random.integers(0, len(_STYLES), hours.expected_bars))
        return tuple((ts, *text, str(v)) for ts, text, v in zip(hours.slots, texts, volumes, strict=True))


@lru_cache(maxsize=8)
def _u_shape(count: int) -> np.ndarray:
    """Return the activity over a session, mean 1: high at the open, low at noon, high at the close."""
    x = np.linspace(-1.0, 1.0, count)
    shape: np.ndarray = 0.45 + 1.5 * x**4 + 0.6 * np.exp(-(x + 1.0) * 12.0)
    shape /= shape.mean()
    return shape


def _prices(random: np.random.Generator, start: float, end: float, count: int) -> np.ndarray:
    """Return open, high, low and close (dollars; shape count × 4) of a random walk between two log prices."""
    activity = np.sqrt(_u_shape(count))
    walk = np.cumsum(random.normal(0.0, _WIGGLE, count) * activity)
    steps = np.arange(1, count + 1) / count
    close = start + (end - start) * steps + walk - walk[-1] * steps
    slip = random.normal(0.0, _WIGGLE * 0.08, count)
    slip[0] = 0.0
    open_ = np.concatenate(([start], close[:-1])) + slip
    wicks = np.abs(random.normal(0.0, _WIGGLE * 0.6, (2, count))) * activity
    high = np.maximum(open_, close) + wicks[0]
    low = np.minimum(open_, close) - wicks[1]
    prices: np.ndarray = np.exp(np.stack([open_, high, low, close], axis=1))
    return prices


def _volumes(random: np.random.Generator, day_volume: float, count: int) -> list[int]:
    """Return the shares of each bar. A half day trades less, in proportion to its length."""
    quiet = np.exp(random.normal(0.0, 0.25))
    bars = day_volume / 78 * quiet * _u_shape(count) * np.exp(random.normal(0.0, 0.3, count))
    return [max(1, int(shares)) for shares in bars.tolist()]


def _texts(prices: np.ndarray, styles: np.ndarray) -> list[tuple[str, str, str, str]]:
    """Return the four prices of each bar as Twelve Data prints them: rounded, then as float32 text."""
    scale = 10.0 ** _DECIMALS[styles][:, None]
    kept = (np.round(prices * scale) / scale).astype(np.float32).astype(float).tolist()
    forms = [_FORMS[style] for style in styles.tolist()]
    return [(form % o, form % h, form % low, form % c) for form, (o, h, low, c) in zip(forms, kept, strict=True)]


@lru_cache(maxsize=1)
def _calendar() -> list[Session]:
    return sessions_between(FIRST_DAY, LAST_DAY)


@lru_cache(maxsize=1)
def _index() -> dict[date, int]:
    return {found.session_date: number for number, found in enumerate(_calendar())}
