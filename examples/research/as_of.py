"""As of: print how many bars were known at a moment, and how many of them were corrected since.

    python examples/research/as_of.py MOMENT [FIRST_DAY LAST_DAY]

MOMENT is a time with an offset, such as 2026-11-24T15:00Z. It reads the archive of BARFLOW_LAKE_URI, or else that of
`make demo`.
"""

import sys
from datetime import UTC, datetime, timedelta

import duckdb

import barflow

QUERY = """
select symbol, count(*) as bars, count(past.ts) as known_at_the_moment,
    count(*) filter (past.known_from <> current.known_from) as corrected_since,
    round(10000 * max(abs(current.close / past.close - 1)), 1) as largest_change_bps
from current left join past using (symbol, ts) group by symbol order by symbol
"""


def main(moment: str, first: str, last: str) -> None:
    """Print by stock how many bars were known at the moment, and how many of them were corrected since."""
    current = barflow.read(barflow.symbols(), first, last)
    past = barflow.read(barflow.symbols(), first, last, as_of=moment)
    duckdb.connect().register("current", current).register("past", past).sql(QUERY).show()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4):
        print("usage: python examples/research/as_of.py MOMENT [FIRST_DAY LAST_DAY]", file=sys.stderr)
        sys.exit(2)
    today = datetime.now(UTC).date()
    main(sys.argv[1], *(sys.argv[2:4] or (f"{today - timedelta(days=60)}", f"{today}")))
