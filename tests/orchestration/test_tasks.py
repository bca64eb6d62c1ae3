"""Tasks of the DAGs, with moto as AWS: what a retry reuses, crawls, data quality, what Slack gets, and backfills."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import lazy_object_proxy
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from botocore.client import BaseClient
from contracts import REGION, contract_of
from moto import mock_aws
from moto.emr.models import emr_backends
from moto.glue.models import glue_backends
from pymongo.database import Database
from reading import DAGS

import emulators.aws.workflows  # noqa: F401 — moto's workflows start their jobs
from barflow import metric_names
from barflow.contract import RuntimeContract, parameter_name
from barflow.lake.manifests import Manifest, Partition
from barflow.lake.partitions import Lake
from barflow.operations.quality import Evaluation
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings
from barflow.staging.connection import Document
from emulators.slack.server import TOKEN, Fault, SlackEmulator
from emulators.twelvedata.server import TwelveDataEmulator
from local.embedded import EMULATOR_KEY
from local.synthetic import SyntheticBars

SYMBOLS, DAY = ("AAPL", "MSFT", "NVDA"), "2025-07-02"
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
ACCOUNT, RUN = "123456789012", "scheduled__2026-11-25T21:45:00+00:00"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Yield the DAGs' functions and operators, as tasks of the environment dev import them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow-home")))
        patch.setenv("BARFLOW_ENV", "dev")
        patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://")
        patch.syspath_prepend(str(DAGS))
        import backfill_bars
        import barflow_operators
        import barflow_tasks
        import check_archive

        names = ("CreateCluster", "ClusterIsUp", "BarsToParquet", "BarsToWarehouse", "CrawlWarehouse")
        operators = {name: getattr(barflow_operators, name) for name in names}
        yield SimpleNamespace(
            report_failure=barflow_tasks.report_failure, backfill=backfill_bars, quality=check_archive, **operators
        )
        for name in ("backfill_bars", "barflow_operators", "barflow_tasks", "check_archive"):
            sys.modules.pop(name, None)


@pytest.fixture
def contract(monkeypatch: pytest.MonkeyPatch) -> Iterator[RuntimeContract]:
    """Yield a deployment's contract, stored in moto."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    glue = {"warehouse_crawler": "warehouse", "jdbc_driver": "s3://code/drivers/driver.jar"}
    made = contract_of("dev", emr={"log_uri": "s3://logs/emr/"}, glue=glue)
    with mock_aws():
        boto3.client("ssm").put_parameter(Name=parameter_name("dev"), Type="String", Value=made.model_dump_json())
        boto3.client("secretsmanager").create_secret(Name="barflow/dev/slack", SecretString=TOKEN)
        yield made


def context(attempt: int = 1, error: BaseException | None = None, run: str = RUN) -> dict[str, Any]:
    """Return the part of Airflow's context that the operators read."""
    ti = SimpleNamespace(
        dag_id="process_bars",
        task_id="bars_to_parquet",
        run_id=run,
        try_number=attempt,
        log_url="http://localhost:8080/dags/process_bars/runs/r/tasks/bars_to_parquet?try_number=1",
        xcom_push=lambda **value: None,
    )
    return {"ti": ti, "exception": error}


def clusters() -> dict[str, Any]:
    return emr_backends[ACCOUNT][REGION].clusters


def create(tasks: Any, **given: Any) -> str:
    operator = tasks.CreateCluster(task_id="create_cluster", emr_conn_id=None)
    return str(operator.execute(context(**given)))


def test_a_retry_reuses_the_cluster_of_the_first_try(tasks: Any, contract: RuntimeContract) -> None:
    first = create(tasks)
    assert create(tasks, attempt=2) == first
    assert len(clusters()) == 1
    tags = {
        item["Key"]: item["Value"] for item in boto3.client("emr").describe_cluster(ClusterId=first)["Cluster"]["Tags"]
    }
    assert tags["barflow:run"] == RUN
    assert tags["barflow:env"] == "dev"


def test_a_terminated_cluster_and_one_of_another_run_are_not_reused(tasks: Any, contract: RuntimeContract) -> None:
    first = create(tasks)
    other = create(tasks, run="manual__2026-11-25T20:00:00+00:00")
    assert other != first
    boto3.client("emr").terminate_job_flows(JobFlowIds=[first])
    assert create(tasks, attempt=2) not in (first, other)


