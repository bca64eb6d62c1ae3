alter table market.bar_5min drop constraint if exists bar_5min_check;
alter table market.bar_5min add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) and high >= greatest(open, close)
) not valid;
alter table market.bar_30min drop constraint if exists bar_5min_check;
alter table market.bar_30min add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) and high >= greatest(open, close)
) not valid;
alter table market.bar_1h drop constraint if exists bar_5min_check;
alter table market.bar_1h add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) and high >= greatest(open, close)
) not valid;
alter table market.bar_1d drop constraint if exists bar_5min_check;
alter table market.bar_1d add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) and high >= greatest(open, close)
) not valid;
alter table sandbox.bar_30min drop constraint if exists bar_5min_check;
alter table sandbox.bar_30min add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) and high >= greatest(open, close)
) not valid;
alter table sandbox.bar_1h drop constraint if exists bar_5min_check;
alter table sandbox.bar_1h add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) and high >= greatest(open, close)
) not valid;
alter table sandbox.bar_1d drop constraint if exists bar_5min_check;
alter table sandbox.bar_1d add constraint bar_5min_check check (
    low > 0 and low <= least(open, close) and high >= greatest(open, close)
) not valid;
