create schema if not exists load;
