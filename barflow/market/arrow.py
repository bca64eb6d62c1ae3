"""The lake's columns for Arrow and Spark, derived from the Bar's definition in barflow.market.bars.

They are apart from it because PyArrow costs seconds and memory that ingest, a Lambda function, must not spend.
"""

from __future__ import annotations

import pyarrow as pa

from barflow.market.bars import FIELDS


def arrow_schema() -> pa.Schema:
    """Return the columns of a Parquet file of the lake. The partition columns are in the file's path."""
    types = {
        "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC"),
        "date32": pa.date32(),
        "double": pa.float64(),
        "int64": pa.int64(),
        "int32": pa.int32(),
    }
    return pa.schema([pa.field(item.name, types[item.arrow], nullable=False) for item in FIELDS])


def spark_schema() -> str:
    """Return the lake's schema as Spark DDL: the Parquet columns, then the partition columns."""
    return ", ".join(f"{item.name} {item.spark}" for item in FIELDS) + ", symbol string, month string"
