-- Ex-dates of changed splits: none, because this job does not adjust.
select
    symbol,
    array(session_date) as ex_dates
from bar_1d
where false
