"""A process run by `barflow run`, with moto as EMR and Glue: its cluster always terminates, and errors have reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from contracts import REGION, contract_of
from moto import mock_aws
from moto.emr.models import emr_backends
from moto.glue.models import glue_backends

import emulators.aws.workflows  # noqa: F401 — moto's workflows start their jobs
from barflow.contract import RuntimeContract
from barflow.errors import BadInputError, BarflowError, UnavailableError
from barflow.operations.cluster_run import Clients, run_once, start_load
from barflow.operations.warehouse_crawl import install_command
from barflow.pipeline.program import RUN_ID_PROPERTY, read_workflow_run

ACCOUNT = "123456789012"


@pytest.fixture
def contract(monkeypatch: pytest.MonkeyPatch) -> Iterator[RuntimeContract]:
    """Yield a deployment's contract, with its job and crawlers in moto."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    driver = "s3://code/drivers/postgresql-42.7.13.jar"
    made = contract_of("dev", glue={"lake_crawler": "lake", "warehouse_crawler": "warehouse", "jdbc_driver": driver})
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="code")
        glue = boto3.client("glue")
        glue.create_job(Name=made.glue.job, Role="role", Command={"Name": "glueetl"})
        glue.create_workflow(Name=made.glue.workflow)
        start = {"WorkflowName": made.glue.workflow, "Type": "ON_DEMAND", "Actions": [{"JobName": made.glue.job}]}
        glue.create_trigger(Name="start", **start)
        for name in (made.glue.lake_crawler, made.glue.warehouse_crawler):
            glue.create_crawler(
                Name=name, Role="role", DatabaseName="barflow", Targets={"S3Targets": [{"Path": "s3://b"}]}
            )
        yield made


def cluster() -> Any:
    (found,) = emr_backends[ACCOUNT][REGION].clusters.values()
    return found


def crawler_states() -> dict[str, str]:
    return {item["Name"]: item["State"] for item in boto3.client("glue").get_crawlers()["Crawlers"]}


def sleep_until(step: str) -> Callable[[float], None]:
    """Return a sleep function that sets the state of the step. moto's jobs end by themselves."""

    def sleep(seconds: float) -> None:
        cluster().steps[0].state = step

    return sleep


def test_a_run_completes_step_and_job_and_terminates_its_cluster(contract: RuntimeContract) -> None:
    lines: list[str] = []
    done = run_once(contract, Clients.of(REGION), lines.append, sleep_until("COMPLETED"))
    assert done["outcome"] == "loaded"
    assert cluster().state == "TERMINATED"
    assert cluster().steps[0].args[-1] == done["run_id"]
    (job,) = glue_backends[ACCOUNT][REGION].jobs.values()
    (workflow_run,) = glue_backends[ACCOUNT][REGION].workflows[contract.glue.workflow].runs.values()
    assert workflow_run.properties == {RUN_ID_PROPERTY: done["run_id"]}
    own = {"--WORKFLOW_NAME": contract.glue.workflow, "--WORKFLOW_RUN_ID": workflow_run.run_id}
    assert [(item.job_run_id, item.arguments) for item in job.job_runs] == [(done["job_run"], own)]
    assert "Spark step: COMPLETED" in lines
    assert "Glue job: SUCCEEDED" in lines
    assert crawler_states() == {"lake": "RUNNING", "warehouse": "READY"}
    assert lines[-1].endswith(f"Run `{install_command(contract.glue.jdbc_driver, contract.glue.jdbc_driver_sha256)}`")


def test_a_run_crawls_the_warehouse_if_the_crawlers_driver_is_installed(contract: RuntimeContract) -> None:
    boto3.client("s3").put_object(Bucket="code", Key="drivers/postgresql-42.7.13.jar", Body=b"driver")
    run_once(contract, Clients.of(REGION), lambda text: None, sleep_until("COMPLETED"))
    assert crawler_states() == {"lake": "RUNNING", "warehouse": "RUNNING"}


def test_a_failed_step_terminates_the_cluster_starts_no_job_and_names_its_logs(contract: RuntimeContract) -> None:
    with pytest.raises(BarflowError, match=r"the Spark step is FAILED.*Its logs: .*/steps/"):
        run_once(contract, Clients.of(REGION), lambda text: None, sleep_until("FAILED"))
    assert cluster().state == "TERMINATED"
    assert not any(job.job_runs for job in glue_backends[ACCOUNT][REGION].jobs.values())


def test_ctrl_c_during_the_step_terminates_the_cluster(contract: RuntimeContract) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_once(contract, Clients.of(REGION), lambda text: None, interrupted)
    assert cluster().state == "TERMINATED"


