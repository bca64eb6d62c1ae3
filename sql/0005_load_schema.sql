-- depends: 0004_sandbox
-- The schema of a load's staging tables. A load creates and drops tables in it, so its user needs no permission to
-- create schemas. A deployment gives it to the loader.
create schema if not exists load;

-- Every user that inserts a row runs this function. It finds unqualified names in the system's catalog only.
alter function sandbox.take_place() set search_path = pg_catalog, pg_temp;
