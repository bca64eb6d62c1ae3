-- depends: 0005_load_schema
-- Open and close may be outside of low and high by the noise of binary floats: OHLC_TOLERANCE of market/bars.py. Each
-- table has the constraint under the name that it got in bar_5min.
alter table market.bar_5min drop constraint if exists bar_5min_check;
alter table market.bar_5min add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) * (1 + 1e-12) and high * (1 + 1e-12) >= greatest(open, close)
);
alter table market.bar_30min drop constraint if exists bar_5min_check;
alter table market.bar_30min add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) * (1 + 1e-12) and high * (1 + 1e-12) >= greatest(open, close)
);
alter table market.bar_1h drop constraint if exists bar_5min_check;
alter table market.bar_1h add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) * (1 + 1e-12) and high * (1 + 1e-12) >= greatest(open, close)
);
alter table market.bar_1d drop constraint if exists bar_5min_check;
alter table market.bar_1d add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) * (1 + 1e-12) and high * (1 + 1e-12) >= greatest(open, close)
);
alter table sandbox.bar_30min drop constraint if exists bar_5min_check;
alter table sandbox.bar_30min add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) * (1 + 1e-12) and high * (1 + 1e-12) >= greatest(open, close)
);
alter table sandbox.bar_1h drop constraint if exists bar_5min_check;
alter table sandbox.bar_1h add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) * (1 + 1e-12) and high * (1 + 1e-12) >= greatest(open, close)
);
alter table sandbox.bar_1d drop constraint if exists bar_5min_check;
alter table sandbox.bar_1d add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) * (1 + 1e-12) and high * (1 + 1e-12) >= greatest(open, close)
);
