-- Bars of 30 minutes: 6 slots counted from the session's open. The last bucket of a session may be shorter.
select
    symbol,
    min(opens) + make_dt_interval(0, 0, 30 * (slot div 6)) as bar_start,
    session_date,
    min_by(open, ts) as open,
    max(high) as high,
    min(low) as low,
    max_by(close, ts) as close,
    sum(volume) as volume,
    if(sum(volume) > 0, sum((high + low + close) / 3 * volume) / sum(volume), null) as vwap,
    cast(count(*) as smallint) as bar_count,
    cast(least(6, min(session_bars) - 6 * (slot div 6)) as smallint) as expected_bars
from bars
group by symbol, session_date, slot div 6
