"""The lake's columns for Arrow and Spark, derived from the Bar's definition in barflow.market.bars.

They are apart from it because PyArrow costs seconds and memory that ingest, a Lambda function, must not spend.
"""

from __future__ import annotations

import pyarrow as pa

from barflow.market.bars import FIELDS, KNOWN_UNTIL, Field

ARROW_TYPES = {
    "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC"),
    "date32": pa.date32(),
    "double": pa.float64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
}


def arrow_schema() -> pa.Schema:
    """Return the columns of a Parquet file of bars. The partition columns are in the file's path."""
    return pa.schema([_field(item) for item in FIELDS])


def history_schema() -> pa.Schema:
    """Return the columns of a Parquet file of superseded versions. The partition columns are in the file's path."""
    return pa.schema([_field(item) for item in (*FIELDS, KNOWN_UNTIL)])


def _field(item: Field) -> pa.Field:
    return pa.field(item.name, ARROW_TYPES[item.arrow], nullable=False)


def spark_schema() -> str:
    """Return the lake's schema as Spark DDL: the Parquet columns, then the partition columns."""
    return ", ".join(f"{item.name} {item.spark}" for item in FIELDS) + ", symbol string, month string"
