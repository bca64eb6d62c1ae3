-- depends: 0005_load_schema
-- Open and close may be outside of low and high by the noise of binary floats: OHLC_TOLERANCE of market/bars.py. Each
-- table has the constraint under the name that it got in bar_5min.
do $$
declare
    bars text;
begin
    foreach bars in array array[
        'market.bar_5min', 'market.bar_30min', 'market.bar_1h', 'market.bar_1d',
        'sandbox.bar_30min', 'sandbox.bar_1h', 'sandbox.bar_1d'
    ] loop
        execute format('alter table %s drop constraint if exists bar_5min_check', bars);
        execute format(
            'alter table %s add constraint bar_5min_check check (low > 0 and low <= least(open, close) * (1 + 1e-12) '
            'and high * (1 + 1e-12) >= greatest(open, close))',
            bars
        );
    end loop;
end
$$;
