"""Polars: print how often a session goes on in the direction of its first half hour.

    python examples/research/polars_opening_half_hour.py [FIRST_DAY LAST_DAY]

It reads the archive of BARFLOW_LAKE_URI, or else that of `make demo`. Buckets count from the open, 09:30 in New York.
"""

import sys
from datetime import UTC, datetime, timedelta

import polars as pl

import barflow


def main(first: str, last: str) -> None:
    """Print for each stock how often the rest of a session went the way of its first half hour."""
    bars = pl.DataFrame(barflow.read(barflow.symbols(), first, last, interval="30min"))
    sessions = bars.group_by("symbol", "session_date").agg(
        opening=pl.col("close").first() / pl.col("open").first() - 1,
        rest=pl.col("close").last() / pl.col("close").first() - 1,
    )
    moved = sessions.filter((pl.col("opening") != 0) & (pl.col("rest") != 0))
    found = moved.group_by("symbol").agg(
        sessions=pl.len(),
        same_way=(pl.col("opening").sign() == pl.col("rest").sign()).mean().round(2),
        correlation=pl.corr("opening", "rest").round(2),
    )
    print(found.sort("symbol"))


if __name__ == "__main__":
    today = datetime.now(UTC).date()
    main(*(sys.argv[1:3] or (f"{today - timedelta(days=60)}", f"{today}")))
