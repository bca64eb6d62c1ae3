"""Whether the warehouse's crawler can run and must run.

The driver that Glue's crawlers bring does not know SCRAM, the authentication of the warehouse. So the crawler loads a
driver from the code bucket, which no deployment contains: an operator puts it there once. The tables of the warehouse
change only with a deployment, so one successful crawl after each is enough.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from barflow.contract import Glue

PUBLISHER = "https://jdbc.postgresql.org/download"


def install_command(uri: str, sha256: str) -> str:
    """Return the shell command that downloads the driver, checks it and stores it at ``uri`` (s3://…)."""
    name = uri.rsplit("/", 1)[-1]
    return f"curl -fsSLO {PUBLISHER}/{name} && echo '{sha256}  {name}' | sha256sum -c && aws s3 cp {name} {uri}"


def is_driver_installed(s3: Any, uri: str) -> bool:
    """Return whether the driver is at ``uri``. ``s3`` is a boto3 client of a caller that may list the bucket."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bool(s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)["KeyCount"])


def missing_driver(s3: Any, glue: Glue) -> str | None:
    """Return one line that says what is missing and the command that installs it, or None with a driver."""
    if is_driver_installed(s3, glue.jdbc_driver):
        return None
    command = install_command(glue.jdbc_driver, glue.jdbc_driver_sha256)
    return f"The warehouse was not crawled: PostgreSQL's JDBC driver is not in the code bucket. Run `{command}`"


def is_crawled(client: Any, crawler: str, deployed: datetime) -> bool:
    """Return whether the crawler's last crawl succeeded and began after ``deployed`` (UTC). ``client`` is Glue's."""
    last = client.get_crawler(Name=crawler)["Crawler"].get("LastCrawl", {})
    return bool(last.get("Status") == "SUCCEEDED" and last["StartTime"] > deployed)
