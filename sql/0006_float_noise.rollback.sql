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
            'alter table %s add constraint bar_5min_check check (low > 0 and low <= least(open, close) '
            'and high >= greatest(open, close)) not valid',
            bars
        );
    end loop;
end
$$;
