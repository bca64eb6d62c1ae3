-- The daily bars that the metrics need: the touched sessions from `bar_1d`, and the stored sessions around them from
-- `history`. `rewrite` marks the sessions whose metrics a touched session may change.
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
        *,
        row_number() over (partition by symbol order by session_date) as n
    from days
)

select
    *,
    coalesce(n - max(if(touched, n, null)) over (
        partition by symbol order by session_date
        rows between unbounded preceding and current row
    ) < {longest_window}, false) as rewrite
from numbered
