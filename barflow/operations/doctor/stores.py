"""Checks of the stores that the settings name: reachable, in which version, and with which permissions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pymongo.errors import OperationFailure

from barflow.errors import BarflowError, aws_error_code
from barflow.operations.checks import Check, missing_permission
from barflow.operations.doctor.machine import check_folder
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.staging.connection import connect as connect_mongo
from barflow.staging.connection import mongo_errors

MONGODB, WAREHOUSE, LAKE = "MongoDB", "PostgreSQL", "lake"
READS, WRITES = {"find"}, {"insert", "update", "remove", "createCollection", "createIndex", "collMod"}
# pg_current_xact_id() is new in it.
OLDEST_POSTGRESQL = 13
WAREHOUSE_STATE = """
select current_setting('server_version') as version,
       current_setting('server_version_num')::int / 10000 as major,
       current_user as user,
       pg_is_in_recovery() or current_setting('default_transaction_read_only')::bool as read_only,
       has_database_privilege(current_database(), 'create') as may_create,
       (select count(*) from pg_tables where schemaname in ('market', 'ops')) as tables,
       (select coalesce(string_agg(privilege, ', '), '')
        from unnest(array['select', 'insert', 'update', 'delete']) privilege
        where exists (select from pg_tables where schemaname in ('market', 'ops') and not (
            has_schema_privilege(schemaname, 'usage')
            and has_table_privilege(format('%I.%I', schemaname, tablename), privilege)))) as missing
"""


def check_mongodb(settings: Settings, *, writes: bool) -> Check:
    """Check MongoDB. ``writes`` is whether this machine needs to write to it."""
    try:
        database = connect_mongo(resolve(settings.mongodb_uri, "BARFLOW_MONGODB_URI"), settings.mongodb_database)
        with database.client as client, mongo_errors("be asked for its version"):
            version = client.server_info()["version"]
            needed = READS | WRITES if writes else READS
            missing = missing_actions(_authenticated(database), settings.mongodb_database, needed)
    except BarflowError as error:
        return Check(MONGODB, False, str(error))
    found = f"version {version}, database {settings.mongodb_database}"
    if missing:
        fix = (
            f"grant the role readWrite and collMod on {settings.mongodb_database}" if writes else "grant the role read"
        )
        return Check(MONGODB, False, f"{found}; missing permissions: {', '.join(missing)}", fix)
    return Check(MONGODB, True, f"{found}, {'reads and writes' if writes else 'reads'}")


def _authenticated(database: Any) -> Mapping[str, Any]:
    """Return what the server reports about the user, or nothing if it does not report it."""
    try:
        return dict(database.command("connectionStatus", showPrivileges=True)["authInfo"])
    except OperationFailure:
        return {}


def missing_actions(user: Mapping[str, Any], database: str, needed: set[str]) -> list[str]:
    """Return the actions that the user's privileges on a database lack.

    A server without users allows all of them. Some servers report the roles of a user, but not its privileges: then
    nothing is known to be missing.
    """
    privileges = user.get("authenticatedUserPrivileges") or ()
    if not user.get("authenticatedUsers") or (user.get("authenticatedUserRoles") and not privileges):
        return []
    allowed: set[str] = set()
    for privilege in privileges:
        resource = privilege["resource"]
        if resource.get("anyResource") or resource.get("db") in ("", database):
            allowed |= set(privilege["actions"])
    return sorted(needed - allowed)


def check_warehouse(settings: Settings, *, writes: bool) -> Check:
    """Check PostgreSQL. ``writes`` is whether this machine needs to write to it."""
    from barflow.warehouse.connection import connect, warehouse_errors

    try:
        dsn = resolve(settings.warehouse_dsn, "BARFLOW_WAREHOUSE_DSN")
        with connect(dsn) as connection, warehouse_errors("be asked for its version"):
            cursor = connection.execute(WAREHOUSE_STATE.encode())
            names = [column.name for column in cursor.description or ()]
            state = dict(zip(names, cursor.fetchall()[0], strict=True))
    except BarflowError as error:
        return Check(WAREHOUSE, False, str(error))
    return describe_warehouse(state, writes=writes)


def describe_warehouse(state: Mapping[str, Any], *, writes: bool) -> Check:
    """Return the check of a warehouse whose state is a row of WAREHOUSE_STATE."""
    found = f"version {state['version'].split()[0]}, user {state['user']}"
    missing = [name for name in state["missing"].split(", ") if name and (writes or name == "select")]
    if state["major"] < OLDEST_POSTGRESQL:
        return Check(WAREHOUSE, False, found, f"use PostgreSQL {OLDEST_POSTGRESQL} or later")
    if writes and state["read_only"]:
        return Check(WAREHOUSE, False, f"{found}; the server or the user is read-only", "connect to the primary server")
    if writes and not state["may_create"]:
        fix = f"as the owner, run: grant create on database DATABASE to {state['user']}"
        return Check(WAREHOUSE, False, f"{found}; the user has no permission to create schemas", fix)
    if not state["tables"]:
        return Check(WAREHOUSE, True, f"{found}; the tables do not exist yet", "run `barflow migrate`")
    if missing:
        fix = f"as the owner, grant them to {state['user']} on all tables of the schemas market and ops"
        return Check(WAREHOUSE, False, f"{found}; missing permissions: {', '.join(missing)}", fix)
    return Check(WAREHOUSE, True, f"{found}, {'reads and writes' if writes else 'reads'}")


def check_lake(settings: Settings, *, writes: bool) -> Check:
    """Check the lake. A folder gets a temporary file, and a bucket an object under ``_staged``, which is removed."""
    uri = settings.require("lake_uri")
    parts = urlsplit(uri)
    if parts.scheme in ("s3", "s3a"):
        return _check_bucket(uri, parts.netloc, parts.path.strip("/"), writes=writes)
    return check_folder(LAKE, Path(parts.path if parts.scheme == "file" else uri))


def _check_bucket(uri: str, bucket: str, prefix: str, *, writes: bool) -> Check:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    key = "/".join(filter(None, (prefix, "_staged", f"doctor-{uuid.uuid4().hex}")))
    try:
        client = boto3.client(
            "s3", config=Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 2})
        )
        client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        if writes:
            client.put_object(Bucket=bucket, Key=key, Body=b"")
            client.delete_object(Bucket=bucket, Key=key)
    except (BotoCoreError, ClientError) as error:
        permission = missing_permission(error)
        fix = f"grant {permission} on it" if permission else "check BARFLOW_LAKE_URI, AWS_PROFILE and AWS_REGION"
        return Check(LAKE, False, f"{uri} cannot be used ({aws_error_code(error)})", fix)
    return Check(LAKE, True, f"{uri}, {'reads and writes' if writes else 'reads'}")
