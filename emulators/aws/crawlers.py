"""What does a crawler find? The partitions that lie in the emulator's S3, and the warehouse's tables by its connection.

It enters them into moto's catalog. The warehouse is read as the connection says: at its address, by TLS, as the user
of its secret.
"""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any
from urllib.parse import unquote

import psycopg
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.glue.exceptions import CrawlerRunningException
from moto.glue.models import FakeCrawl, FakeCrawler, FakeTable, GlueBackend
from moto.glue.responses import GlueResponse
from moto.secretsmanager.models import secretsmanager_backends

from emulators.aws import programs
from emulators.aws.authorization import require, role_of
from emulators.aws.calls import of_crawl
from emulators.aws.machine import ACCOUNT, REGION, Machine

RUNNING, STOPPING = 1.0, 0.25  # seconds
JDBC = re.compile(r"jdbc:postgresql://(?P<host>[^:/]+):(?P<port>\d+)/(?P<dbname>\w+)")


def crawl(crawler: FakeCrawler) -> tuple[int, int]:
    """Enters what its targets hold; how many tables and partitions are new."""
    require(role_of(crawler.role), of_crawl(crawler))
    tables = partitions = 0
    for target in crawler.targets.get("CatalogTargets", ()):
        for name in target["Tables"]:
            partitions += _enter_partitions(crawler.backend.get_table(target["DatabaseName"], name))
    for target in crawler.targets.get("JdbcTargets", ()):
        tables += _enter_tables(crawler, target)
    return tables, partitions


def _enter_partitions(table: FakeTable) -> int:
    """A table's partitions, by the ``key=value`` folders under its place."""
    storage = table.as_dict()["StorageDescriptor"]
    bucket, prefix = programs.place_of(storage["Location"])
    names = [column["Name"] for column in table.as_dict()["PartitionKeys"]]
    made = 0
    for key in list(programs.s3().get_bucket(bucket).keys.keys()):
        folder, _, _ = key.rpartition("/")
        found = dict(part.split("=", 1) for part in folder.removeprefix(prefix).split("/") if "=" in part)
        values = [unquote(found.get(name, "")) for name in names]
        if not key.startswith(prefix) or not all(values) or str(values) in table.partitions:
            continue
        place = storage | {"Location": f"s3://{bucket}/{folder}/"}
        table.create_partition({"Values": values, "StorageDescriptor": place})
        made += 1
    return made


def _enter_tables(crawler: FakeCrawler, target: dict[str, str]) -> int:
    """The tables of a schema, as DATABASE/SCHEMA/% names them."""
    backend: GlueBackend = crawler.backend
    _, schema, _ = target["Path"].split("/")
    database, made = backend.get_database(crawler.database_name), 0
    with _connected(backend.get_connection(ACCOUNT, target["ConnectionName"], "").connection_properties) as connection:
        found = connection.execute(
            "select table_name, json_agg(json_build_object('Name', column_name, 'Type', data_type)) "
            "from information_schema.columns where table_schema = %s group by 1",
            [schema],
        )
        for name, columns in found:
            entered = f"{crawler.table_prefix}{target['Path'].rsplit('/', 1)[0].replace('/', '_')}_{name}"
            if entered not in database.tables:
                storage = {
                    "Columns": columns,
                    "Location": f"{target['Path'].rsplit('/', 1)[0].replace('/', '.')}.{name}",
                }
                backend.create_table(crawler.database_name, entered, {"Name": entered, "StorageDescriptor": storage})
                made += 1
    return made


def _connected(properties: dict[str, str]) -> psycopg.Connection[Any]:
    url = properties["JDBC_CONNECTION_URL"]
    where = JDBC.match(url)
    if where is None:
        raise ValueError(f"the connection's address is not PostgreSQL's: {url}")
    store = secretsmanager_backends[ACCOUNT][REGION]
    user = json.loads(store.get_secret_value(properties["SECRET_ID"], "", "")["SecretString"])
    tls = "require" if properties.get("JDBC_ENFORCE_SSL") == "true" else "prefer"
    return psycopg.connect(**where.groupdict(), user=user["username"], password=user["password"], sslmode=tls)


def run_on(machine: Machine) -> None:
    """Has moto's crawlers crawl."""
    as_dict = FakeCrawler.as_dict
    ended = {"SUCCEEDED", "FAILED"}

    def start_and_crawl(self: FakeCrawler) -> None:
        if self.status != "READY":
            raise CrawlerRunningException(f"Crawler with name {self.name} has already started")
        self.crawls.append(FakeCrawl(self.name))
        threading.Thread(target=run, args=(self, self.crawls[-1]), daemon=True).start()

    def run(crawler: FakeCrawler, done: Any) -> None:
        time.sleep(RUNNING)
        try:
            done.tables, done.partitions = crawl(crawler)
            done.error, outcome = "", "SUCCEEDED"
        except Exception as error:
            done.error, outcome = f"{type(error).__name__}: {error}".splitlines()[0], "FAILED"
        done.end_time = utcnow()
        done.outcome = "STOPPING"
        time.sleep(STOPPING)
        done.outcome = outcome

    def status(self: FakeCrawler) -> str:
        state = _state(self)
        return "READY" if state in ended or not state else state

    def described(self: FakeCrawler) -> dict[str, Any]:
        plain = as_dict(self)
        if plain.pop("LastCrawl", None) and _state(self) in ended:
            last = self.crawls[-1]
            told = {"Status": last.outcome, "StartTime": last.start_time, "LogGroup": last.log_group}
            plain["LastCrawl"] = told | ({"ErrorMessage": last.error} if last.error else {})
        return plain

    def get_crawler_metrics(self: GlueResponse) -> ActionResult:
        found = []
        for name in self._get_param("CrawlerNameList") or list(self.glue_backend.crawlers):
            over = [crawl for crawl in self.glue_backend.get_crawler(name).crawls if crawl.end_time]
            seconds = sorted((crawl.end_time - crawl.start_time).total_seconds() for crawl in over)
            times = (
                {"LastRuntimeSeconds": seconds[-1], "MedianRuntimeSeconds": seconds[len(seconds) // 2]} if over else {}
            )
            tables = sum(getattr(crawl, "tables", 0) for crawl in over)
            counts = {"TablesCreated": tables, "TablesUpdated": 0, "TablesDeleted": 0}
            found.append({"CrawlerName": name, "StillEstimating": False, "TimeLeftSeconds": 0.0, **times, **counts})
        return ActionResult({"CrawlerMetricsList": found})

    FakeCrawler.start_crawler, FakeCrawler.as_dict = start_and_crawl, described
    FakeCrawler.status = property(status)
    GlueResponse.get_crawler_metrics = get_crawler_metrics


def _state(crawler: FakeCrawler) -> str:
    """Of the newest crawl: RUNNING, STOPPING, or how it ended; empty before the first."""
    return getattr(crawler.crawls[-1], "outcome", "RUNNING") if crawler.crawls else ""
