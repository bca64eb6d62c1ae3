"""Glue crawlers that write to moto's catalog: partitions from the emulator's S3, tables from the warehouse.

A crawler reads the warehouse as its connection says: at the deployed address, over TLS, as the user of its secret and
with its driver. Without a driver of its own it fails on a user whose password needs SCRAM, as Glue's crawlers do.
"""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
import zipfile
from typing import Any
from urllib.parse import unquote

import psycopg
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.glue.exceptions import CrawlerRunningException
from moto.glue.models import FakeCrawl, FakeCrawler, FakeTable, GlueBackend
from moto.glue.responses import GlueResponse
from moto.moto_api import state_manager
from moto.secretsmanager.models import secretsmanager_backends

from emulators.aws import runtime, s3_objects
from emulators.aws.account import ACCOUNT, REGION
from emulators.aws.authorization import authorize, role_name
from emulators.aws.patches import Function, add, wrap
from emulators.aws.permissions import of_crawl

RUNNING, STOPPING = 1.0, 0.25  # seconds
ENDED_STATUSES = ("SUCCEEDED", "FAILED")
MANIFEST, FIRST_WITH_SCRAM = "META-INF/MANIFEST.MF", (42, 2)
VERSION = re.compile(r"^Implementation-Version: (\d+)\.(\d+)", re.MULTILINE)
NO_SCRAM = (
    "The authentication type 10 is not supported. Check that you have configured the pg_hba.conf file to include the "
    "client's IP address or subnet, and that it is using an authentication scheme supported by the driver."
)
JDBC = re.compile(r"jdbc:postgresql://(?P<host>[^:/]+):(?P<port>\d+)/(?P<dbname>\w+)")

# A crawl's status changes only when this module sets it.
state_manager.set_transition("glue::crawl", {"progression": "manual", "times": sys.maxsize})


def crawl(crawler: FakeCrawler) -> int:
    """Write what the crawler's targets hold to the catalog. Return the number of new tables."""
    authorize(role_name(crawler.role), of_crawl(crawler))
    for target in crawler.targets.get("CatalogTargets", ()):
        for name in target["Tables"]:
            _add_partitions(crawler.backend.get_table(target["DatabaseName"], name))
    return sum(_add_tables(crawler, target) for target in crawler.targets.get("JdbcTargets", ()))


def _add_partitions(table: FakeTable) -> None:
    """Add a table's new partitions, which are the ``key=value`` folders below its location."""
    storage = table.as_dict()["StorageDescriptor"]
    bucket, prefix = s3_objects.split_uri(storage["Location"])
    names = [column["Name"] for column in table.as_dict()["PartitionKeys"]]
    for key in s3_objects.list_keys(bucket, prefix):
        folder, _, _ = key.rpartition("/")
        found = dict(part.split("=", 1) for part in folder.removeprefix(prefix).split("/") if "=" in part)
        values = [unquote(found.get(name, "")) for name in names]
        if all(values) and str(values) not in table.partitions:
            location = storage | {"Location": f"s3://{bucket}/{folder}/"}
            table.create_partition({"Values": values, "StorageDescriptor": location})


def _add_tables(crawler: FakeCrawler, target: dict[str, str]) -> int:
    """Add the new tables of a path DATABASE/SCHEMA/%, and return how many they are."""
    backend: GlueBackend = crawler.backend
    database, schema, _ = target["Path"].split("/")
    catalog, added = backend.get_database(crawler.database_name), 0
    with _connect(backend.get_connection(ACCOUNT, target["ConnectionName"], "").connection_properties) as connection:
        found = connection.execute(
            "select table_name, json_agg(json_build_object('Name', column_name, 'Type', data_type)) "
            "from information_schema.columns where table_schema = %s group by 1",
            [schema],
        )
        for table, columns in found:
            name = f"{crawler.table_prefix}{database}_{schema}_{table}"
            if name not in catalog.tables:
                storage = {"Columns": columns, "Location": f"{database}.{schema}.{table}"}
                backend.create_table(crawler.database_name, name, {"Name": name, "StorageDescriptor": storage})
                added += 1
    return added


def _connect(properties: dict[str, str]) -> psycopg.Connection[Any]:
    url = properties["JDBC_CONNECTION_URL"]
    address = JDBC.match(url)
    if address is None:
        raise ValueError(f"the connection's URL is not a PostgreSQL URL: {url}")
    store = secretsmanager_backends[ACCOUNT][REGION]
    user = json.loads(store.get_secret_value(properties["SECRET_ID"], "", "")["SecretString"])
    if _needs_scram(user["username"]) and _driver_version(properties) < FIRST_WITH_SCRAM:
        raise ConnectionError(NO_SCRAM)
    login = {"user": user["username"], "password": user["password"]}
    return psycopg.connect(**address.groupdict(), **login, **_tls(properties))


