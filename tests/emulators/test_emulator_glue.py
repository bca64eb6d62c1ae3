"""The Glue emulator: job runs execute the deployed script, and crawls write to the catalog."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aws_parts import CODE, REGION, Aws, allow, wait_for, zipped
from botocore.exceptions import ClientError

from emulators.aws.account import ACCOUNT
from emulators.aws.faults import Fault

SCRIPT = """
import json, pathlib, sys
import barflow
found = {"args": sys.argv[1:], "library": barflow.WHERE, "sql": pathlib.Path("bars.sql").read_text()}
print(json.dumps(found))
"""
READ_SCRIPT = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
rows = spark.read.parquet("s3://lake/bars/symbol=BRK%2FB/bars.parquet").collect()
print("rows", [row.a for row in rows])
"""
ENDLESS = "import time\nprint('running', flush=True)\ntime.sleep(600)\n"
OVER = ("SUCCEEDED", "FAILED", "TIMEOUT", "STOPPED")


class Job:
    """A job on the emulator."""

    def __init__(self, aws: Aws, name: str, script: str, role: str = "r", **arguments: str) -> None:
        self.name, self._glue, self._logs = name, aws.client("glue"), aws.client("logs")
        command = {"Name": "glueetl", "ScriptLocation": script}
        given = {f"--{key.replace('_', '-')}": value for key, value in arguments.items()}
        self._glue.create_job(Name=name, Role=role, Command=command, DefaultArguments=given, Timeout=5)

    def start(self, **arguments: str) -> str:
        given = {f"--{key}": value for key, value in arguments.items()}
        return str(self._glue.start_job_run(JobName=self.name, Arguments=given)["JobRunId"])

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self._glue.get_job_run(JobName=self.name, RunId=run)["JobRun"]
        return found

    def becomes(self, run: str, *states: str) -> dict[str, Any]:
        found: dict[str, Any] = wait_for(lambda: self.run(run), lambda item: item["JobRunState"] in states)
        return found

    def stop(self, run: str) -> None:
        self._glue.batch_stop_job_run(JobName=self.name, JobRunIds=[run])

    def log(self, run: str) -> list[str]:
        events = self._logs.get_log_events(logGroupName="/aws-glue/jobs", logStreamName=run)["events"]
        return [event["message"] for event in events]


def test_a_run_gets_the_deployed_script_files_and_library_and_all_arguments(aws: Aws) -> None:
    library = aws.put("glue/barflow.zip", zipped({"barflow/__init__.py": "WHERE = 'deployed'"}))
    sql, script = aws.put("glue/bars.sql", "select 1"), aws.put("glue/print.py", SCRIPT)
    job = Job(aws, "prints", script, extra_py_files=library, extra_files=sql, full="")
    run = job.start(**{"run-id": "42"})
    done = job.becomes(run, *OVER)
    assert done["JobRunState"] == "SUCCEEDED", done
    (printed,) = [json.loads(line) for line in job.log(run) if line.startswith("{")]
    assert (printed["library"], printed["sql"]) == ("deployed", "select 1")
    assert printed["args"][-4:] == ["--JOB_NAME", "prints", "--JOB_RUN_ID", run]
    assert printed["args"][printed["args"].index("--run-id") + 1] == "42"
    assert "--full" in printed["args"]
    assert "ErrorMessage" not in done
    assert done["CompletedOn"] >= done["StartedOn"]


def test_spark_reads_the_objects_of_a_bucket_by_their_s3_uri(aws: Aws) -> None:
    aws.client("s3").create_bucket(Bucket="lake")
    file = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2]}), file)
    aws.put("bars/symbol=BRK%2FB/bars.parquet", file.getvalue(), bucket="lake")
    job = Job(aws, "reads", aws.put("glue/reads.py", READ_SCRIPT), lake="s3://lake")
    run = job.start()
    assert job.becomes(run, *OVER)["JobRunState"] == "SUCCEEDED"
    assert "rows [1, 2]" in job.log(run)


def test_a_failed_run_has_a_reason(aws: Aws) -> None:
    job = Job(aws, "fails", aws.put("glue/fails.py", "import sys\nsys.exit('error: no such warehouse')\n"))
    failed = job.becomes(job.start(), *OVER)
    assert (failed["JobRunState"], failed["ErrorMessage"]) == ("FAILED", "no such warehouse")


