"""The catalog describes the archive, and the Glue job gets the arguments that its program parses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deployments import ROOT, Deployment, text_of
from permissions import permissions
from programs import program, settings_read, variable

from barflow.lake.actions import SCHEMA as ACTIONS_SCHEMA
from barflow.market.arrow import arrow_schema, history_schema
from barflow.market.bars import OHLC_TOLERANCE
from barflow.operations.deployment import settings_of
from barflow.pipeline.program import parse_arguments
from config import versions

# Glue adds these before a job's own arguments.
GLUES_OWN = ["--JOB_ID", "j_1", "--JOB_RUN_ID", "jr_1", "--JOB_NAME", "aggregate"]
GLUES_WORKFLOW = ["--WORKFLOW_NAME", "load", "--WORKFLOW_RUN_ID", "wr_1"]


@pytest.fixture(scope="module")
def arguments(dev_deployment: Deployment) -> dict[str, str]:
    """The arguments of the job by name, with ``<name>`` for CDK's tokens."""
    given = aggregate_job(dev_deployment)["DefaultArguments"]
    return {name: text_of(value) for name, value in given.items()}


def aggregate_job(deployment: Deployment) -> Mapping[str, Any]:
    """Return the job that loads the warehouse, not the visual one."""
    (job,) = (item for item in deployment.resources("Catalog", "AWS::Glue::Job") if "JobMode" not in item)
    return job


def test_the_program_parses_every_argument_of_the_job(arguments: dict[str, str]) -> None:
    argv = GLUES_OWN + [part for pair in arguments.items() for part in pair]
    parsed = parse_arguments(program("glue/aggregate_bars.py").parser(), argv)
    assert re.fullmatch(r"s3://<\S+Lake\S+>", parsed.lake)
    assert parsed.warehouse == "secretsmanager:barflow/dev/database/barflow_loader#dsn"
    assert (parsed.full, parsed.symbols, parsed.run_id) == (False, None, None)
    started = parse_arguments(program("glue/aggregate_bars.py").parser(), [*argv, *GLUES_WORKFLOW])
    assert (started.workflow, started.workflow_run) == ("load", "wr_1")


