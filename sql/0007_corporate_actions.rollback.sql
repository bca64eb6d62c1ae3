drop view if exists market.bar_5min_adjusted, market.bar_30min_adjusted, market.bar_1h_adjusted, market.bar_1d_adjusted;
drop view if exists ops.vendor_day;
drop table if exists ops.vendor_bar, market.former_symbol, market.adjustment, market.corporate_action;
