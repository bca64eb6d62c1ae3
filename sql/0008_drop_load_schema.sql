-- depends: 0007_corporate_actions
-- A load streams its rows into the tables of market itself: it has no staging tables any more.
drop schema if exists load cascade;
