"""The recordings of one origin: which files there are, and in which form each is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recordings:
    """Files of one origin, synthetic or real. All times in them are New York's wall clock, a bar's is its open.

    Attributes:
        origin: ``synthetic`` or ``real``.
        watch_list: One CSV ``datetime,open,high,low,close,volume,symbol`` in Twelve Data's text, newest first within
            a symbol, with a partial first session and a half day.
        answers: The bars of ``watch_list`` as a folder of Twelve Data's JSON answers, one file per symbol.
        long: By symbol, a CSV ``datetime,open,high,low,close,volume``, oldest first, over half days, both changes of
            daylight saving time and bars outside the session.
        long_as_first_seen: By symbol, the same file before bars were revised or came late. The real recordings have
            no revision: both names lead to the same file.
        with_gaps: By symbol, a CSV ``Date Time,Open,High,Low,Close,Volume,Adj Close`` in float32 text, oldest first,
            with missing bars and a bar that traded nothing.
        bodies: By name, a body that Twelve Data answered: two with bars, and one per kind of error.
    """

    origin: str
    watch_list: Path
    answers: Path
    long: Mapping[str, Path]
    long_as_first_seen: Mapping[str, Path]
    with_gaps: Mapping[str, Path]
    bodies: Mapping[str, Any]
