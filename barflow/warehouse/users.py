"""The warehouse's users besides its owner, and their permissions. Each deployment creates and grants them again.

Passwords come from Secrets Manager.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from barflow.warehouse.connection import SYSTEM_NAMES, connect, warehouse_errors

LOADER = "barflow_loader"  # writes rows
READER = "barflow_reader"  # reads
SANDBOX = "barflow_sandbox"  # reads market; writes and creates tables in sandbox
AIRFLOW = "airflow"  # owns the database of that name and has access to nothing else
READS, WRITES = "select", "select, insert, update, delete"
TABLE_PERMISSIONS = {
    "market": {LOADER: WRITES, READER: READS, SANDBOX: READS},
    "ops": {LOADER: WRITES, READER: READS},
    "sandbox": {READER: READS, SANDBOX: WRITES + ", truncate"},
}


def ensure_users(dsn: str, passwords: Mapping[str, str]) -> None:
    """Create each missing user, set the passwords, and create Airflow's database. Raise UnavailableError.

    Passwords leave this process as SCRAM verifiers, so a log of statements shows none.
    """
    with connect(dsn, SYSTEM_NAMES, autocommit=True) as connection, warehouse_errors("create its users"):
        known = _names(connection, "select rolname from pg_roles")
        for name, password in passwords.items():
            verb = "alter" if name in known else "create"
            statement = sql.SQL(verb + " role {} login password {}")
            verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
            connection.execute(statement.format(sql.Identifier(name), sql.Literal(verifier)))
        if AIRFLOW in passwords and AIRFLOW not in _names(connection, "select datname from pg_database"):
            connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(AIRFLOW)))
            connection.execute(sql.SQL("create database {0} owner {0}").format(sql.Identifier(AIRFLOW)))


def grant_permissions(dsn: str) -> None:
    """Grant the users their permissions on all tables, and on those of later migrations. Revoke all others."""
    with connect(dsn, SYSTEM_NAMES) as connection, warehouse_errors("grant permissions to its users"):
        _forbid_schemas(connection)
        # The reader changes its own password when AWS rotates it. Its privileges allow no other change.
        connection.execute(sql.SQL("alter role {} reset default_transaction_read_only").format(sql.Identifier(READER)))
        connection.execute(sql.SQL("grant create on schema sandbox to {}").format(sql.Identifier(SANDBOX)))
        connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(SANDBOX)))
        trials = "alter default privileges for role {} in schema sandbox grant select on tables to {}"
        connection.execute(sql.SQL(trials).format(sql.Identifier(SANDBOX), sql.Identifier(READER)))
        for name, given in TABLE_PERMISSIONS.items():
            schema = sql.Identifier(name)
            for user, privileges in ((sql.Identifier(name), privileges) for name, privileges in given.items()):
                connection.execute(sql.SQL("grant usage on schema {} to {}").format(schema, user))
                for template in (
                    "grant " + privileges + " on all tables in schema {} to {}",
                    "alter default privileges in schema {} grant " + privileges + " on tables to {}",
                ):
                    connection.execute(sql.SQL(template).format(schema, user))


def _forbid_schemas(connection: psycopg.Connection[Any]) -> None:
    """Forbid users to create a schema, and drop the schema of earlier releases' staging tables.

    Earlier releases let the loader create schemas. One with the name of another user would replace the tables and
    functions that this user names without a schema.
    """
    database, loader = sql.Identifier(connection.info.dbname), sql.Identifier(LOADER)
    connection.execute("revoke create on schema public from public")
    connection.execute(sql.SQL("grant {} to current_user").format(loader))
    connection.execute("drop schema if exists load cascade")  # an earlier release, deployed again, creates it
    for user in map(sql.Identifier, (LOADER, READER, SANDBOX)):
        connection.execute(sql.SQL("revoke create on database {} from {}").format(database, user))
        connection.execute(sql.SQL("alter role {} in database {} set search_path = public").format(user, database))
    owner = sql.Identifier(connection.info.user)
    connection.execute(sql.SQL("alter role {} in database {} set search_path = public").format(owner, database))


def _names(connection: psycopg.Connection[Any], query: str) -> set[str]:
    return {name for (name,) in connection.execute(query.encode())}
