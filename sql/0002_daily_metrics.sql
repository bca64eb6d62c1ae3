-- depends: 0001_schemas_and_bars
-- One row per symbol and session, from daily bars. A metric is NULL until its window is full; windows count the
-- sessions that are stored.
create table if not exists market.daily_metrics (
    symbol text not null,
    session_date date not null,
    close double precision not null,
    prev_close double precision,
    return_1d double precision,
    gap_open double precision,
    range_pct double precision,
    realized_vol double precision,
    sma_5 double precision,
    sma_20 double precision,
    sma_50 double precision,
    volatility_20 double precision,
    rsi_14 double precision,
    atr_14 double precision,
    volume_ratio_20 double precision,
    load_id text not null,
    primary key (symbol, session_date)
);
comment on table market.daily_metrics is 'Metrics of each session, from daily bars; NULL until their window is full';
comment on column market.daily_metrics.return_1d is 'close / prev_close - 1';
comment on column market.daily_metrics.gap_open is 'open / prev_close - 1';
comment on column market.daily_metrics.range_pct is '(high - low) / close';
comment on column market.daily_metrics.realized_vol is
    'Root of the sum of squared log returns between the closes of the session''s 5-minute bars; not annualised';
comment on column market.daily_metrics.volatility_20 is
    'Sample standard deviation of the last 20 daily log returns, times the root of 252';
comment on column market.daily_metrics.rsi_14 is
    'Relative strength index by Cutler: simple averages of the last 14 gains and losses; 50 when nothing moved';
comment on column market.daily_metrics.atr_14 is 'Simple average of the last 14 true ranges, dollars';
comment on column market.daily_metrics.volume_ratio_20 is 'Volume over the mean of the 20 sessions before';

create or replace view market.latest_trend as
select
    m.symbol,
    m.session_date,
    m.close as last_close,
    m.close - m.prev_close as change,
    m.return_1d * 100 as change_pct,
    m.close / nullif(m.sma_20, 0) - 1 as above_sma_20,
    m.close / nullif(m.sma_50, 0) - 1 as above_sma_50,
    m.rsi_14,
    newest.bar_start + interval '5 minutes' as data_until,
    now() - (newest.bar_start + interval '5 minutes') as age
from (select distinct on (symbol) * from market.daily_metrics order by symbol, session_date desc) as m
cross join lateral (
    select b.bar_start from market.bar_5min as b where b.symbol = m.symbol order by b.bar_start desc limit 1
) as newest;
comment on view market.latest_trend is
    'Per symbol the last close, its change on the day, its distance from its averages, and the age of its data';
