-- The 5-minute bars as rows of the warehouse.
select
    symbol,
    ts as bar_start,
    session_date,
    open,
    high,
    low,
    close,
    volume,
    if(volume > 0, (high + low + close) / 3, null) as vwap,
    cast(1 as smallint) as bar_count,
    cast(1 as smallint) as expected_bars
from bars