def test_the_program_rejects_an_unknown_argument(arguments: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    argv = [part for pair in arguments.items() for part in pair]
    with pytest.raises(SystemExit):
        parse_arguments(program("glue/aggregate_bars.py").parser(), [*argv, "--symbls", "AAPL"])
    assert "unknown argument --symbls" in capsys.readouterr().err


def test_the_job_gets_every_setting_that_its_program_reads(arguments: dict[str, str]) -> None:
    given = {"--lake": "BARFLOW_LAKE_URI", "--warehouse": "BARFLOW_WAREHOUSE_DSN"}
    read = settings_read("barflow/pipeline/aggregate.py") - {"instruments_file"}  # the package holds it
    assert {variable(field) for field in read} == {given[name] for name in arguments if name in given}


def test_script_library_sql_and_packages_of_the_job_are_the_published_ones(
    dev_deployment: Deployment, arguments: dict[str, str]
) -> None:
    job = aggregate_job(dev_deployment)
    release, packages = (getattr(dev_deployment.stacks["Storage"], name) for name in ("release", "packages"))
    assert text_of(job["Command"]["ScriptLocation"]).endswith(release.key("glue/aggregate_bars.py"))
    assert arguments["--extra-py-files"].endswith(release.key("barflow.zip"))
    assert arguments["--additional-python-modules"].endswith(packages.key("glue.gluewheels.zip"))
    assert arguments["--python-modules-installer-option"] == "--no-index"  # only the wheels of the code bucket
    sql = {path.name for path in (ROOT / "glue").glob("*.sql")}
    assert {Path(uri).name for uri in arguments["--extra-files"].split(",")} == sql


def test_the_job_runs_once_at_a_time_within_its_limits_and_without_retries(
    dev_deployment: Deployment, arguments: dict[str, str]
) -> None:
    job, config = aggregate_job(dev_deployment), dev_deployment.environment.glue
    assert job["GlueVersion"] == "5.1"
    assert job["ExecutionProperty"] == {"MaxConcurrentRuns": 1}
    assert job["MaxRetries"] == 0
    assert job["Timeout"] == config.timeout_minutes
    assert (job["WorkerType"], job["NumberOfWorkers"]) == (config.worker_type, config.max_workers)
    assert arguments["--enable-auto-scaling"] == "true"
    assert "--enable-metrics" in arguments


@pytest.mark.parametrize(
    ("name", "schema", "keys"),
    [
        ("bars_5min", arrow_schema(), ["symbol", "month"]),
        ("bars_5min_history", history_schema(), ["symbol", "month"]),
        ("corporate_actions", ACTIONS_SCHEMA, ["symbol"]),
    ],
)
def test_the_tables_of_the_archive_have_the_columns_of_the_parquet_files(
    dev_deployment: Deployment, name: str, schema: pa.Schema, keys: list[str]
) -> None:
    tables = [item["TableInput"] for item in dev_deployment.resources("Catalog", "AWS::Glue::Table")]
    (table,) = [item for item in tables if item["Name"] == name]
    hive = {"timestamp": "timestamp[us, tz=UTC]", "date": "date32[day]", "bigint": "int64", "int": "int32"}
    columns = [(item["Name"], hive.get(item["Type"], item["Type"])) for item in table["StorageDescriptor"]["Columns"]]
    assert columns == [(field.name, str(field.type)) for field in schema]
    assert [item["Name"] for item in table["PartitionKeys"]] == keys
    assert text_of(table["StorageDescriptor"]["Location"]).endswith(f"/{name}/")


def test_the_rules_check_every_column_of_the_archive(dev_deployment: Deployment) -> None:
    rulesets = dev_deployment.resources("Catalog", "AWS::Glue::DataQualityRuleset")
    rules = {item["TargetTable"]["TableName"]["Ref"]: item["Ruleset"] for item in rulesets}
    (of_bars,) = (text for table, text in rules.items() if table.startswith("Bars"))
    (of_history,) = (text for table, text in rules.items() if table.startswith("History"))
    for schema, text in ((arrow_schema(), of_bars), (history_schema(), of_history)):
        assert [field.name for field in schema if f'IsComplete "{field.name}"' not in text] == []
    assert 'IsPrimaryKey "symbol" "ts",' in of_bars
    assert 'IsPrimaryKey "symbol" "ts" "known_from",' in of_history
    assert "known_from >= known_until" in of_history


def test_the_readers_of_the_history_are_the_crawler_and_the_host(dev_deployment: Deployment) -> None:
    """The job that loads the warehouse and the analysts' sandbox need only the current bars."""
    readers = {
        role: any(
            item.action == "s3:GetObject" and "/bars_5min_history/" in item.resource
            for item in permissions(dev_deployment.templates[stack], role)
        )
        for stack, role in [
            *(("Catalog", role) for role in ("Reader", "Loader", "Sandbox", "WarehouseCrawlerRole")),
            ("Orchestration", "HostRole"),
        ]
    }
    assert [role for role, reads in readers.items() if reads] == ["Reader", "HostRole"]


def test_crawlers_read_only_the_archives_tables_and_the_warehouses_schema(dev_deployment: Deployment) -> None:
    targets = {next(iter(item["Targets"])): item for item in dev_deployment.resources("Catalog", "AWS::Glue::Crawler")}
    (archive,) = targets["CatalogTargets"]["Targets"]["CatalogTargets"]
    assert len(archive["Tables"]) == 3
    (warehouse,) = targets["JdbcTargets"]["Targets"]["JdbcTargets"]
    assert warehouse["Path"] == "barflow/market/%"
    assert all("Schedule" not in item for item in targets.values())  # Airflow starts them after a run
    assert all(item["SchemaChangePolicy"]["DeleteBehavior"] == "LOG" for item in targets.values())


def test_the_crawler_connects_to_the_warehouse_over_tls_as_the_reader(dev_deployment: Deployment) -> None:
    inputs = [item["ConnectionInput"] for item in dev_deployment.resources("Catalog", "AWS::Glue::Connection")]
    both = [item["ConnectionProperties"] for item in inputs if item["ConnectionType"] == "JDBC"]
    assert [properties["JDBC_ENFORCE_SSL"] for properties in both] == ["true", "true"]
    (reader,) = [properties for properties in both if "SandboxSecret" not in json.dumps(properties)]
    assert "ReaderSecret" in json.dumps(reader["SECRET_ID"])
    assert text_of(reader["JDBC_DRIVER_JAR_URI"]).endswith(f"/drivers/postgresql-{versions.JDBC_DRIVER}.jar")
    assert reader["JDBC_DRIVER_CLASS_NAME"] == "org.postgresql.Driver"
    for item in inputs:
        placed = item["PhysicalConnectionRequirements"]
        assert "GlueGroup" in json.dumps(placed["SecurityGroupIdList"])
        assert "private" in json.dumps(placed["SubnetId"])


@pytest.mark.parametrize(
    ("role", "secret"),
    [("Loader", "LoaderSecret"), ("WarehouseCrawlerRole", "ReaderSecret"), ("Sandbox", "SandboxSecret")],
)
def test_each_role_reads_only_its_users_secret(dev_deployment: Deployment, role: str, secret: str) -> None:
    allowed = permissions(dev_deployment.templates["Catalog"], role)
    (read,) = {item.resource for item in allowed if item.action == "secretsmanager:GetSecretValue"}
    assert secret in read


def test_the_warehouses_crawler_may_do_what_glue_requires_for_a_driver_of_ones_own(dev_deployment: Deployment) -> None:
    """And the role that reads the lake may not."""
    template = dev_deployment.templates["Catalog"]
    allowed = permissions(template, "WarehouseCrawlerRole")
    actions = {item.action.removeprefix("glue:") for item in allowed if ":job/" in item.resource}
    assert actions == {"CreateJob", "DeleteJob", "GetJob", "GetJobRun", "StartJobRun"}
    (passed,) = [item for item in allowed if item.action == "iam:PassRole"]
    assert "WarehouseCrawlerRole" in passed.resource
    assert "glue.amazonaws.com" in passed.condition
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        folders = [item.resource for item in allowed if item.action == action]
        assert len(folders) == 2
        assert all("/drivers" in folder for folder in folders)
    statements = [
        statement
        for item in template["Resources"].values()
        if item["Type"] == "AWS::IAM::Policy" and "WarehouseCrawlerRole" in json.dumps(item["Properties"]["Roles"])
        for statement in item["Properties"]["PolicyDocument"]["Statement"]
    ]
    (denied,) = [item for item in statements if item["Effect"] == "Deny"]
    assert "glue:StartJobRun" in denied["Action"]
    assert all(name in json.dumps(denied["Resource"]) for name in ("AggregateJob", "VisualJob"))
    of_reader = permissions(template, "Reader")
    assert not {item.action for item in of_reader} & {"glue:CreateJob", "iam:PassRole", "secretsmanager:GetSecretValue"}


def test_no_role_of_glue_writes_the_lake(dev_deployment: Deployment) -> None:
    for role in ("Loader", "Reader", "WarehouseCrawlerRole", "Sandbox"):
        allowed = permissions(dev_deployment.templates["Catalog"], role)
        written = {item.resource for item in allowed if item.action in ("s3:PutObject", "s3:DeleteObject")}
        assert not any("Lake" in resource for resource in written)


def test_queries_have_a_limit_of_bytes_and_encrypted_results_in_the_lake(dev_deployment: Deployment) -> None:
    workgroup: Mapping[str, Any] = dev_deployment.only("Catalog", "AWS::Athena::WorkGroup")["WorkGroupConfiguration"]
    assert workgroup["EnforceWorkGroupConfiguration"] is True
    assert workgroup["BytesScannedCutoffPerQuery"] <= 10 * 1024**3
    results = workgroup["ResultConfiguration"]
    assert results["EncryptionConfiguration"]["EncryptionOption"] == "SSE_KMS"
    assert text_of(results["OutputLocation"]).endswith("/queries/")


def test_commands_query_the_archive_with_the_deployments_workgroup(dev_deployment: Deployment) -> None:
    settings = settings_of(dev_deployment.contract)
    assert settings.athena_workgroup == dev_deployment.only("Catalog", "AWS::Athena::WorkGroup")["Name"]
    catalog = dev_deployment.stacks["Catalog"]
    assert catalog.resolve(settings.athena_database) == {
        "Ref": dev_deployment.logical_id("Catalog", "AWS::Glue::Database")
    }


def test_the_workflow_starts_the_job_with_the_jobs_own_arguments_once_at_a_time(dev_deployment: Deployment) -> None:
    (trigger,) = dev_deployment.resources("Catalog", "AWS::Glue::Trigger")
    (workflow,) = dev_deployment.resources("Catalog", "AWS::Glue::Workflow")
    assert workflow["MaxConcurrentRuns"] == 1
    assert trigger["Type"] == "ON_DEMAND"
    (action,) = trigger["Actions"]
    assert set(action) == {"JobName"}
    assert "AggregateJob" in json.dumps(action["JobName"])
    allowed = permissions(dev_deployment.templates["Catalog"], "Loader")
    (read,) = [item for item in allowed if "Workflow" in item.action]
    assert read.action == "glue:GetWorkflowRunProperties"
    assert "AggregateWorkflow" in read.resource


# With one of these actions on the job, a role can run code of its own as the role that loads the warehouse.
RUNS_OTHER_CODE = {"glue:*", "glue:CreateJob", "glue:CreateTrigger", "glue:StartJobRun", "glue:UpdateJob"}
RUNS_OTHER_CODE |= {"glue:CreateSession", "glue:UpdateTrigger", "glue:UpdateWorkflow", "glue:CreateWorkflow"}


def test_the_host_cannot_replace_the_arguments_of_the_glue_job(dev_deployment: Deployment) -> None:
    allowed = permissions(dev_deployment.templates["Orchestration"], "HostRole")
    assert not {item.action for item in allowed} & RUNS_OTHER_CODE


def test_the_host_starts_only_this_workflow_and_these_crawlers(dev_deployment: Deployment) -> None:
    allowed = permissions(dev_deployment.templates["Orchestration"], "HostRole")
    of_glue = {item for item in allowed if item.action.startswith("glue:")}
    assert {item.action for item in of_glue if item.resource == "*"} == {"glue:GetCrawlerMetrics"}
    started = {item.resource for item in of_glue if item.action in ("glue:StartWorkflowRun", "glue:StartCrawler")}
    assert len(started) == 3
    passed = [item for item in allowed if item.action == "iam:PassRole" and "glue.amazonaws.com" in item.condition]
    assert ["Reader" in item.resource for item in passed] == [True]


def test_the_warehouse_and_the_data_quality_rules_tolerate_the_same_float_noise() -> None:
    from stacks.catalog import bars_rules

    statements = [path.read_text() for path in (ROOT / "sql").glob("*_float_noise.sql")] + [bars_rules()]
    assert len(statements) == 2
    assert all(f"(1 + {OHLC_TOLERANCE})" in text for text in statements)