def test_clusters_of_others_in_the_account_are_not_described(
    tasks: Any, contract: RuntimeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role may describe only clusters with its environment's tag."""
    emr = boto3.client("emr")
    for name in ("theirs", "barflow-prod-run"):
        emr.run_job_flow(Name=name, Instances={"KeepJobFlowAliveWhenNoSteps": True}, JobFlowRole="p", ServiceRole="r")
    call = BaseClient._make_api_call
    described: list[str] = []

    def recording(client: BaseClient, operation: str, given: dict[str, Any]) -> Any:
        if operation == "DescribeCluster":
            described.append(given["ClusterId"])
        return call(client, operation, given)

    monkeypatch.setattr(BaseClient, "_make_api_call", recording)
    ours = create(tasks)
    assert create(tasks, attempt=2) == ours
    assert set(described) == {ours}


def wait_until_up(tasks: Any, cluster: str) -> None:
    sensor = tasks.ClusterIsUp(task_id="cluster_is_up", job_flow_id=cluster, poke_interval=0.1, timeout=0.3)
    sensor.execute(context())


def test_a_cluster_that_does_not_start_is_reported_with_its_state(tasks: Any, contract: RuntimeContract) -> None:
    cluster = create(tasks)
    clusters()[cluster].state = "WAITING"
    wait_until_up(tasks, cluster)
    clusters()[cluster].state = "STARTING"
    with pytest.raises(Exception, match=rf"the cluster {cluster} is STARTING after 0 minutes"):
        wait_until_up(tasks, cluster)


def run_step(tasks: Any, cluster: str, attempt: int = 1) -> list[str]:
    step = tasks.BarsToParquet(task_id="bars_to_parquet", job_flow_id=cluster, process_run="20261125-process-1")
    found: list[str] = step.execute(context(attempt))
    return found


@pytest.fixture
def steps_end(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Make moto's steps end in ``state`` during a wait; by themselves they never end.

    Only the operators' ``time`` is replaced, because other threads use ``time.sleep`` too.
    """
    ends = {"state": "COMPLETED"}

    def sleep(seconds: float) -> None:
        for cluster in clusters().values():
            for step in cluster.steps:
                step.state = ends["state"]

    monkeypatch.setattr("barflow_operators.time", SimpleNamespace(sleep=sleep))
    return ends


def test_the_step_and_the_workflow_get_the_parent_of_their_lineage(
    tasks: Any, contract: RuntimeContract, steps_end: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = create(tasks)
    given = {"process_run": "20261125-process-1", "lineage_parent": "barflow-dev/task/1"}
    tasks.BarsToParquet(task_id="bars_to_parquet", job_flow_id=cluster, **given).execute(context())
    assert clusters()[cluster].steps[0].args[-2:] == ["--lineage-parent", "barflow-dev/task/1"]
    started: list[Any] = []
    monkeypatch.setattr("barflow_operators.start_load", lambda *given: started.append(given) or "jr_1")
    operator = tasks.BarsToWarehouse(task_id="bars_to_warehouse", job_name="job", durable=False, **given)
    assert operator.submit_job(context()) == "jr_1"
    assert started[0][-1] == "barflow-dev/task/1"
    for kind in (tasks.BarsToParquet, tasks.BarsToWarehouse):
        assert "lineage_parent" in kind.template_fields


def test_each_try_of_the_step_has_its_own_run_id(
    tasks: Any, contract: RuntimeContract, steps_end: dict[str, str]
) -> None:
    cluster = create(tasks)
    steps_end["state"] = "FAILED"
    with pytest.raises(Exception, match="the Spark step is FAILED"):
        run_step(tasks, cluster)
    steps_end["state"] = "COMPLETED"
    run_step(tasks, cluster, attempt=2)
    assert [step.args[-1] for step in clusters()[cluster].steps] == ["20261125-process-1-1", "20261125-process-1-2"]


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETED"])
def test_a_step_of_an_earlier_try_is_reused(
    tasks: Any, contract: RuntimeContract, steps_end: dict[str, str], state: str
) -> None:
    from barflow.operations.clusters import step_request

    cluster = create(tasks)
    left = boto3.client("emr").add_job_flow_steps(
        JobFlowId=cluster, Steps=step_request(contract, "20261125-process-1-1")
    )
    clusters()[cluster].steps[0].state = state
    assert run_step(tasks, cluster, attempt=2) == left["StepIds"]
    assert len(clusters()[cluster].steps) == 1


def test_a_failed_step_is_reported_with_the_place_of_its_logs(
    tasks: Any, contract: RuntimeContract, steps_end: dict[str, str]
) -> None:
    steps_end["state"] = "FAILED"
    cluster = create(tasks)
    with pytest.raises(Exception, match=rf"the Spark step is FAILED: .*Its logs: s3://logs/emr/{cluster}/steps/s-"):
        run_step(tasks, cluster)


def test_a_failed_job_is_reported_with_its_reason(tasks: Any, contract: RuntimeContract) -> None:
    glue = boto3.client("glue")
    glue.create_job(Name=contract.glue.job, Role="role", Command={"Name": "glueetl"})
    glue.create_workflow(Name=contract.glue.workflow)
    actions = [{"JobName": contract.glue.job}]
    glue.create_trigger(Name="start", WorkflowName=contract.glue.workflow, Type="ON_DEMAND", Actions=actions)
    job = glue_backends[ACCOUNT][REGION].jobs[contract.glue.job]
    start = job.start_job_run

    def fail(*given: Any, **named: Any) -> str:
        run_id = str(start(*given, **named))
        (run,) = (item for item in job.job_runs if item.job_run_id == run_id)
        run._status = "FAILED"
        run.advance = lambda: None
        described = run.as_dict()
        run.as_dict = lambda: described | {"ErrorMessage": "the warehouse did not answer"}
        return run_id

    job.start_job_run = fail
    given = {"job_name": contract.glue.job, "process_run": "20261125-process-1", "durable": False}
    operator = tasks.BarsToWarehouse(task_id="bars_to_warehouse", **given)
    with pytest.raises(Exception, match=r"the Glue job is FAILED: the warehouse did not answer"):
        operator.execute(context(attempt=2))
    (run,) = glue_backends[ACCOUNT][REGION].workflows[contract.glue.workflow].runs.values()
    assert run.properties == {"run_id": "20261125-process-1-2"}


@pytest.fixture
def crawl(tasks: Any, contract: RuntimeContract) -> Callable[[], None]:
    """Return a function that executes the crawl of the warehouse. moto's crawler succeeds at once."""
    boto3.client("s3").create_bucket(Bucket="code")
    targets = {"S3Targets": [{"Path": "s3://code"}]}
    boto3.client("glue").create_crawler(Name="warehouse", Role="role", DatabaseName="barflow", Targets=targets)
    operator = tasks.CrawlWarehouse(task_id="crawl_warehouse", crawler_name="warehouse", wait_for_completion=False)
    return lambda: operator.execute(context())


def crawls() -> list[Any]:
    return list(glue_backends[ACCOUNT][REGION].crawlers["warehouse"].crawls)


def test_the_warehouse_is_not_crawled_without_the_crawlers_driver(crawl: Callable[[], None]) -> None:
    with pytest.raises(AirflowSkipException, match=r"driver is not in the code bucket. Run `curl .*driver\.jar`"):
        crawl()
    assert crawls() == []


def test_the_warehouse_is_crawled_until_a_crawl_after_the_deployment_succeeded(
    crawl: Callable[[], None], contract: RuntimeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3.client("s3").put_object(Bucket="code", Key="drivers/driver.jar", Body=b"driver")
    crawl()
    assert len(crawls()) == 1
    deployed = boto3.client("ssm").get_parameter(Name=parameter_name("dev"))["Parameter"]["LastModifiedDate"]
    monkeypatch.setattr(
        "barflow_operators.is_crawled",
        lambda client, crawler, since: (crawler, since) == (contract.glue.warehouse_crawler, deployed),
    )
    with pytest.raises(AirflowSkipException, match="has the warehouse's tables of this deployment"):
        crawl()
    assert len(crawls()) == 1


@pytest.fixture
def evaluate(
    tasks: Any, contract: RuntimeContract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return a function that runs the task on a lake with one published month; the evaluation fails these rules."""
    lake = Lake(str(tmp_path / "lake"))
    lake.publish(Manifest("run", NOON, (Partition("AAPL", "2026-11", 78, {"2026-11-25": 1}),)))
    stores = SimpleNamespace(settings=load_settings(lake_uri=str(tmp_path / "lake")))
    monkeypatch.setattr(tasks.quality, "open_stores", lambda: stores)
    monkeypatch.setattr(tasks.quality, "post_to_slack", lambda text: None)

    def run(*failed: str, since: datetime | None = None) -> Any:
        found = Evaluation("dqrun-1", ("2026-11",), 18, failed)
        monkeypatch.setattr("barflow.operations.quality.evaluate", lambda *given: found)
        last = lazy_object_proxy.Proxy(lambda: since)  # as in Airflow
        now = {"prev_start_date_success": last, "run_id": RUN, "ti": SimpleNamespace(try_number=1)}
        monkeypatch.setattr(tasks.quality, "get_current_context", lambda: now)
        return tasks.quality.evaluate_rules.function()

    return run


def failed_rules() -> list[float]:
    """Return the values of the metric."""
    given = {"Namespace": metric_names.NAMESPACE, "MetricName": metric_names.RULES_FAILED, "Statistics": ["Maximum"]}
    dimensions = [{"Name": metric_names.ENVIRONMENT, "Value": "dev"}]
    now = datetime.now(UTC)
    span = {"StartTime": now - timedelta(hours=1), "EndTime": now + timedelta(hours=1), "Period": 60}
    points = boto3.client("cloudwatch").get_metric_statistics(**given, Dimensions=dimensions, **span)["Datapoints"]
    return [point["Maximum"] for point in points]


def test_rules_that_hold_are_posted_and_counted(evaluate: Callable[..., Any]) -> None:
    assert "all 18 rules hold" in evaluate()
    assert failed_rules() == [0]


def test_a_rule_that_fails_is_counted_and_fails_the_task_without_a_retry(evaluate: Callable[..., Any]) -> None:
    with pytest.raises(AirflowFailException, match=r"1 of 18 data quality rules fail on 2026-11 .*: RowCount > 0 \("):
        evaluate("RowCount > 0 (it is 0)")
    assert failed_rules() == [1]


def test_nothing_is_evaluated_if_nothing_was_published_since_the_last_evaluation(evaluate: Callable[..., Any]) -> None:
    with pytest.raises(AirflowSkipException, match="nothing was published since the last evaluation"):
        evaluate(since=NOON)
    assert failed_rules() == []


def test_a_failed_task_posts_one_complete_message_to_slack(
    tasks: Any, contract: RuntimeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SlackEmulator() as slack:
        monkeypatch.setenv("BARFLOW_SLACK_URL", slack.url)
        tasks.report_failure(
            context(3, RuntimeError("postgresql://loader:hunter2@db/barflow did not answer\nat line 3"))
        )
    (post,) = slack.posts
    assert post["channel"] == "#barflow"
    for part in (
        "process_bars.bars_to_parquet",
        "dev",
        "try 3",
        "did not answer",
        "runbook: “A process run”",
        "|log>",
        RUN,
    ):
        assert part in post["text"], part
    assert "hunter2" not in post["text"]
    assert "line 3" not in post["text"]


def test_an_unavailable_slack_does_not_raise(
    tasks: Any, contract: RuntimeContract, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with SlackEmulator(Fault(500)) as slack:
        monkeypatch.setenv("BARFLOW_SLACK_URL", slack.url)
        tasks.report_failure(context(error=RuntimeError("why")))
    assert slack.attempts == 1
    assert "Slack message was not sent: Slack" in caplog.text
    tasks.report_failure(context(error=RuntimeError("why")))  # now no server listens there


def test_a_missing_contract_prevents_the_message_and_does_not_raise(
    tasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():  # nothing is deployed in this account
        tasks.report_failure(context())


@pytest.fixture
def backfill(
    tasks: Any, mongodb_uri: str, database: Database[Document], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Yield a function that runs a task of the DAG for three symbols of one session: ``backfill("fetch", 2, 1)``."""
    with TwelveDataEmulator(SyntheticBars(), api_key=EMULATOR_KEY) as server:

        def run(task: str, credits_per_day: int | None, days: int, symbols: tuple[str, ...] = SYMBOLS) -> Any:
            settings = load_settings(
                mongodb_uri=mongodb_uri, mongodb_database=database.name, twelvedata_url=server.url,
                twelvedata_api_key=EMULATOR_KEY, credits_per_minute=8, credits_per_day=credits_per_day,
            )  # fmt: skip
            form = {"symbols": list(symbols), "start": DAY, "end": DAY, "days": days}
            monkeypatch.setattr(tasks.backfill, "get_current_context", lambda: {"params": form})
            monkeypatch.setattr(tasks.backfill, "open_stores", lambda: Stores(settings))
            monkeypatch.setattr(tasks.backfill, "contract", lambda: contract_of("dev", warehouse={"max_storage_gb": 0}))
            return getattr(tasks.backfill, task).function()

        yield run


def test_a_backfill_that_needs_more_days_than_allowed_fails_before_it_fetches(
    backfill: Callable[..., Any], database: Database[Document], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AirflowFailException, match=r"3 credits on 2 days, and 1 are allowed. Nothing was fetched"):
        backfill("plan", credits_per_day=2, days=1)
    assert backfill("plan", credits_per_day=2, days=2)["days"] == 2
    assert "database.max_storage_gb is 0: 234 bars" in caplog.text  # named before a credit is spent
    assert database["bars"].count_documents({}) == 0


def test_a_backfill_without_credits_waits_and_then_fetches_the_rest(
    backfill: Callable[..., Any], database: Database[Document]
) -> None:
    assert backfill("fetch", credits_per_day=2, days=2) is False
    assert database["bars"].count_documents({}) == 2
    assert backfill("fetch", credits_per_day=2, days=2) is True
    assert database["bars"].count_documents({}) == 3
