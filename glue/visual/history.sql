-- Daily bars before those in bar_1d: none, because this job reads all months of its window.
select
    symbol,
    session_date,
    open,
    high,
    low,
    close,
    volume,
    cast(null as double) as realized_vol
from bar_1d
where false