def test_a_run_fails_and_names_a_file_that_was_not_deployed(aws: Aws) -> None:
    script, missing = aws.put("glue/right.py", "print('x')"), f"s3://{CODE}/glue/missing.zip"
    failed = (job := Job(aws, "lacks", script, additional_python_modules=missing)).becomes(job.start(), *OVER)
    assert failed["JobRunState"] == "FAILED"
    assert f"{missing} does not exist" in failed["ErrorMessage"]


@pytest.mark.parametrize(
    ("fault", "state", "reason"),
    [(Fault.JOB_KILLED, "FAILED", "137"), (Fault.JOB_TIMEOUT, "TIMEOUT", "exceeded its timeout")],
)
def test_an_injected_fault_ends_a_run_at_a_printed_line(aws: Aws, fault: Fault, state: str, reason: str) -> None:
    job = Job(aws, f"meets {fault.name}", aws.put("glue/endless.py", ENDLESS))
    aws.runtime.inject(fault, at="running")
    failed = job.becomes(job.start(), *OVER)
    assert failed["JobRunState"] == state
    assert reason in failed["ErrorMessage"]


def test_a_run_can_be_stopped_and_a_job_has_one_run_at_a_time(aws: Aws) -> None:
    job = Job(aws, "endless", aws.put("glue/endless.py", ENDLESS))
    run = job.start()
    with pytest.raises(ClientError, match="ConcurrentRunsExceeded"):
        job.start()
    job.becomes(run, "RUNNING")
    job.stop(run)
    assert job.becomes(run, *OVER)["JobRunState"] == "STOPPED"


PROPERTY_SCRIPT = """
import sys
from barflow.pipeline.program import read_workflow_run
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("run id", read_workflow_run(given["--WORKFLOW_NAME"], given["--WORKFLOW_RUN_ID"]).run_id)
print("modules", given.get("--additional-python-modules"))
"""


@pytest.fixture
def load(aws: Aws) -> Job:
    """A job that reads the property of its workflow run. The role ``workflow-starter`` may start the workflow."""
    workflow = f"arn:aws:glue:{REGION}:{ACCOUNT}:workflow/load"
    script = aws.put("glue/property.py", PROPERTY_SCRIPT)
    objects = allow(["s3:GetObject", "s3:ListBucket"])
    aws.create_role("loads", objects, allow("glue:GetWorkflowRunProperties", workflow))
    aws.create_role("workflow-starter", allow(["glue:StartWorkflowRun", "glue:GetWorkflowRun"], workflow))
    job = Job(aws, "load", script, role="loads")
    glue = aws.client("glue")
    glue.create_workflow(Name="load", MaxConcurrentRuns=1)
    glue.create_trigger(Name="load", WorkflowName="load", Type="ON_DEMAND", Actions=[{"JobName": "load"}])
    return job


def test_a_role_that_may_start_the_workflow_cannot_give_the_job_an_argument(aws: Aws, load: Job) -> None:
    host = aws.client("glue", "workflow-starter")
    theirs = {"--additional-python-modules": "s3://theirs/code.zip"}
    with pytest.raises(ClientError, match="not authorized to perform: glue:StartJobRun"):
        host.start_job_run(JobName="load", Arguments=theirs)
    with pytest.raises(ClientError, match="not authorized to perform: glue:UpdateJob"):
        host.update_job(JobName="load", JobUpdate={"Role": "loads", "DefaultArguments": theirs})
    properties = {"run_id": "20261125T214500Z-process-3fa9c1-1", **theirs}
    run = host.start_workflow_run(Name="load", RunProperties=properties)["RunId"]
    with pytest.raises(ClientError, match="ConcurrentRunsExceeded"):
        host.start_workflow_run(Name="load")
    assert "Graph" not in host.get_workflow_run(Name="load", RunId=run)["Run"]
    (node,) = host.get_workflow_run(Name="load", RunId=run, IncludeGraph=True)["Run"]["Graph"]["Nodes"]
    (started,) = node["JobDetails"]["JobRuns"]
    assert load.becomes(started["Id"], *OVER)["JobRunState"] == "SUCCEEDED"
    assert {"run id 20261125T214500Z-process-3fa9c1-1", "modules None"} <= set(load.log(started["Id"]))
    assert host.get_workflow_run(Name="load", RunId=run)["Run"]["Status"] == "COMPLETED"


