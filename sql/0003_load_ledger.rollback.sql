drop table ops.load_run;
