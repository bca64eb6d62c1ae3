-- Intraday bars of {minutes} minutes: {slots} slots from the session's open. A session's last bucket may be shorter.
select
    symbol,
    min(opens) + make_dt_interval(0, 0, {minutes} * (slot div {slots})) as bar_start,
    session_date,
    min_by(open, ts) as open,
    max(high) as high,
    min(low) as low,
    max_by(close, ts) as close,
    sum(volume) as volume,
    if(sum(volume) > 0, sum((high + low + close) / 3 * volume) / sum(volume), null) as vwap,
    cast(count(*) as smallint) as bar_count,
    cast(least({slots}, min(session_bars) - {slots} * (slot div {slots})) as smallint) as expected_bars
from bars
group by symbol, session_date, slot div {slots}
