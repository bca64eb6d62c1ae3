-- The archive's bars with their slot in the session, as barflow.pipeline.frames builds them for the job. A session's
-- open and close come from the exchange calendar, so a missing bar moves no bucket.
select
    a.symbol,
    a.session_date,
    a.ts,
    a.open,
    a.high,
    a.low,
    a.close,
    a.volume,
    s.opens,
    s.session_bars,
    cast((unix_timestamp(a.ts) - unix_timestamp(s.opens)) div 300 as int) as slot
from archive as a
inner join (
    select
        cast(session_date as date) as session_date,
        to_timestamp(concat(session_date, ' ', open_utc)) as opens,
        cast((unix_timestamp(close_utc, 'HH:mm') - unix_timestamp(open_utc, 'HH:mm')) div 300 as int) as session_bars
    from sessions
) as s on a.session_date = s.session_date
