"""Corporate actions, and the factors by which they adjust prices and volumes.

Stored bars are raw: nothing here changes them. An adjusted price is computed where it is read, from the actions that
are known then. For a bar of session ``d``, and the actions with ``d`` < ex-date <= ``basis``:

- split factor S = product of the splits' ratios (new shares for one old share);
- dividend factor D = product of 1 - amount / close, with the raw close of the session before the ex-date (the factor of
  CRSP). Where a split has the same ex-date, that close is divided by its ratio first, because the amount is per new
  share;
- ``splits``: price / S, volume * S. ``all``: price / S * D, volume * S. ``none``: both as stored.

Pure: dates are exchange-local, prices and amounts dollars, volumes shares.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Literal, get_args

from barflow.errors import BarflowError

Adjust = Literal["none", "splits", "all"]
ADJUSTS: tuple[Adjust, ...] = get_args(Adjust)
Source = Literal["endpoint", "derived", "file"]
Kind = Literal["split", "dividend"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# No real split is larger: the largest was a reverse split of one share for 40,000.
MAX_RATIO = 1e6
MAX_AMOUNT = 1e6
# A ratio is written with whole shares up to this number if it is this near to them: derived ratios have five digits.
MAX_SHARES = 50
TEXT_TOLERANCE = 2e-5
# The ratios of common splits, and how far an open may be from one of them: a true gap comes on top of the split. A
# split of 5 for 4 is not among them, because a fall of 20 % is more often a true one.
COMMON_RATIOS = (1.5, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100)
TRUE_GAP = 0.07


@dataclass(frozen=True)
class Split:
    """A split or spin-off: from ``ex_date`` on there are ``ratio`` shares for each one before.

    10.0 is a 10-for-1 split, 0.125 a 1-for-8 reverse split, 1.281 the factor of a spin-off. A ratio of 1 says that
    there was no split on that day. ``known_from`` (UTC) is when this version was learned.
    """

    symbol: str
    ex_date: date
    ratio: float
    source: Source
    known_from: datetime

    def __post_init__(self) -> None:
        if not 1 / MAX_RATIO <= self.ratio <= MAX_RATIO:
            raise ValueError(f"a split's ratio must be from {1 / MAX_RATIO:g} to {MAX_RATIO:g}, not {self.ratio:g}")

    @property
    def kind(self) -> Kind:
        """Return ``split``."""
        return "split"

    @property
    def value(self) -> float:
        """Return the ratio."""
        return self.ratio

    @property
    def label(self) -> str:
        """Return the split in words, such as ``10-for-1 split`` or ``1.281-for-1 split``."""
        return split_text(self.ratio)


@dataclass(frozen=True)
class Dividend:
    """A cash dividend of ``amount`` per share, in the shares of its ``ex_date``.

    An amount of 0 says that there was none on that day. ``known_from`` (UTC) is when this version was learned.
    """

    symbol: str
    ex_date: date
    amount: float
    currency: str
    source: Source
    known_from: datetime

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= MAX_AMOUNT:
            raise ValueError(f"a dividend's amount must be from 0 to {MAX_AMOUNT:g}, not {self.amount:g}")

    @property
    def kind(self) -> Kind:
        """Return ``dividend``."""
        return "dividend"

    @property
    def value(self) -> float:
        """Return the amount."""
        return self.amount

    @property
    def label(self) -> str:
        """Return the dividend in words, such as ``dividend of 0.25 dollars``."""
        return f"dividend of {self.amount:g} dollars"


Action = Split | Dividend


@dataclass(frozen=True)
class Version:
    """One version of an action. ``known_until`` (UTC) is None while it is the current one."""

    action: Action
    known_until: datetime | None = None


@dataclass(frozen=True)
class Factor:
    """What adjusts the bars of one session: a price is multiplied by ``price``, a volume by ``volume``."""

    price: float
    volume: float


RAW = Factor(1.0, 1.0)


@dataclass(frozen=True)
class Factors:
    """The factors of one symbol by session. ``steps[n]`` applies before ``ex_dates[n]``, the last step from then on."""

    ex_dates: tuple[date, ...] = ()
    steps: tuple[Factor, ...] = (RAW,)

    def at(self, day: date) -> Factor:
        """Return the factor of a session."""
        return self.steps[bisect.bisect_right(self.ex_dates, day)]


def factors(
    actions: Iterable[Action], adjust: Adjust, basis: date, close_before: Callable[[date], float | None]
) -> Factors:
    """Return the factors of one symbol's actions, so that prices are in the shares of the session ``basis``.

    ``close_before`` returns the raw close (dollars) of the session before an ex-date, or None if it is unknown; it is
    asked for dividends only. Raises BarflowError if a dividend has no close, or is not below it.
    """
    ratios: dict[date, float] = defaultdict(lambda: 1.0)
    amounts: dict[date, float] = defaultdict(float)
    for action in actions if adjust != "none" else ():
        if action.ex_date > basis:
            continue
        if isinstance(action, Split):
            ratios[action.ex_date] *= action.ratio
        elif adjust == "all" and action.amount:
            amounts[action.ex_date] += action.amount
    ex_dates = sorted(day for day in {*ratios, *amounts} if amounts.get(day) or ratios.get(day, 1.0) != 1.0)
    ratio, dividend, steps = 1.0, 1.0, [RAW]
    for day in reversed(ex_dates):
        if amount := amounts.get(day, 0.0):
            dividend *= _dividend_factor(day, amount, close_before(day), ratios.get(day, 1.0))
        ratio *= ratios.get(day, 1.0)
        steps.append(Factor(dividend / ratio, ratio))
    return Factors(tuple(ex_dates), tuple(reversed(steps)))


def split_factors(splits: Iterable[Split], basis: date) -> Factors:
    """Return the factors of splits alone, in the shares of the session ``basis``."""
    return factors(splits, "splits", basis, lambda _: None)


def _dividend_factor(day: date, amount: float, close: float | None, ratio: float) -> float:
    """Return 1 - amount / close for a raw close (dollars) before a split by ``ratio`` on the same day."""
    if close is None:
        raise BarflowError(
            f"the dividend of {amount:g} dollars on {day} cannot be applied: the archive has no bars of the session "
            "before it. Nothing was written. Fetch them with `barflow backfill`, or use --adjust splits."
        )
    if amount >= close / ratio:
        raise BarflowError(
            f"the dividend of {amount:g} dollars on {day} is not below the price before it ({close / ratio:g}). "
            "Nothing was written. Import the right amount with `barflow actions import`, or use --adjust splits."
        )
    return 1 - amount * ratio / close


def suspected_ratio(previous_close: float, open: float) -> float | None:
    """Return the ratio of the split that an open suggests, such as 10.0, 1.5 or 0.125, or None.

    The raw close before it divided by the raw open (dollars) must be within 7 % of a common ratio or its inverse.
    """
    if previous_close <= 0 or open <= 0:
        return None
    seen = previous_close / open
    size = max(seen, 1 / seen)
    if size * (1 + TRUE_GAP) < COMMON_RATIOS[0]:
        return None  # almost every open: this function is called for each session of each tick
    nearest = min(COMMON_RATIOS, key=lambda ratio: abs(math.log(size / ratio)))
    if abs(math.log(size / nearest)) > math.log1p(TRUE_GAP):
        return None
    return float(nearest if seen > 1 else 1 / nearest)


def ratio_text(ratio: float) -> str:
    """Return a split's ratio as new and old shares, such as ``10:1``, ``3:2``, ``1:8`` or ``1.281:1``, for a flag."""
    size = max(ratio, 1 / ratio)
    share = Fraction(size).limit_denominator(MAX_SHARES)
    is_near = math.isclose(share, size, rel_tol=TEXT_TOLERANCE)
    more, less = (str(share.numerator), str(share.denominator)) if is_near else (f"{size:g}", "1")
    return f"{more}:{less}" if ratio >= 1 else f"{less}:{more}"


def split_text(ratio: float) -> str:
    """Return a split of this ratio in words, such as ``10-for-1 split`` or ``1-for-8 reverse split``."""
    return f"{ratio_text(ratio).replace(':', '-for-')} {'split' if ratio >= 1 else 'reverse split'}"
