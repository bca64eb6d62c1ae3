"""Recordings of 5-minute bars for the tests: synthetic ones, written here, and the real ones where their folder exists.

Both have the same forms and the same kinds of flaws, so each test of a recording runs on every origin that exists.
Nothing here imports Barflow: what a test expects of a recording never comes from the code under test.
"""

from __future__ import annotations

from recordings.files import Recordings
from recordings.real import ABSENT, ORIGINS, REAL_DATA, real
from recordings.synthetic import synthetic

__all__ = ["ABSENT", "ORIGINS", "REAL_DATA", "Recordings", "real", "synthetic"]
