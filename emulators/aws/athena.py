"""Athena queries answered by DuckDB, from the Parquet objects of the emulator's S3 and moto's catalog.

As on Athena, a table has the rows of the partitions in the catalog, and a result is a CSV object at the workgroup's
location. Column types have Athena's names.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
from moto.athena.models import AthenaBackend, QueryResults
from moto.athena.responses import AthenaResponse
from moto.glue.models import FakeTable, glue_backends
from moto.moto_api import state_manager

from emulators.aws import s3_objects
from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.patches import Function, wrap

TYPES = {
    "VARCHAR": "varchar", "DATE": "date", "BIGINT": "bigint", "INTEGER": "integer", "DOUBLE": "double",
    "BOOLEAN": "boolean", "HUGEINT": "bigint", "TIMESTAMP": "timestamp", "TIMESTAMP WITH TIME ZONE": "timestamp",
}  # fmt: skip

# A query's status changes only when this module sets it.
state_manager.set_transition("athena::execution", {"progression": "manual", "times": sys.maxsize})


def run_query(query: str, database: str) -> QueryResults:
    """Return the result of a query on a database of the catalog. Raise duckdb.Error if the query is wrong."""
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        db.execute(f"create schema \"{database}\"; set schema = '{database}'")
        for table in glue_backends[ACCOUNT][REGION].get_database(database).tables.values():
            create_view(db, table, Path(folder))
        found = db.sql(query)
        types = [TYPES.get(str(kind).split("(")[0], "varchar") for kind in found.types]
        rows = [found.columns, *([_as_text(value) for value in row] for row in found.fetchall())]
        columns = [
            {"Name": name, "Label": name, "Type": kind, "Precision": 0, "Scale": 0, "Nullable": "UNKNOWN"}
            for name, kind in zip(found.columns, types, strict=True)
        ]
    cells = ([{} if value is None else {"VarCharValue": value} for value in row] for row in rows)
    return QueryResults([{"Data": list(row)} for row in cells], columns)


def create_view(db: duckdb.DuckDBPyConnection, table: FakeTable, folder: Path) -> None:
    """Create a view of a table's partitions; the values of partition columns come from the catalog."""
    described = table.as_dict()
    if described.get("Parameters", {}).get("classification") != "parquet":
        return  # Athena cannot read the tables of another store either
    keys = [column["Name"] for column in described["PartitionKeys"]]
    parts = []
    for number, partition in enumerate(table.partitions.values()):
        bucket, prefix = s3_objects.split_uri(partition.as_dict()["StorageDescriptor"]["Location"])
        objects = s3_objects.list_keys(bucket, prefix)
        if not objects:
            continue
        place = folder / table.name / str(number)
        place.mkdir(parents=True)
        for key in objects:
            s3_objects.download(f"s3://{bucket}/{key}", place)
        values = ", ".join(f"'{value}' as \"{key}\"" for key, value in zip(keys, partition.values, strict=True))
        parts.append(f"select *, {values} from read_parquet('{place}/*', hive_partitioning = false)")
    columns = [*described["StorageDescriptor"]["Columns"], *described["PartitionKeys"]]
    empty = ", ".join(
        f'null::{column["Type"].replace("string", "varchar")} as "{column["Name"]}"' for column in columns
    )
    body = " union all ".join(parts) or f"select {empty} where false"
    db.execute(f'create view "{table.name}" as {body}')


def _as_text(value: Any) -> str | None:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03}"
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else None if value is None else str(value)


@wrap(AthenaBackend, "start_query_execution")
def _start_query(
    original: Function, backend: AthenaBackend, *, query: str, context: Any, config: Any, workgroup: str, **more: Any
) -> str:
    """Run a query and store its result at the workgroup's location."""
    location = backend.work_groups[workgroup or "primary"].configuration.get("ResultConfiguration", {})
    config = {**(config or {}), **location}
    query_id: str = original(backend, query=query, context=context, config=config, workgroup=workgroup, **more)
    execution = backend.executions[query_id]
    try:
        result = run_query(query, (context or {}).get("Database", "default"))
    except Exception as error:
        execution.reason = str(error).splitlines()[0]
        execution.status = "FAILED"
        return query_id
    backend.query_results[query_id] = result
    s3_objects.write(execution.config["OutputLocation"], _as_csv(result).encode())
    execution.status = "SUCCEEDED"
    return query_id


def _as_csv(result: QueryResults) -> str:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in result.rows:
        writer.writerow([cell.get("VarCharValue", "") for cell in row["Data"]])
    return text.getvalue()


@wrap(AthenaResponse, "get_query_execution")
def _describe_query(original: Function, response: AthenaResponse) -> str:
    """Answer with the reason of a failed query."""
    described = json.loads(original(response))
    execution = response.athena_backend.executions[response._get_param("QueryExecutionId")]
    if reason := getattr(execution, "reason", ""):
        described["QueryExecution"]["Status"]["StateChangeReason"] = reason
    return json.dumps(described)
