"""Tools that users would pick instead, each used as its documentation shows. Each function runs in its own process.

They run in their own environment (requirements-peers.in), so this module imports nothing of the project. Rows
come as one Parquet file per table, which is read before the clock starts. Tables are in the schema ``schema``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

BARS_A_BATCH = 100_000
COLUMNS = ("open", "high", "low", "close", "volume")


def adbc_upsert(dsn: str, schema: str, rows: str, keys: Mapping[str, list[str]]) -> dict[str, Any]:
    """Ingest Arrow tables into temporary tables with ADBC, then INSERT … ON CONFLICT, in one transaction."""
    from adbc_driver_postgresql import dbapi

    tables = _tables(rows, keys)
    with dbapi.connect(_plain(dsn)) as connection, connection.cursor() as cursor:
        begun = time.perf_counter()
        for name, table in tables.items():
            cursor.adbc_ingest(f"{name}_rows", table, mode="create", temporary=True)
            cursor.execute(_upsert(f"{schema}.{name}", f"{name}_rows", table.column_names, keys[name]))
        connection.commit()
        return {"rows": _rows(tables), "seconds": time.perf_counter() - begun}


def duckdb_upsert(dsn: str, schema: str, rows: str, keys: Mapping[str, list[str]]) -> dict[str, Any]:
    """Insert Arrow tables into staging tables with DuckDB, then INSERT … ON CONFLICT, in one transaction.

    DuckDB itself inserts no generated columns and has no ON CONFLICT for PostgreSQL, so PostgreSQL executes it.
    """
    import duckdb
    import duckdb_extension_postgres_scanner

    tables = _tables(rows, keys)
    (extension,) = Path(duckdb_extension_postgres_scanner.__file__).parent.rglob("*.duckdb_extension")
    connection = duckdb.connect()
    connection.execute(f"load '{extension}'")
    connection.execute(f"attach '{_plain(dsn)}' as warehouse (type postgres)")
    begun = time.perf_counter()
    connection.begin()
    for name, table in tables.items():
        connection.register("given", table)
        stage = f"{schema}.{name}_rows"
        connection.execute(f"create table warehouse.{stage} as from given")
        upsert = _upsert(f"{schema}.{name}", stage, table.column_names, keys[name])
        connection.execute("call postgres_execute('warehouse', $1)", [f"{upsert}; drop table {stage}"])
    connection.commit()
    return {"rows": _rows(tables), "seconds": time.perf_counter() - begun}


def dlt_rows(dsn: str, schema: str, rows: str, keys: Mapping[str, list[str]], home: str) -> dict[str, Any]:
    """Append rows, as Python objects, with dlt's defaults."""
    tables = _tables(rows, keys)
    given = {name: table.to_pylist() for name, table in tables.items()}
    return {"rows": _rows(tables), "seconds": _dlt_to_postgres(dsn, schema, home, given)}


def dlt_arrow(dsn: str, schema: str, rows: str, keys: Mapping[str, list[str]], home: str) -> dict[str, Any]:
    """Append Arrow tables with dlt, which loads Parquet through ADBC."""
    tables = _tables(rows, keys)
    seconds = _dlt_to_postgres(dsn, schema, home, tables, loader_file_format="parquet")
    return {"rows": _rows(tables), "seconds": seconds}


def dlt_arrow_merge(dsn: str, schema: str, rows: str, keys: Mapping[str, list[str]], home: str) -> dict[str, Any]:
    """Merge Arrow tables by their keys with dlt, which loads Parquet through ADBC into a staging schema first."""
    tables = _tables(rows, keys)
    seconds = _dlt_to_postgres(dsn, schema, home, tables, keys, loader_file_format="parquet")
    return {"rows": _rows(tables), "seconds": seconds}


def pymongoarrow_to_parquet(uri: str, database: str, path: str) -> dict[str, Any]:
    """Read the session documents with PyMongoArrow and write one file per symbol and month with PyArrow."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    bars = _flat(_documents(uri, database, {}))
    bars = bars.append_column("month", pc.strftime(bars["ts"], "%Y-%m")).sort_by([("symbol", "ascending")])
    ds.write_dataset(
        bars,
        path,
        format="parquet",
        partitioning=["symbol", "month"],
        partitioning_flavor="hive",
        max_partitions=100_000,
        max_open_files=64,
    )
    return {"rows": bars.num_rows}


def dlt_rows_to_parquet(uri: str, database: str, path: str, home: str) -> dict[str, Any]:
    """Write one row per bar to Parquet with dlt's filesystem destination."""
    import pymongo

    def bars() -> Iterator[list[dict[str, Any]]]:
        found: Any = pymongo.MongoClient(uri)[database]["bars"].find({})
        for document in found:
            values = zip(*(document[name] for name in ("ts", *COLUMNS)), strict=True)
            yield [{"symbol": document["symbol"], **dict(zip(("ts", *COLUMNS), bar, strict=True))} for bar in values]

    return {"rows": _dlt_to_parquet(path, home, bars())}