def test_a_step_that_never_starts_fails_the_run_and_its_cluster_terminates(contract: RuntimeContract) -> None:
    waited: list[float] = []
    with pytest.raises(BarflowError, match=r"was not done in 120 minutes"):
        run_once(contract, Clients.of(REGION), lambda text: None, waited.append)
    assert sum(waited) == pytest.approx(contract.emr.step_timeout_minutes * 60, rel=0.01)
    assert cluster().state == "TERMINATED"


def test_a_failed_job_is_reported_with_its_reason(contract: RuntimeContract) -> None:
    clients = Clients.of(REGION)
    failed = {"JobRunState": "FAILED", "ErrorMessage": "error: the warehouse could not be reached"}
    clients.glue.get_job_run = lambda **given: {"JobRun": failed}
    with pytest.raises(BarflowError, match=r"the Glue job is FAILED: error: the warehouse could not be reached"):
        run_once(contract, clients, lambda text: None, sleep_until("COMPLETED"))
    assert cluster().state == "TERMINATED"


def test_a_run_waits_until_another_run_of_the_workflow_has_ended(
    contract: RuntimeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, lines = Clients.of(REGION), []
    start, busy = clients.glue.start_workflow_run, iter([True, True, False])

    def start_workflow_run(**given: Any) -> Any:
        if next(busy):
            error = {"Error": {"Code": "ConcurrentRunsExceededException", "Message": "Concurrent runs exceeded"}}
            raise clients.glue.exceptions.ConcurrentRunsExceededException(error, "StartWorkflowRun")
        return start(**given)

    monkeypatch.setattr(clients.glue, "start_workflow_run", start_workflow_run)
    done = run_once(contract, clients, lines.append, sleep_until("COMPLETED"))
    assert done["outcome"] == "loaded"
    assert [line for line in lines if "another run of the Glue workflow" in line] == [
        f"another run of the Glue workflow {contract.glue.workflow} is active: waiting"
    ]


def test_a_workflow_that_another_run_never_leaves_is_an_error_with_what_was_kept(
    contract: RuntimeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = Clients.of(REGION)

    def start_workflow_run(**given: Any) -> Any:
        raise clients.glue.exceptions.ConcurrentRunsExceededException({"Error": {}}, "StartWorkflowRun")

    monkeypatch.setattr(clients.glue, "start_workflow_run", start_workflow_run)
    with pytest.raises(BarflowError, match="The archive is complete, and nothing was loaded"):
        run_once(contract, clients, print, sleep_until("COMPLETED"))


def test_a_workflow_that_starts_no_job_is_an_error_with_what_was_kept(contract: RuntimeContract) -> None:
    boto3.client("glue").delete_trigger(Name="start")
    with pytest.raises(BarflowError, match=r"started no job: it is COMPLETED\. The archive is complete"):
        run_once(contract, Clients.of(REGION), print, sleep_until("COMPLETED"))


@pytest.mark.parametrize("text", ["x'; drop table ops.load_run --", "a b", "<!channel>", "", "9" * 65])
def test_a_run_id_that_is_none_is_rejected_before_the_load(contract: RuntimeContract, text: str) -> None:
    """The caller of the workflow chooses the property. It is in the load's ledger and in its messages."""
    glue, name = boto3.client("glue"), contract.glue.workflow
    started = glue.start_workflow_run(Name=name, RunProperties={RUN_ID_PROPERTY: text})["RunId"]
    with pytest.raises(BadInputError, match=r"must be up to 64 letters, digits and dashes\. Nothing was loaded"):
        read_workflow_run(name, started)


def test_a_workflow_run_passes_the_parent_of_its_lineage_to_its_job(contract: RuntimeContract) -> None:
    parent = "barflow-dev/process_bars.bars_to_warehouse/018f6f5c-0000-7000-8000-000000000001"
    start_load(boto3.client("glue"), contract.glue, "run-1", print, sleep_until("COMPLETED"), parent)
    ((started, run),) = glue_backends[ACCOUNT][REGION].workflows[contract.glue.workflow].runs.items()
    assert run.properties == {"run_id": "run-1", "lineage_parent": parent}
    assert read_workflow_run(contract.glue.workflow, started) == ("run-1", parent)


def test_a_workflow_run_without_a_run_id_gets_a_new_one_and_an_unknown_run_is_an_error(
    contract: RuntimeContract,
) -> None:
    name = contract.glue.workflow
    assert read_workflow_run(name, boto3.client("glue").start_workflow_run(Name=name)["RunId"]) == (None, None)
    with pytest.raises(UnavailableError, match="cannot read the properties of the workflow run wr_0"):
        read_workflow_run(name, "wr_0")
