drop schema if exists load cascade;
alter function sandbox.take_place() reset search_path;
