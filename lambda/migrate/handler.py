"""Migration function: create the warehouse's users, migrate its schema and grant the users' privileges.

The deployment runs it inside the VPC, and fails with this function's error if it fails. The database is then as it was
before the migration that failed. It can run any number of times. Environment variables contain the database's address
and the names of the secrets of its owner and users.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import boto3

from barflow.secrets import database_dsn
from barflow.warehouse.migrations import migrate
from barflow.warehouse.users import ensure_users, grant_permissions

SQL = Path(__file__).with_name("sql")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Migrate, and return the names of the applied migrations. Raise BarflowError; the deployment shows its message."""
    dsn = _owner_dsn(_secret(os.environ["ADMIN_SECRET"]))
    users = [_secret(name) for name in json.loads(os.environ["USER_SECRETS"])]
    ensure_users(dsn, {user["username"]: user["password"] for user in users})
    applied = migrate(dsn, SQL)
    grant_permissions(dsn)
    print(json.dumps({"applied": applied}))
    return {"applied": applied}


def _secret(secret_id: str) -> dict[str, str]:
    """Return the JSON of a secret."""
    found: dict[str, str] = json.loads(
        boto3.client("secretsmanager").get_secret_value(SecretId=secret_id)["SecretString"]
    )
    return found


def _owner_dsn(owner: dict[str, str]) -> str:
    """Return the DSN of the database's owner. RDS writes only a name and a password to the owner's secret."""
    address = {"host": "DATABASE_HOST", "port": "DATABASE_PORT", "dbname": "DATABASE_NAME"}
    return database_dsn({**owner, **{key: os.environ[variable] for key, variable in address.items()}})
