drop view market.latest_trend;
drop table market.daily_metrics;
