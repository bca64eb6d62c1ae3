-- depends: 0006_float_noise
-- Splits and dividends beside the raw bars, the ranges of sessions that share one factor, and views of adjusted bars.
create table if not exists market.corporate_action (
    symbol text not null,
    kind text not null check (kind in ('split', 'dividend')),
    ex_date date not null,
    ratio double precision check (ratio > 0),
    amount double precision check (amount >= 0),
    currency text,
    source text not null check (source in ('derived', 'endpoint', 'file')),
    known_from timestamptz not null,
    known_until timestamptz,
    load_id text not null,
    primary key (symbol, kind, ex_date, known_from),
    check (case kind when 'split' then ratio is not null and amount is null else ratio is null and amount is not null end)
);
comment on table market.corporate_action is 'Every version of the splits and dividends; the current ones have no known_until';
comment on column market.corporate_action.kind is 'split or dividend';
comment on column market.corporate_action.ex_date is 'The first session that trades after the action';
comment on column market.corporate_action.currency is 'Currency of a dividend';
comment on column market.corporate_action.ratio is 'New shares for one old share; 1 says that there was no split';
comment on column market.corporate_action.amount is
    'Per share of the ex-date, in the currency; 0 says that there was no dividend';
comment on column market.corporate_action.source is
    'endpoint and file as received; derived from raw and adjusted daily bars';
comment on column market.corporate_action.known_from is 'When this version was learned, UTC';
comment on column market.corporate_action.known_until is 'When it was changed or withdrawn, UTC; NULL while it is current';

-- The ranges of a symbol follow each other without a gap, from 0001-01-01 to the day before its newest ex-date.
create table if not exists market.adjustment (
    symbol text not null,
    first_day date not null,
    last_day date not null,
    split double precision not null check (split > 0),
    dividend double precision check (dividend > 0),
    load_id text not null,
    primary key (symbol, first_day),
    check (first_day <= last_day)
);
comment on table market.adjustment is
    'Factors that state the sessions from first_day to last_day in the shares of the symbol''s newest stored session';
comment on column market.adjustment.first_day is 'First day of the range; 0001-01-01 if nothing is before it';
comment on column market.adjustment.last_day is 'Last day of the range, the day before an ex-date';
comment on column market.adjustment.split is 'Prices are divided by it, volumes multiplied';
comment on column market.adjustment.dividend is
    'Prices adjusted for dividends are multiplied by it; NULL if the close before a later dividend is not stored';

create table if not exists market.former_symbol (
    former text primary key,
    symbol text not null,
    last_day date not null,
    check (former <> symbol)
);
comment on table market.former_symbol is 'Symbols that were renamed; the adjusted views show their bars under the present symbol';
comment on column market.former_symbol.former is 'The symbol before the rename';
comment on column market.former_symbol.symbol is 'The present symbol';
comment on column market.former_symbol.last_day is 'The last session under the former symbol';

create table if not exists ops.vendor_bar (
    symbol text not null,
    session_date date not null,
    open double precision not null check (open > 0),
    high double precision not null check (high > 0),
    low double precision not null check (low > 0),
    close double precision not null check (close > 0),
    volume bigint not null check (volume >= 0),
    requested_at timestamptz not null,
    load_id text not null,
    primary key (symbol, session_date)
);
comment on table ops.vendor_bar is 'The vendor''s daily bars, not adjusted, to compare with market.bar_1d';
comment on column ops.vendor_bar.requested_at is 'When the vendor was asked, UTC';

comment on table market.daily_metrics is
    'Metrics of each session in its own shares, from daily bars; NULL until their window is full';
comment on column market.daily_metrics.prev_close is
    'Close of the session before, in this session''s shares: divided by the ratio of a split between them';
comment on column market.daily_metrics.sma_5 is 'Mean of the last 5 closes in this session''s shares, dollars';
comment on column market.daily_metrics.sma_20 is 'Mean of the last 20 closes in this session''s shares, dollars';
comment on column market.daily_metrics.sma_50 is 'Mean of the last 50 closes in this session''s shares, dollars';
comment on column market.daily_metrics.volatility_20 is
    'Sample standard deviation of the last 20 daily log returns (close to prev_close), times the root of 252';
comment on column market.daily_metrics.rsi_14 is
    'Relative strength index by Cutler: simple averages of the last 14 gains and losses, each in this session''s '
    'shares; 50 when nothing moved';
comment on column market.daily_metrics.atr_14 is
    'Simple average of the last 14 true ranges in this session''s shares, dollars';