def dlt_arrow_to_parquet(uri: str, database: str, path: str, home: str) -> dict[str, Any]:
    """Read batches of documents with PyMongoArrow and write them to Parquet with dlt's filesystem destination."""
    import pymongo

    symbols = pymongo.MongoClient(uri)[database]["bars"].distinct("symbol")
    parts = [symbols[start : start + 50] for start in range(0, len(symbols), 50)]
    batches = (_flat(_documents(uri, database, {"symbol": {"$in": part}})) for part in parts)
    return {"rows": _dlt_to_parquet(path, home, batches)}


def _dlt_to_postgres(
    dsn: str, schema: str, home: str, given: Mapping[str, Any], keys: Mapping[str, list[str]] | None = None, **how: str
) -> float:
    """Run a pipeline of dlt into PostgreSQL. Return its seconds."""
    import dlt

    parts = urlsplit(dsn)
    host = parse_qs(parts.query)["host"][0]
    destination = dlt.destinations.postgres(f"postgresql://postgres:none@{quote(host, safe='')}:5432{parts.path}")
    pipeline = dlt.pipeline(schema, pipelines_dir=home, destination=destination, dataset_name=schema)
    merging: dict[str, Any] = {"disposition": "merge", "strategy": "upsert"}
    resources = [
        dlt.resource(
            values,
            name=name,
            write_disposition=merging if keys else "append",
            primary_key=keys[name] if keys else None,
        )
        for name, values in given.items()
    ]
    begun = time.perf_counter()
    pipeline.run(resources, **how).raise_on_failed_jobs()
    return time.perf_counter() - begun


def _dlt_to_parquet(path: str, home: str, given: Iterator[Any]) -> int:
    """Run a pipeline of dlt into a folder. Return the number of rows."""
    import dlt
    import pyarrow.dataset as ds

    pipeline = dlt.pipeline(
        "parquet", pipelines_dir=home, destination=dlt.destinations.filesystem(f"file://{path}"), dataset_name="lake"
    )
    pipeline.run(dlt.resource(given, name="bars"), loader_file_format="parquet").raise_on_failed_jobs()
    return int(ds.dataset(f"{path}/lake/bars", format="parquet").count_rows())


def _documents(uri: str, database: str, query: Mapping[str, Any]) -> Any:
    """Return session documents as one Arrow table, with a list of values per document."""
    import pyarrow as pa
    import pymongo
    from pymongoarrow.api import Schema, find_arrow_all

    lists = {"ts": pa.timestamp("ms"), **dict.fromkeys(COLUMNS, pa.float64()), "volume": pa.int64()}
    schema = Schema({"symbol": pa.string(), **{name: pa.list_(kind) for name, kind in lists.items()}})
    return find_arrow_all(pymongo.MongoClient(uri)[database]["bars"], query, schema=schema)


def _flat(documents: Any) -> Any:
    """Return one row per bar."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = documents.combine_chunks()
    columns = {name: pc.list_flatten(whole[name]) for name in ("ts", *COLUMNS)}
    return pa.table({"symbol": whole["symbol"].take(pc.list_parent_indices(whole["ts"])), **columns})


def _tables(rows: str, names: Mapping[str, list[str]]) -> dict[str, Any]:
    import pyarrow.parquet as pq

    return {name: pq.read_table(f"{rows}/{name}.parquet") for name in names}


def _rows(tables: Mapping[str, Any]) -> int:
    return sum(table.num_rows for table in tables.values())


def _upsert(target: str, stage: str, columns: list[str], key: list[str]) -> str:
    listed, keys = ", ".join(columns), ", ".join(key)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    insert = f"insert into {target} ({listed}) select {listed} from {stage}"
    return f"{insert} on conflict ({keys}) do update set {changes}"


def _plain(dsn: str) -> str:
    """Return the connection string of the embedded server in libpq's keywords."""
    parts = urlsplit(dsn)
    return f"host={parse_qs(parts.query)['host'][0]} user={parts.username} dbname={parts.path.strip('/')}"
