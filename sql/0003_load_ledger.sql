-- depends: 0002_daily_metrics
-- One row per load. A manifest is consumed when a load that names it succeeded.
create table if not exists ops.load_run (
    load_id text primary key,
    manifests text[] not null default '{}',
    started_at timestamptz not null,
    finished_at timestamptz,
    rows jsonb not null default '{}',
    outcome text not null check (outcome in ('loaded', 'failed')),
    error text
);
create index if not exists load_run_finished on ops.load_run (finished_at desc);
comment on table ops.load_run is 'Every load: what it consumed and wrote; written in the transaction of its rows';
comment on column ops.load_run.rows is 'Rows written, by table';
