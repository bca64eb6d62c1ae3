-- Metrics of the sessions in `daily` marked `rewrite`; the other sessions are history for the windows. A metric is NULL
-- until its window is full. RSI is Cutler's variant (simple averages); RSI and true range follow Wilder, "New Concepts
-- in Technical Trading Systems" (1978). Every metric is in the shares of its own session. Before an average, prices and
-- volumes are converted to the shares of the newest session (price / split, volume * split). The average is converted
-- back to the shares of its session.
with steps as (
    select
        *,
        -- The quotient of the factors is exactly 1 unless a split is between the two sessions.
        lag(close) over by_day / (lag(split) over by_day / split) as prev_close
    from daily
    window by_day as (partition by symbol order by session_date)
),

changes as (
    select
        *,
        ln(close / prev_close) as log_return,
        greatest(close - prev_close, 0) / split as gain,
        greatest(prev_close - close, 0) / split as loss,
        (greatest(high, prev_close) - least(low, prev_close)) / split as true_range
    from steps
),

windowed as (
    select
        *,
        if(count(close) over last_5 = 5, avg(close / split) over last_5 * split, null) as sma_5,
        if(count(close) over last_20 = 20, avg(close / split) over last_20 * split, null) as sma_20,
        if(count(close) over last_50 = 50, avg(close / split) over last_50 * split, null) as sma_50,
        if(count(log_return) over last_20 = 20, stddev_samp(log_return) over last_20 * sqrt(252), null)
            as volatility_20,
        if(count(prev_close) over last_14 = 14, avg(gain) over last_14, null) as mean_gain,
        if(count(prev_close) over last_14 = 14, avg(loss) over last_14, null) as mean_loss,
        if(count(prev_close) over last_14 = 14, avg(true_range) over last_14 * split, null) as atr_14,
        if(count(volume) over before_20 = 20, avg(volume * split) over before_20 / split, null) as mean_volume
    from changes
    window
        last_5 as (partition by symbol order by session_date rows between 4 preceding and current row),
        last_14 as (partition by symbol order by session_date rows between 13 preceding and current row),
        last_20 as (partition by symbol order by session_date rows between 19 preceding and current row),
        last_50 as (partition by symbol order by session_date rows between 49 preceding and current row),
        before_20 as (partition by symbol order by session_date rows between 20 preceding and 1 preceding)
)

select
    symbol,
    session_date,
    close,
    prev_close,
    close / prev_close - 1 as return_1d,
    open / prev_close - 1 as gap_open,
    (high - low) / close as range_pct,
    realized_vol,
    sma_5,
    sma_20,
    sma_50,
    volatility_20,
    case
        when mean_gain + mean_loss = 0 then 50
        else 100 * mean_gain / (mean_gain + mean_loss)
    end as rsi_14,
    atr_14,
    if(mean_volume > 0, volume / mean_volume, null) as volume_ratio_20
from windowed
where rewrite
