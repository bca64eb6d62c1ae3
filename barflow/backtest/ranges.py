"""Ranges of numbers and truths: what is certain of a value that is computed in another order than the live code does.

A range holds the live code's number of each bar, and a truth whether a comparison may hold, and whether it must. The
operations keep that. Rounding is monotone, so an operation on the ends of ranges gives the ends of its result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# The margin of a computed value, relative to it: far above the rounding of the sums of a window, which is below 1e-12.
MARGIN = 1e-10
# Differences below this share of the larger number are 0, as in barflow.alerts.signals, with a margin.
EQUAL = 1.001e-9


class Range(NamedTuple):
    """The least and the largest number that is possible at each bar. Both are the same where it is exact."""

    low: Floats
    high: Floats

    @property
    def wild(self) -> Bools:
        """Return where the number may be infinite or undefined."""
        found: Bools = ~(np.isfinite(self.low) & np.isfinite(self.high))
        return found

    def widened(self, by: Floats | float) -> Range:
        """Return the range with a margin on both sides."""
        return Range(self.low - by, self.high + by)

    def at(self, places: NDArray[np.int64]) -> Range:
        """Return the range at some places."""
        return Range(self.low[places], self.high[places])


class Truth(NamedTuple):
    """Whether something may hold, and whether it must, at each bar."""

    may: Bools
    must: Bools

    def __invert__(self) -> Truth:
        return Truth(~self.must, ~self.may)

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.may & other.may, self.must & other.must)

    def __or__(self, other: Truth) -> Truth:
        return Truth(self.may | other.may, self.must | other.must)


def exact(values: Floats) -> Range:
    """Return the range of numbers that the live code has, too."""
    return Range(values, values)


def near(values: Floats, error: Floats | float = 0.0) -> Range:
    """Return the range of computed numbers. ``error`` is the largest absolute error beside ``MARGIN``."""
    return exact(values).widened(np.abs(values) * MARGIN + error)


def negative(a: Range) -> Range:
    """Return -a."""
    return Range(-a.high, -a.low)


def add(a: Range, b: Range) -> Range:
    """Return a + b."""
    return Range(a.low + b.low, a.high + b.high)


def subtract(a: Range, b: Range) -> Range:
    """Return a - b."""
    return Range(a.low - b.high, a.high - b.low)


def multiply(a: Range, b: Range) -> Range:
    """Return a * b."""
    ends = [a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high]
    return Range(np.minimum.reduce(ends), np.maximum.reduce(ends))


def divide(a: Range, b: Range) -> Range:
    """Return a / b, which may be anything where b may be 0."""
    ends = [a.low / b.low, a.low / b.high, a.high / b.low, a.high / b.high]
    anything = (b.low <= 0) & (b.high >= 0)
    low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
    return Range(np.where(anything, -np.inf, low), np.where(anything, np.inf, high))


def less(a: Range, b: Range) -> Truth:
    """Return whether a < b."""
    return Truth(a.low < b.high, a.high < b.low)


def at_most(a: Range, b: Range) -> Truth:
    """Return whether a <= b."""
    return Truth(a.low <= b.high, a.high <= b.low)


def equal(a: Range, b: Range) -> Truth:
    """Return whether a == b."""
    return Truth((a.low <= b.high) & (b.low <= a.high), (a.low == b.high) & (a.high == b.low))


def choose(condition: Truth, yes: Range, no: Range) -> Range:
    """Return yes where the condition holds, otherwise no."""
    low = np.where(condition.must, yes.low, np.where(condition.may, np.minimum(yes.low, no.low), no.low))
    high = np.where(condition.must, yes.high, np.where(condition.may, np.maximum(yes.high, no.high), no.high))
    return Range(low, high)


def below(price: Range, reference: Range) -> Truth:
    """Return whether the difference is negative, after one within rounding is taken as 0."""
    apart = subtract(price, reference)
    return Truth(apart.low < 0, apart.high < -_rounding(price, reference))


def above(price: Range, reference: Range) -> Truth:
    """Return whether the difference is positive, after one within rounding is taken as 0."""
    return below(reference, price)


def _rounding(a: Range, b: Range) -> Floats:
    sizes = [np.abs(end) for end in (*a, *b)]
    found: Floats = np.maximum.reduce(sizes) * EQUAL
    return found
