-- Daily bars: one per session, which starts at the session's open.
select
    symbol,
    min(opens) as bar_start,
    session_date,
    min_by(open, ts) as open,
    max(high) as high,
    min(low) as low,
    max_by(close, ts) as close,
    sum(volume) as volume,
    if(sum(volume) > 0, sum((high + low + close) / 3 * volume) / sum(volume), null) as vwap,
    cast(count(*) as smallint) as bar_count,
    cast(min(session_bars) as smallint) as expected_bars
from bars
group by symbol, session_date
