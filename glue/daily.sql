-- The daily bars that the metrics need: the touched sessions from `bar_1d`, and the stored sessions around them from
-- `history`. `split` is the product of the ratios of the splits after a session, up to the newest session here: a price
-- divided by it is in the shares of the newest session. `rewrite` marks the sessions whose metrics a touched session or
-- a changed split (`rebased`) may change.
with days as (
    select
        d.symbol,
        d.session_date,
        d.open,
        d.high,
        d.low,
        d.close,
        d.volume,
        v.realized_vol,
        true as touched
    from bar_1d as d
    inner join realized_vol as v on d.symbol = v.symbol and d.session_date = v.session_date
    union all
    select
        h.symbol,
        h.session_date,
        h.open,
        h.high,
        h.low,
        h.close,
        h.volume,
        h.realized_vol,
        false as touched
    from history as h
    left anti join bar_1d as d on h.symbol = d.symbol and h.session_date = d.session_date
),

numbered as (
    select
        d.symbol,
        d.session_date,
        d.open,
        d.high,
        d.low,
        d.close,
        d.volume,
        d.realized_vol,
        d.touched,
        r.ex_dates,
        coalesce(f.split, 1) / last_value(coalesce(f.split, 1)) over (
            partition by d.symbol order by d.session_date
            rows between unbounded preceding and unbounded following
        ) as split,
        row_number() over (partition by d.symbol order by d.session_date) as n,
        lag(d.session_date) over (partition by d.symbol order by d.session_date) as previous_date
    from days as d
    left join factors as f on d.symbol = f.symbol and d.session_date between f.first_day and f.last_day
    left join rebased as r on d.symbol = r.symbol
),

marked as (
    select
        *,
        touched or coalesce(exists(ex_dates, day -> day > previous_date and day <= session_date), false) as changed
    from numbered
)

select
    symbol,
    session_date,
    open,
    high,
    low,
    close,
    volume,
    realized_vol,
    split,
    coalesce(n - max(if(changed, n, null)) over (
        partition by symbol order by session_date
        rows between unbounded preceding and current row
    ) < {longest_window}, false) as rewrite
from marked
