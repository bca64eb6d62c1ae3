"""The lineage of ingest, and how the datasets outside the lake and the warehouse are named.

Names follow OpenLineage's naming. A server on this machine is ``localhost`` without its port: the embedded servers take
another port at each start. https://openlineage.io/docs/spec/naming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from barflow.market.bars import ARRAYS, FIELDS
from barflow.pipeline.lineage import Columns, Count, Dataset, Datasets, Job
from barflow.secrets import resolve
from barflow.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from barflow.pipeline.ingest_report import IngestReport

# The collections that process reads.
STAGED = ("bars", "bar_versions", "corporate_actions")


def authority(address: str, port: int | None) -> str:
    """Return the hosts of an address with their ports (default: ``port``), without user and path, as a name."""
    netloc = urlsplit(address).netloc
    if "@" not in netloc and "@" in address:  # a password with a character that ends the hosts, so not encoded
        netloc = urlsplit(f"//{address.rpartition('@')[2]}").netloc
    hosts = sorted(netloc.rpartition("@")[2].split(","))
    found = [urlsplit(f"//{host}") for host in hosts]
    if all(host.hostname in LOOPBACK for host in found):
        return "localhost"
    return ",".join(host.netloc if host.port or port is None else f"{host.netloc}:{port}" for host in found)


def collections(settings: Settings, *names: str) -> dict[str, Dataset]:
    """Return collections of MongoDB, by name. Raise as barflow.secrets.resolve does."""
    uri = resolve(settings.mongodb_uri, "BARFLOW_MONGODB_URI")
    namespace = f"mongodb://{authority(uri, None if uri.startswith('mongodb+srv:') else 27017)}"
    columns = {"bars": session_columns}
    return {name: Dataset(namespace, f"{settings.mongodb_database}.{name}", columns.get(name, tuple)) for name in names}


def session_columns() -> Columns:
    """Return the fields of a session document: the columns of its bars are arrays."""
    bars = ((item.name, f"array<{item.bson}>" if item.name in ARRAYS else item.bson, item.meaning) for item in FIELDS)
    return (("symbol", "string", ""), *bars)


def _datasets(settings: Settings) -> Datasets:
    address = settings.twelvedata_url
    api = f"{urlsplit(address).scheme}://{authority(address, None)}"
    return Datasets(
        {"time_series": Dataset(api, "time_series")},
        collections(settings, *STAGED, "rejected_bars"),
    )


def _counts(settings: Settings, report: IngestReport) -> Mapping[str, Count]:
    total = report.total
    return {
        "time_series": Count(total.received),
        "bars": Count(total.new + total.revised),
        "bar_versions": Count(total.revised),
        "rejected_bars": Count(total.rejected),
    }


INGEST = Job("ingest", "Fetches, validates and stages the newest bars", _datasets, _counts)
