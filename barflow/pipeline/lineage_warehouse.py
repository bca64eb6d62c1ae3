"""The lineage of aggregate, and the datasets of the warehouse."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict

from barflow.pipeline.lineage import Columns, Count, Dataset, Datasets, Job
from barflow.pipeline.lineage_lake import lake_tables
from barflow.pipeline.lineage_staging import authority
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.warehouse.connection import connect, warehouse_errors
from barflow.warehouse.load import TABLES

if TYPE_CHECKING:
    from barflow.pipeline.aggregate import AggregateReport

# The tables that a load writes, by the name of their rows in its report.
LOADED = {
    **{name: f"market.{name}" for name in (*TABLES, "corporate_action", "adjustment")},
    "vendor_bar": "ops.vendor_bar",
}
COLUMNS = """
select table_schema || '.' || table_name, column_name, data_type,
    coalesce(col_description(format('%I.%I', table_schema, table_name)::regclass, ordinal_position), '')
from information_schema.columns where table_schema in ('market', 'ops') order by ordinal_position
"""


def _tables(settings: Settings) -> dict[str, Dataset]:
    """Return the tables that a load writes. Their columns are read from the database."""
    dsn = resolve(settings.warehouse_dsn, "BARFLOW_WAREHOUSE_DSN")
    given = conninfo_to_dict(dsn)
    host, port = str(given.get("host") or "localhost"), int(given.get("port") or 5432)
    # A path is the folder of a server's socket on this machine.
    namespace = f"postgres://{'localhost' if host.startswith('/') else authority(f'//{host}', port)}"

    @cache
    def columns() -> Mapping[str, Columns]:
        found: dict[str, Columns] = defaultdict(tuple)
        with connect(dsn) as connection, warehouse_errors("list its columns"):
            for table, name, kind, meaning in connection.execute(COLUMNS):
                found[table] += ((name, kind, meaning),)
        return found

    def columns_of(table: str) -> Columns:
        return columns()[table]

    return {
        rows: Dataset(namespace, f"{given.get('dbname')}.{table}", partial(columns_of, table))
        for rows, table in LOADED.items()
    }


def _datasets(settings: Settings) -> Datasets:
    return Datasets({f"lake {name}": found for name, found in lake_tables(settings).items()}, _tables(settings))


def _counts(settings: Settings, report: AggregateReport) -> Mapping[str, Count]:
    return {name: Count(report.rows.get(name, 0)) for name in LOADED}


AGGREGATE = Job("aggregate", "Loads what process wrote into the warehouse, with its aggregates", _datasets, _counts)
