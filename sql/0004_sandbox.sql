-- depends: 0003_load_ledger
-- The visual job's tables, with the columns of market's. No program reads or writes them. Glue can only append, so a
-- trigger deletes the old row of the same key: a second run leaves the same rows.
create schema if not exists sandbox;
comment on schema sandbox is 'Experiments of analysts; the pipeline does not read it, and all of it can be deleted';

create table if not exists sandbox.bar_30min (like market.bar_30min including all);
create table if not exists sandbox.bar_1h (like market.bar_1h including all);
create table if not exists sandbox.bar_1d (like market.bar_1d including all);
create table if not exists sandbox.daily_metrics (like market.daily_metrics including all);
alter table sandbox.bar_30min drop column if exists load_id;
alter table sandbox.bar_1h drop column if exists load_id;
alter table sandbox.bar_1d drop column if exists load_id;
alter table sandbox.daily_metrics drop column if exists load_id;

create or replace function sandbox.take_place() returns trigger language plpgsql as $$
begin
    execute format('delete from sandbox.%I where symbol = $1.symbol and %I = $1.%2$I', tg_table_name, tg_argv[0])
    using new;
    return new;
end
$$;
comment on function sandbox.take_place() is 'Deletes the row with the same symbol and the same value of the named column';

create or replace trigger take_place before insert on sandbox.bar_30min
for each row execute function sandbox.take_place('bar_start');
create or replace trigger take_place before insert on sandbox.bar_1h
for each row execute function sandbox.take_place('bar_start');
create or replace trigger take_place before insert on sandbox.bar_1d
for each row execute function sandbox.take_place('bar_start');
create or replace trigger take_place before insert on sandbox.daily_metrics
for each row execute function sandbox.take_place('session_date');
