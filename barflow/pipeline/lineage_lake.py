"""The lineage of process, and the datasets of the lake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pyarrow as pa

from barflow.lake.actions import SCHEMA as ACTIONS
from barflow.lake.partitions import Lake
from barflow.market.arrow import arrow_schema, history_schema
from barflow.market.bars import FIELDS, KNOWN_UNTIL
from barflow.pipeline.lineage import Columns, Count, Dataset, Datasets, Job
from barflow.pipeline.lineage_staging import STAGED, collections
from barflow.settings import Settings

if TYPE_CHECKING:
    from barflow.pipeline.process import ProcessReport


def lake_tables(settings: Settings) -> dict[str, Dataset]:
    """Return the tables of the lake. Their names come from its URI: opening it would ask S3 for the bucket's region."""
    uri = settings.require("lake_uri")
    address = urlsplit(uri)
    if address.scheme.startswith("s3"):
        namespace, root = f"s3://{address.netloc}", address.path.strip("/")
    else:
        namespace, root = "file", str(Path(address.path if address.scheme else uri).resolve())
    schemas = {"bars_5min": arrow_schema(), "bars_5min_history": history_schema(), "corporate_actions": ACTIONS}
    return {
        name: Dataset(namespace, f"{root}/{name}" if root else name, partial(_columns, schema))
        for name, schema in schemas.items()
    }


def _columns(schema: pa.Schema) -> Columns:
    """Return the columns of a file, and the symbol, which is in its path."""
    meanings = {item.name: item.meaning for item in (*FIELDS, KNOWN_UNTIL)}
    return (
        ("symbol", "string", ""),
        *((item.name, str(item.type), meanings.get(item.name, "")) for item in schema),
    )


def _datasets(settings: Settings) -> Datasets:
    staged = collections(settings, *STAGED)
    return Datasets({f"staged {name}": found for name, found in staged.items()}, lake_tables(settings))


def _counts(settings: Settings, report: ProcessReport) -> Mapping[str, Count]:
    """Return the rows and files of a run. They come from its manifests, since the report lacks corporate actions."""
    rows, files = Counter[str](), Counter[str]()
    lake = Lake(settings.require("lake_uri")) if report.manifests else None
    for manifest in map(lake.manifest, report.manifests) if lake else ():
        histories = [item.history for item in manifest.partitions if item.history]
        rows.update(bars_5min=manifest.rows, bars_5min_history=sum(histories))
        rows.update(corporate_actions=sum(item.rows for item in manifest.actions))
        files.update(bars_5min=len(manifest.partitions), bars_5min_history=len(histories))
        files.update(corporate_actions=len(manifest.actions))
    return {table: Count(rows[table], files[table]) for table in lake_tables(settings)}


PROCESS = Job("process", "Writes the changed bars and corporate actions to the archive", _datasets, _counts)