def test_an_update_replaces_the_whole_definition(aws: Aws) -> None:
    glue, script = aws.client("glue"), aws.put("glue/right.py", "print('x')")
    Job(aws, "updated", script, lake="s3://lake")
    before = glue.get_job(JobName="updated")["Job"]
    command = {name: before["Command"][name] for name in ("Name", "ScriptLocation")}
    glue.update_job(JobName="updated", JobUpdate={"Role": "other", "Command": command})
    after = glue.get_job(JobName="updated")["Job"]
    assert (after["Role"], after["Command"]["ScriptLocation"]) == ("other", script)
    assert after.get("DefaultArguments", {}) == {}


class Crawler:
    """A crawler with one table."""

    def __init__(self, aws: Aws, name: str, bucket: str, role: str = "r") -> None:
        self.name, self._glue = name, aws.client("glue")
        storage = {"Location": f"s3://{bucket}/bars/", "Columns": [{"Name": "a", "Type": "bigint"}]}
        keys = [{"Name": "symbol", "Type": "string"}, {"Name": "month", "Type": "string"}]
        table = {"Name": "bars", "StorageDescriptor": storage, "PartitionKeys": keys}
        self._glue.create_database(DatabaseInput={"Name": name})
        self._glue.create_table(DatabaseName=name, TableInput=table)
        targets = {"CatalogTargets": [{"DatabaseName": name, "Tables": ["bars"]}]}
        self._glue.create_crawler(Name=name, Role=role, DatabaseName=name, Targets=targets)

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = self._glue.get_crawler(Name=self.name)["Crawler"]
        return found

    def crawl(self) -> dict[str, Any]:
        self._glue.start_crawler(Name=self.name)
        assert self.look()["State"] == "RUNNING"
        with pytest.raises(ClientError, match="CrawlerRunning"):
            self._glue.start_crawler(Name=self.name)
        found: dict[str, Any] = wait_for(self.look, lambda item: item["State"] == "READY")["LastCrawl"]
        return found

    def partitions(self) -> list[list[str]]:
        found = self._glue.get_partitions(DatabaseName=self.name, TableName="bars")["Partitions"]
        return sorted(item["Values"] for item in found)


def test_a_crawl_adds_each_partition_once(aws: Aws) -> None:
    aws.client("s3").create_bucket(Bucket="crawled")
    for key in ("symbol=AAPL/month=2025-06", "symbol=BRK%2FB/month=2025-07"):
        aws.put(f"bars/{key}/bars.parquet", "x", bucket="crawled")
    aws.put("manifests/1.json", "{}", bucket="crawled")
    crawler = Crawler(aws, "crawls", "crawled")
    assert "LastCrawl" not in crawler.look()
    for _ in range(2):
        assert crawler.crawl()["Status"] == "SUCCEEDED"
        assert crawler.partitions() == [["AAPL", "2025-06"], ["BRK/B", "2025-07"]]
    (metrics,) = aws.client("glue").get_crawler_metrics(CrawlerNameList=["crawls"])["CrawlerMetricsList"]
    assert metrics["LastRuntimeSeconds"] >= 0


def test_a_job_and_a_crawler_have_the_permissions_of_their_roles(aws: Aws) -> None:
    aws.create_role("reads-nothing", allow("glue:*"))
    job = Job(aws, "denied", aws.put("glue/denied.py", "print('done')"), role="reads-nothing")
    done = job.becomes(job.start(), *OVER)
    assert done["JobRunState"] == "FAILED"
    assert "not authorized to perform: s3:GetObject" in done["ErrorMessage"]
    aws.client("s3").create_bucket(Bucket="hidden")
    failed = Crawler(aws, "denied", "hidden", "reads-nothing").crawl()
    assert failed["Status"] == "FAILED"
    assert "not authorized to perform: s3:ListBucket" in failed["ErrorMessage"]


def test_a_crawl_of_a_missing_bucket_fails_with_a_reason(aws: Aws) -> None:
    failed = Crawler(aws, "lost", "no-such-bucket").crawl()
    assert failed["Status"] == "FAILED"
    assert "bucket" in failed["ErrorMessage"].lower()