comment on column market.daily_metrics.volume_ratio_20 is
    'Volume over the mean of the 20 sessions before, in this session''s shares';

create or replace view ops.vendor_day as
select
    v.symbol,
    v.session_date,
    (b.open / v.open - 1) * 10000 as open_bps,
    (b.high / v.high - 1) * 10000 as high_bps,
    (b.low / v.low - 1) * 10000 as low_bps,
    (b.close / v.close - 1) * 10000 as close_bps,
    (b.volume::double precision / nullif(v.volume, 0) - 1) * 100 as volume_pct,
    coalesce(b.is_complete, false) as complete
from ops.vendor_bar as v
left join market.bar_1d as b on b.symbol = v.symbol and b.session_date = v.session_date;
comment on view ops.vendor_day is
    'How far market.bar_1d is from the vendor''s daily bar; NULL if no bar of the session is stored';
comment on column ops.vendor_day.open_bps is 'Basis points: (our open / the vendor''s - 1) * 10000';
comment on column ops.vendor_day.volume_pct is 'Per cent: (our volume / the vendor''s - 1) * 100';
comment on column ops.vendor_day.complete is 'Every 5-minute bar of the session is stored';

-- The first part of the union has no condition and no join, so a query that filters on symbol and orders by bar_start
-- reads it by the primary key, in order. The condition on all parts excludes renamed symbols from the first one.
-- Where several names of a share hold the same session, the newest name counts (barflow.market.instruments).
do $$
declare
    bars text;
begin
    foreach bars in array array['bar_5min', 'bar_30min', 'bar_1h', 'bar_1d'] loop
        execute format($view$
            create or replace view market.%1$I as
            select
                b.symbol,
                b.bar_start,
                b.session_date,
                coalesce(b.open / a.split, b.open) as open,
                coalesce(b.high / a.split, b.high) as high,
                coalesce(b.low / a.split, b.low) as low,
                coalesce(b.close / a.split, b.close) as close,
                coalesce(b.volume * a.split, b.volume) as volume,
                coalesce(b.vwap / a.split, b.vwap) as vwap,
                b.bar_count,
                b.expected_bars,
                b.is_complete,
                case when a.symbol is null then b.open else b.open / a.split * a.dividend end as open_all,
                case when a.symbol is null then b.high else b.high / a.split * a.dividend end as high_all,
                case when a.symbol is null then b.low else b.low / a.split * a.dividend end as low_all,
                case when a.symbol is null then b.close else b.close / a.split * a.dividend end as close_all,
                b.load_id
            from (
                select symbol, bar_start, session_date, open, high, low, close, volume, vwap, bar_count,
                    expected_bars, is_complete, load_id, false as renamed
                from market.%2$I
                union all
                select n.symbol, r.bar_start, r.session_date, r.open, r.high, r.low, r.close, r.volume, r.vwap,
                    r.bar_count, r.expected_bars, r.is_complete, r.load_id, true
                from market.former_symbol as n
                inner join market.%2$I as r on r.symbol = n.former and r.session_date <= n.last_day
                where (n.former, r.session_date) not in (
                    select o.former, d.session_date
                    from market.former_symbol as o
                    inner join market.bar_1d as d on d.symbol = o.symbol and d.session_date <= o.last_day
                    union all
                    select o.former, d.session_date
                    from market.former_symbol as o
                    inner join market.former_symbol as newer on newer.symbol = o.symbol and newer.last_day > o.last_day
                    inner join market.bar_1d as d on d.symbol = newer.former and d.session_date <= o.last_day
                )
                union all
                select r.symbol, r.bar_start, r.session_date, r.open, r.high, r.low, r.close, r.volume, r.vwap,
                    r.bar_count, r.expected_bars, r.is_complete, r.load_id, true
                from market.former_symbol as n
                inner join market.%2$I as r on r.symbol = n.former and r.session_date > n.last_day
            ) as b
            left join market.adjustment as a
                on a.symbol = b.symbol and b.session_date between a.first_day and a.last_day
            where b.renamed or b.symbol not in (select former from market.former_symbol)
        $view$, bars || '_adjusted', bars);
        execute format(
            'comment on view market.%I is %L', bars || '_adjusted',
            'market.' || bars || ' in the shares of the newest stored session, under present symbols: open, high, low, '
            'close, vwap and volume adjusted for splits, open_all to close_all for splits and dividends'
        );
    end loop;
end
$$;
