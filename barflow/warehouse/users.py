"""Who may do what in the warehouse? Its users besides the owner, made and granted again at each deployment.

Names and rights are here; passwords come from Secrets Manager and are set to what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from barflow.warehouse.connection import connect, warehouse_errors

LOADER = "barflow_loader"  # writes rows, and makes the schema of its staging tables
READER = "barflow_reader"  # reads
SANDBOX = "barflow_sandbox"  # reads the market, and writes and makes tables in the schema of trials
AIRFLOW = "airflow"  # owns a database of that name, and sees nothing else
READS, WRITES = "select", "select, insert, update, delete"
TABLE_RIGHTS = {
    "market": {LOADER: WRITES, READER: READS, SANDBOX: READS},
    "ops": {LOADER: WRITES, READER: READS},
    "sandbox": {READER: READS, SANDBOX: WRITES + ", truncate"},
}


def ensure_users(dsn: str, passwords: Mapping[str, str]) -> None:
    """Makes each user that is missing, with its password, and Airflow's database. Raises UnavailableError.

    Passwords leave this process scrambled, so that a server that logs its statements logs none.
    """
    with connect(dsn, autocommit=True) as connection, warehouse_errors("make its users"):
        known = _names(connection, "select rolname from pg_roles")
        for name, password in passwords.items():
            verb = "alter" if name in known else "create"
            statement = sql.SQL(verb + " role {} login password {}")
            scrambled = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
            connection.execute(statement.format(sql.Identifier(name), sql.Literal(scrambled)))
        if AIRFLOW in passwords and AIRFLOW not in _names(connection, "select datname from pg_database"):
            connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(AIRFLOW)))
            connection.execute(sql.SQL("create database {0} owner {0}").format(sql.Identifier(AIRFLOW)))


def grant_rights(dsn: str) -> None:
    """Gives the programs' users their rights on what the migrations have made and on what later ones will make."""
    with connect(dsn) as connection, warehouse_errors("grant rights to its users"):
        database = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("grant create on database {} to {}").format(database, sql.Identifier(LOADER)))
        connection.execute(
            sql.SQL("alter role {} set default_transaction_read_only = on").format(sql.Identifier(READER))
        )
        connection.execute(sql.SQL("grant create on schema sandbox to {}").format(sql.Identifier(SANDBOX)))
        connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(SANDBOX)))
        trials = "alter default privileges for role {} in schema sandbox grant select on tables to {}"
        connection.execute(sql.SQL(trials).format(sql.Identifier(SANDBOX), sql.Identifier(READER)))
        for name, given in TABLE_RIGHTS.items():
            schema = sql.Identifier(name)
            for user, rights in ((sql.Identifier(name), rights) for name, rights in given.items()):
                connection.execute(sql.SQL("grant usage on schema {} to {}").format(schema, user))
                for template in (
                    "grant " + rights + " on all tables in schema {} to {}",
                    "alter default privileges in schema {} grant " + rights + " on tables to {}",
                ):
                    connection.execute(sql.SQL(template).format(schema, user))


def _names(connection: psycopg.Connection[Any], query: str) -> set[str]:
    return {name for (name,) in connection.execute(query.encode())}
