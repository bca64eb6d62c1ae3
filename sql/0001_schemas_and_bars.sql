-- The bar tables: one row per symbol and bucket. Buckets count from the session's open; a bar's start is in UTC.
create schema if not exists market;
create schema if not exists ops;

create table if not exists market.bar_5min (
    symbol text not null,
    bar_start timestamptz not null,
    session_date date not null,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume bigint not null,
    vwap double precision,
    bar_count smallint not null,
    expected_bars smallint not null,
    is_complete boolean generated always as (bar_count = expected_bars) stored,
    load_id text not null,
    primary key (symbol, bar_start),
    check (low > 0 and low <= least(open, close) and high >= greatest(open, close)),
    check (volume >= 0 and bar_count between 1 and expected_bars)
);
create table if not exists market.bar_30min (like market.bar_5min including all);
create table if not exists market.bar_1h (like market.bar_5min including all);
create table if not exists market.bar_1d (like market.bar_5min including all);

-- The other tables need no index on session_date: a session is within one UTC day, so their primary keys find it.
create unique index if not exists bar_1d_session on market.bar_1d (symbol, session_date);

comment on table market.bar_5min is 'Bars as the vendor gives them, not adjusted for splits';
comment on table market.bar_30min is '30-minute bars, counted from the session''s open';
comment on table market.bar_1h is 'Hourly bars from 09:30 New York; the last one of a full session holds 30 minutes';
comment on table market.bar_1d is 'One bar a session; bar_start is the session''s open';
comment on column market.bar_5min.bar_start is 'The bar''s open, UTC';
comment on column market.bar_5min.vwap is
    'Sum(typical * volume) / sum(volume) over 5-minute bars, typical = (high + low + close) / 3. It approximates '
    'the VWAP of the tape, which would need every trade. NULL when nothing was traded';
comment on column market.bar_5min.bar_count is '5-minute bars in it';
comment on column market.bar_5min.expected_bars is '5-minute bars that the exchange calendar expects in it';
