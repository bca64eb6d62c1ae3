-- Factors of splits: none, because this job does not adjust.
select
    symbol,
    session_date as first_day,
    session_date as last_day,
    cast(1 as double) as split
from bar_1d
where false
