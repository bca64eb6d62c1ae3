"""DuckDB: print how the volume of a session spreads over its hours, and how far each close is from its VWAP.

    python examples/research/duckdb_volume_by_hour.py [FIRST_DAY LAST_DAY]

It reads the archive of BARFLOW_LAKE_URI, or else that of `make demo`. DuckDB queries the Arrow table in place.
"""

import sys
from datetime import UTC, datetime, timedelta

import duckdb

import barflow

QUERY = """
with hours as (
    select symbol, session_date, row_number() over (partition by symbol, session_date order by ts) as hour,
        volume / sum(volume) over (partition by symbol, session_date) as share,
        10000 * (close / vwap - 1) as from_vwap
    from bars
    qualify count(*) over (partition by symbol, session_date) = 7  -- whole sessions
)
select hour, count(*) as sessions, round(100 * avg(share), 1) as volume_percent,
    round(avg(abs(from_vwap)), 1) as close_from_vwap_bps
from hours group by hour order by hour
"""


def main(first: str, last: str) -> None:
    """Print the share of the volume of each hour since the open, and how far its close is from its VWAP."""
    bars = barflow.read(barflow.symbols(), first, last, interval="1h")
    duckdb.connect().register("bars", bars).sql(QUERY).show()


if __name__ == "__main__":
    today = datetime.now(UTC).date()
    main(*(sys.argv[1:3] or (f"{today - timedelta(days=60)}", f"{today}")))
