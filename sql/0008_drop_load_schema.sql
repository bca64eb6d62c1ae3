-- depends: 0007_corporate_actions
-- A load streams its rows directly into the tables of the schema market. It no longer has staging tables.
drop schema if exists load cascade;
