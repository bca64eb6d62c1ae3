"""Confidence intervals of a mean by a bootstrap that resamples whole sessions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from barflow.backtest.prices import Numbers

RESAMPLES = 2000
COVERAGE = 95.0
# The same backtest gives the same interval.
SEED = 20260724
# With fewer sessions, the interval would be far too narrow.
LEAST_SESSIONS = 5
# Resamples that are drawn at once, so that many sessions need little memory.
BATCH = 250

Interval = tuple[float, float]


def interval(values: Numbers, sessions: NDArray[np.intp]) -> Interval | None:
    """Return the 95 % interval of the mean of ``values``, or None with fewer than 5 sessions.

    The alerts of one session are not independent: one move of the market sets off many. So the bootstrap draws whole
    ``sessions`` (the number of each value's session) with replacement, and takes the mean of all values in them. The
    bounds are percentiles of 2000 such means. It is the percentile bootstrap (Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, chapter 13) with clusters (Cameron, Gelbach and Miller, Review of Economics and Statistics
    90(3), 2008).
    """
    _, clusters = np.unique(sessions, return_inverse=True)
    count = int(clusters.max()) + 1 if len(clusters) else 0
    if count < LEAST_SESSIONS:
        return None
    sums = np.bincount(clusters, weights=values, minlength=count)
    sizes = np.bincount(clusters, minlength=count)
    random = np.random.default_rng(SEED)
    means = []
    for _ in range(RESAMPLES // BATCH):
        drawn = random.integers(count, size=(BATCH, count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    tail = (100 - COVERAGE) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return float(low), float(high)
