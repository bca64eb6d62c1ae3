"""The Athena emulator: it answers from the partitions in the catalog, as Athena does."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import boto3
import pytest
from aws_parts import Aws, wait_for

from barflow.lake.athena import open_archive
from barflow.lake.partitions import Lake
from barflow.market.arrow import arrow_schema, history_schema
from barflow.market.bars import glue_columns
from barflow.settings import load_settings
from emulators.aws.account import client_variables

LAKE, DATABASE = "archive", "archive_dev"


def bars(day: date, count: int) -> Any:
    import pyarrow as pa

    opened = datetime(day.year, day.month, day.day, 14, tzinfo=UTC)
    rows = {name: [1] * count for name in arrow_schema().names}
    rows |= {"ts": [opened.replace(minute=n) for n in range(count)], "session_date": [day] * count}
    return pa.table(rows, arrow_schema())


@pytest.fixture(scope="module")
def lake(aws: Aws) -> Any:
    """A lake on the emulator with its table, crawler and workgroup. AWS clients of this process use the emulator."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in client_variables(aws.url).items():
            patch.setenv(name, value)
        boto3.setup_default_session()
        aws.client("s3").create_bucket(Bucket=LAKE)
        glue = aws.client("glue")
        glue.create_database(DatabaseInput={"Name": DATABASE})
        columns = [{"Name": name, "Type": kind} for name, kind in glue_columns()]
        past = [*columns, {"Name": "known_until", "Type": "timestamp"}]
        keys = [{"Name": name, "Type": "string"} for name in ("symbol", "month")]
        tables = {"bars_5min": columns, "bars_5min_history": past}
        for name, described in tables.items():
            storage = {"Location": f"s3://{LAKE}/{name}/", "Columns": described}
            table = {"Name": name, "StorageDescriptor": storage, "PartitionKeys": keys}
            glue.create_table(DatabaseName=DATABASE, TableInput=table | {"Parameters": {"classification": "parquet"}})
        targets = {"CatalogTargets": [{"DatabaseName": DATABASE, "Tables": [*tables]}]}
        glue.create_crawler(Name=DATABASE, Role="r", DatabaseName=DATABASE, Targets=targets)
        results = {"ResultConfiguration": {"OutputLocation": f"s3://{LAKE}/queries/"}}
        aws.client("athena").create_work_group(Name=DATABASE, Configuration=results)
        yield Lake(f"s3://{LAKE}")
    boto3.setup_default_session()


def session_counts() -> list[tuple[str, str, int, datetime]]:
    settings = {"lake_uri": f"s3://{LAKE}", "athena_database": DATABASE, "athena_workgroup": DATABASE}
    return sorted(open_archive(load_settings(**settings)).session_counts())


def rows_of_athena(
    aws: Aws, query: str = "select symbol, count(*) from bars_5min group by symbol order by symbol"
) -> list[list[str]]:
    """Return what a query answers: without one, the bars by symbol."""
    athena = aws.client("athena")
    started = athena.start_query_execution(
        QueryString=query, QueryExecutionContext={"Database": DATABASE}, WorkGroup=DATABASE
    )
    found = athena.get_query_results(QueryExecutionId=started["QueryExecutionId"])["ResultSet"]["Rows"][1:]
    return [[cell["VarCharValue"] for cell in row["Data"]] for row in found]


def crawl(aws: Aws) -> None:
    glue = aws.client("glue")
    glue.start_crawler(Name=DATABASE)
    wait_for(lambda: glue.get_crawler(Name=DATABASE)["Crawler"]["State"], lambda state: state == "READY")


def test_a_query_sees_the_partitions_that_a_crawler_has_added(aws: Aws, lake: Lake) -> None:
    lake.replace("BRK/B", "2025-07", bars(date(2025, 7, 2), 3))
    assert rows_of_athena(aws) == []
    crawl(aws)
    assert rows_of_athena(aws) == [["BRK%2FB", "3"]] or rows_of_athena(aws) == [["BRK/B", "3"]]
    lake.replace("AAPL", "2025-07", bars(date(2025, 7, 3), 1))
    assert len(rows_of_athena(aws)) == 1


def test_the_counts_of_the_archive_contain_months_that_no_crawler_has_added(aws: Aws, lake: Lake) -> None:
    """A run reconciles although the crawl of a new month failed."""
    lake.replace("BRK/B", "2025-08", bars(date(2025, 8, 1), 2))
    lake.replace("NVDA", "2025-08", bars(date(2025, 8, 4), 1))
    counts = {(symbol, day): rows for symbol, day, rows, _ in session_counts()}
    assert counts[("BRK/B", "2025-08-01")] == 2
    assert counts[("NVDA", "2025-08-04")] == 1
    assert len(session_counts()) == len(counts)


def test_a_query_reads_the_archive_as_of_a_moment(aws: Aws, lake: Lake) -> None:
    """A bar was corrected at 15:00. Until then the history has what was known."""
    known, corrected = datetime(2025, 9, 2, 14, 40, tzinfo=UTC), datetime(2025, 9, 2, 15, tzinfo=UTC)
    first = bars(date(2025, 9, 2), 1)
    first = first.set_column(first.column_names.index("known_from"), history_schema().field("known_from"), [[known]])
    past = first.append_column(history_schema().field("known_until"), [[corrected]])
    current = first.set_column(
        first.column_names.index("known_from"), arrow_schema().field("known_from"), [[corrected]]
    )
    current = current.set_column(current.column_names.index("close"), arrow_schema().field("close"), [[2.0]])
    lake.stage("a-run", "MSFT", "2025-09", current)
    lake.stage_file("a-run", lake.history_path("MSFT", "2025-09"), past)
    lake.promote("a-run", [("MSFT", "2025-09")], [("MSFT", "2025-09")])
    crawl(aws)

    def closes(moment: str) -> list[list[str]]:
        at = f"timestamp '{moment}'"
        of = "where symbol = 'MSFT' and month = '2025-09'"
        return rows_of_athena(
            aws,
            f"select close from bars_5min {of} and known_from <= {at} union all "
            f"select close from bars_5min_history {of} and known_from <= {at} and {at} < known_until",
        )

    assert closes("2025-09-02 14:30:00") == []
    assert closes("2025-09-02 14:59:59") == [["1.0"]]
    assert closes("2025-09-02 15:00:00") == [["2.0"]]


def test_a_wrong_query_fails_with_a_reason(aws: Aws, lake: Lake) -> None:
    athena = aws.client("athena")
    request = {"QueryString": "select nothing from nowhere", "QueryExecutionContext": {"Database": DATABASE}}
    run = athena.start_query_execution(**request, WorkGroup=DATABASE)["QueryExecutionId"]
    status = athena.get_query_execution(QueryExecutionId=run)["QueryExecution"]["Status"]
    assert status["State"] == "FAILED"
    assert "nowhere does not exist" in status["StateChangeReason"]
