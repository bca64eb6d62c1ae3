-- Realized volatility: the root of the sum of squared log returns between the closes of a session's 5-minute bars.
-- Source: Andersen and Bollerslev, "Answering the Skeptics" (1998).
select
    symbol,
    session_date,
    sqrt(sum(step * step)) as realized_vol
from (
    select
        symbol,
        session_date,
        ln(close / lag(close) over (partition by symbol, session_date order by ts)) as step
    from bars
)
group by symbol, session_date
