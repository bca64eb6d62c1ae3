-- Daily bars from before those in bar_1d: none, for this job reads every month that it is to look at.
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