def _tls(properties: dict[str, str]) -> dict[str, str]:
    """Return how a connection uses TLS: with JDBC_ENFORCE_SSL, Glue checks the certificate and the host's name.

    https://docs.aws.amazon.com/glue/latest/dg/connection-properties.html#connection-properties-SSL
    """
    if properties.get("JDBC_ENFORCE_SSL") != "true":
        return {"sslmode": "prefer"}
    return {"sslmode": "verify-full", "sslrootcert": str(runtime.current().authorities)}


def _needs_scram(user: str) -> bool:
    """Return whether the warehouse stores the user's password for SCRAM."""
    with psycopg.connect(runtime.current().warehouse_dsn) as connection:
        found = connection.execute("select rolpassword from pg_authid where rolname = %s", [user]).fetchone()
    return bool(found and str(found[0]).startswith("SCRAM-SHA-256"))


def _driver_version(properties: dict[str, str]) -> tuple[int, int]:
    """Return the major and minor version of the connection's driver; (0, 0) is the one that Glue's crawlers bring.

    Raise FileNotFoundError for a missing file, ValueError for a file without the driver's class or version.
    """
    uri, driver = properties.get("JDBC_DRIVER_JAR_URI"), properties.get("JDBC_DRIVER_CLASS_NAME", "")
    if uri is None:
        return 0, 0
    if not s3_objects.exists(uri):
        raise FileNotFoundError(f"{uri} does not exist")
    try:
        with zipfile.ZipFile(io.BytesIO(s3_objects.read(uri))) as jar:
            jar.getinfo(f"{driver.replace('.', '/')}.class")
            version = VERSION.search(jar.read(MANIFEST).decode())
    except (zipfile.BadZipFile, KeyError):
        version = None
    if version is None:
        raise ValueError(f"java.lang.ClassNotFoundException: {driver} ({uri} is not a driver)")
    return int(version[1]), int(version[2])


def _run(crawler: FakeCrawler, run: Any) -> None:
    """Take one crawl from RUNNING to its end."""
    time.sleep(RUNNING)
    try:
        run.tables = crawl(crawler)
        run.error, status = "", "SUCCEEDED"
    except Exception as error:
        run.error, status = f"{type(error).__name__}: {error}".splitlines()[0], "FAILED"
    run.end_time = utcnow()
    run.status = "STOPPING"
    time.sleep(STOPPING)
    run.status = status


@wrap(FakeCrawler, "start_crawler")
def _start_crawler(_original: Function, crawler: FakeCrawler) -> None:
    """Start a crawl in a thread. moto's own ends at once."""
    if crawler.status != "READY":
        raise CrawlerRunningException(f"Crawler with name {crawler.name} has already started")
    crawler.crawls.append(FakeCrawl(crawler.name))
    threading.Thread(target=_run, args=(crawler, crawler.crawls[-1]), daemon=True).start()


@wrap(FakeCrawler, "status")
def _crawler_status(_original: Function, crawler: FakeCrawler) -> str:
    """Return READY, RUNNING or STOPPING. moto does not know the crawl status SUCCEEDED."""
    status = crawler.crawls[-1].status if crawler.crawls else None
    return "READY" if status is None or status in ENDED_STATUSES else status


@wrap(FakeCrawler, "as_dict")
def _describe_crawler(original: Function, crawler: FakeCrawler) -> dict[str, Any]:
    """Return a crawler with its last crawl, only if that has ended, and with its error."""
    described: dict[str, Any] = original(crawler)
    last = described.get("LastCrawl")
    if last and last["Status"] in ENDED_STATUSES:
        error = crawler.crawls[-1].error
        described["LastCrawl"] = last | ({"ErrorMessage": error} if error else {})
    else:
        described.pop("LastCrawl", None)
    return described


@add(GlueResponse, "get_crawler_metrics")
def _get_crawler_metrics(response: GlueResponse) -> ActionResult:
    """Answer GetCrawlerMetrics."""
    metrics = []
    for name in response._get_param("CrawlerNameList") or list(response.glue_backend.crawlers):
        ended = [crawl for crawl in response.glue_backend.get_crawler(name).crawls if crawl.end_time]
        seconds = sorted((crawl.end_time - crawl.start_time).total_seconds() for crawl in ended)
        times = {"LastRuntimeSeconds": seconds[-1], "MedianRuntimeSeconds": seconds[len(seconds) // 2]} if ended else {}
        tables = sum(getattr(crawl, "tables", 0) for crawl in ended)
        counts = {"TablesCreated": tables, "TablesUpdated": 0, "TablesDeleted": 0}
        metrics.append({"CrawlerName": name, "StillEstimating": False, "TimeLeftSeconds": 0.0, **times, **counts})
    return ActionResult({"CrawlerMetricsList": metrics})
