"""What answers a query of Athena? DuckDB, on the Parquet objects of the emulator's S3, by what the catalog knows.

As on Athena a table's rows are those of the partitions that were entered into the catalog, and an answer lies in the
workgroup's place as CSV. Types are named as Athena names them.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
from moto.athena.models import AthenaBackend, Execution, QueryResults
from moto.athena.responses import AthenaResponse
from moto.glue.models import FakeTable, glue_backends

from emulators.aws import programs
from emulators.aws.machine import ACCOUNT, REGION, Machine

TYPES = {
    "VARCHAR": "varchar", "DATE": "date", "BIGINT": "bigint", "INTEGER": "integer", "DOUBLE": "double",
    "BOOLEAN": "boolean", "HUGEINT": "bigint", "TIMESTAMP": "timestamp", "TIMESTAMP WITH TIME ZONE": "timestamp",
}  # fmt: skip


def answer(query: str, database: str) -> QueryResults:
    """Runs a query on the catalog's database. Raises duckdb.Error for one that is wrong."""
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as db:
        db.execute("set timezone = 'UTC'")
        db.execute(f"create schema \"{database}\"; set schema = '{database}'")
        for table in glue_backends[ACCOUNT][REGION].get_database(database).tables.values():
            _view(db, table, Path(folder))
        found = db.sql(query)
        kinds = [TYPES.get(str(kind).split("(")[0], "varchar") for kind in found.types]
        rows = [found.columns, *([_as_text(value) for value in row] for row in found.fetchall())]
        columns = [
            {"Name": name, "Label": name, "Type": kind, "Precision": 0, "Scale": 0, "Nullable": "UNKNOWN"}
            for name, kind in zip(found.columns, kinds, strict=True)
        ]
    cells = ([{} if value is None else {"VarCharValue": value} for value in row] for row in rows)
    return QueryResults([{"Data": list(row)} for row in cells], columns)


def _view(db: duckdb.DuckDBPyConnection, table: FakeTable, folder: Path) -> None:
    """The table's entered partitions as a view of its name; a partition's values are the catalog's own."""
    described = table.as_dict()
    if described.get("Parameters", {}).get("classification") != "parquet":
        return  # of another store: Athena cannot read it, either
    keys = [column["Name"] for column in described["PartitionKeys"]]
    parts = []
    for number, partition in enumerate(table.partitions.values()):
        bucket, prefix = programs.place_of(partition.as_dict()["StorageDescriptor"]["Location"])
        place = folder / table.name / str(number)
        place.mkdir(parents=True)
        for key in list(programs.s3().get_bucket(bucket).keys.keys()):
            if key.startswith(prefix) and programs.exists(f"s3://{bucket}/{key}"):
                programs.fetch(f"s3://{bucket}/{key}", place)
        if not any(place.iterdir()):
            continue
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


def run_on(machine: Machine) -> None:
    """Has moto's Athena answer its queries."""
    start, plain = AthenaBackend.start_query_execution, AthenaResponse.get_query_execution

    def start_and_answer(
        self: AthenaBackend, query: str, context: Any, config: Any, workgroup: str, execution_parameters: Any
    ) -> str:
        settings = self.work_groups[workgroup or "primary"].configuration.get("ResultConfiguration", {})
        config = {**(config or {}), **settings}
        run_id = start(self, query, context, config, workgroup, execution_parameters)
        execution = self.executions[run_id]
        try:
            found = answer(query, (context or {}).get("Database", "default"))
        except Exception as error:
            execution.outcome = "FAILED"
            execution.reason = str(error).splitlines()[0]
            return run_id
        self.query_results[run_id] = found
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        for row in found.rows:
            writer.writerow([cell.get("VarCharValue", "") for cell in row["Data"]])
        programs.s3().put_object(*programs.place_of(execution.config["OutputLocation"]), text.getvalue().encode())
        execution.outcome = "SUCCEEDED"
        return run_id

    def described(self: AthenaResponse) -> str:
        found = json.loads(plain(self))
        reason = getattr(self.athena_backend.executions[self._get_param("QueryExecutionId")], "reason", "")
        found["QueryExecution"]["Status"] |= {"StateChangeReason": reason} if reason else {}
        return json.dumps(found)

    AthenaBackend.start_query_execution, AthenaResponse.get_query_execution = start_and_answer, described
    Execution.status = property(
        lambda self: getattr(self, "outcome", "RUNNING"), lambda self, value: setattr(self, "outcome", value)
    )
