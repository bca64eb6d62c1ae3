"""The rehearsal: the deployed environment works and recovers from faults, and each check fails when it must."""

from __future__ import annotations

import inspect
import json
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest
from airflow_page import GRAPH_OF, look_at_run
from botocore.exceptions import ClientError
from browsing import CAN_BROWSE
from harness import program

from barflow.errors import BarflowError
from barflow.pipeline import aggregate, process
from emulators.aws.account import REGION, ROLE_KEY
from emulators.aws.faults import Fault
from emulators.aws.runtime import Runtime
from emulators.aws.server import EmulatorError
from rehearsal import rehearse as rehearsal
from rehearsal.checks import ACTIVE_ROLES, check_no_call_denied, stale_feed_alerts
from rehearsal.environment import RehearsedEnvironment
from rehearsal.page import Step, render_page
from rehearsal.rehearse import (
    SCENARIOS,
    Scenario,
    Steps,
    rehearse,
    run_to_failure,
    run_to_success,
    run_with_killed_workers,
)

FAILURE = (
    ":red_circle: *process_bars.bars_to_parquet* failed in dev, try 2\nWhy: Container killed on request. Its logs: s3"
)
SUCCESS = ":white_check_mark: *process run* succeeded in dev: what changed reconciles at every hop\nIn: 10 Parquet rows"
SCENARIO = SCENARIOS[0]
BARFLOW = Path(sys.executable).with_name("barflow")


@pytest.mark.minutes
@pytest.mark.timeout(3600)
def test_the_deployed_environment_works_and_recovers_from_faults(
    request: pytest.FixtureRequest, picture: Callable[[str], Path]
) -> None:
    """``rehearse`` raises at the first step that is not as expected."""

    def look(deployed: RehearsedEnvironment) -> None:
        if CAN_BROWSE:
            (run,) = deployed.airflow.call("GET", "dags/process_bars/dagRuns")["dag_runs"]
            graph, to = GRAPH_OF.format(tasks=12), picture("airflow-deployed.png")
            shot, airflow = request.getfixturevalue("browser_shot"), deployed.airflow
            shown = look_at_run(shot, airflow, run["dag_run_id"], "graph", graph, to, width=1900, height=620)
            assert "success" in shown
            assert "failed" not in shown

    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        steps = rehearse("dev", Path(folder), print, look)
    text = render_page("dev", steps)
    assert all(scenario.name in text for scenario in SCENARIOS)
    assert sum(step.name.strip() == "compare every row with the oracle" for step in steps) == 2


@pytest.mark.minutes
@pytest.mark.timeout(900)
def test_the_role_of_a_host_that_ingests_allows_a_whole_tick() -> None:
    """A tick reads the API key, stages bars, sends alerts through the encrypted topic and publishes metrics."""
    with (
        tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder,
        RehearsedEnvironment("prod", Path(folder), print) as deployed,
    ):
        for step in (deployed.synth, deployed.bootstrap, deployed.deploy, deployed.store_secrets):
            step()
        host: Any = program("orchestration/host/write_settings.py")
        settings = deployed.variables(**host.barflow_settings(deployed.contract)) | deployed.runtime.settings
        settings["AWS_ACCESS_KEY_ID"] = f"{ROLE_KEY}{deployed.host_role}"
        waiting = deployed.add_undelivered_alert()
        done = subprocess.run([BARFLOW, "ingest"], env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
        assert deployed.runtime.denied_calls == []
        listed = subprocess.run([BARFLOW, "alerts", "list"], env=settings, capture_output=True, text=True, check=True)
        assert "sns sent" in listed.stdout
        assert waiting not in {item["_id"] for item in deployed.outbox.find(undelivered=True)}
        assert_airflow_reads_dags_and_writes_logs(deployed)
        assert_encrypted_resources_need_their_keys(deployed)
        assert deployed.runtime.evaluated_calls[deployed.host_role] > 5


def client(deployed: RehearsedEnvironment, service: str, role: str) -> Any:
    """Return an AWS client that acts as the role."""
    keys = {"aws_access_key_id": f"{ROLE_KEY}{role}", "aws_secret_access_key": "x"}
    return boto3.client(service, endpoint_url=deployed.aws.url, region_name=REGION, **keys)


def assert_encrypted_resources_need_their_keys(deployed: RehearsedEnvironment) -> None:
    """Use each encrypted resource as a role with all permissions but those on KMS keys: each call is denied."""
    all_but_keys = {"Effect": "Allow", "NotAction": "kms:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [all_but_keys]})
    deployed.client("iam").create_role(RoleName="keyless", AssumeRolePolicyDocument="{}")
    deployed.client("iam").put_role_policy(RoleName="keyless", PolicyName="all", PolicyDocument=document)
    contract, outputs = deployed.contract, deployed.outputs["Alerts"]
    message = {"Message": "x", "MessageGroupId": "x", "MessageDeduplicationId": "x"}
    for service, call, given in (
        ("s3", "put_object", {"Bucket": contract.settings.lake_uri.removeprefix("s3://"), "Key": "x", "Body": b"x"}),
        ("s3", "get_object", {"Bucket": contract.storage.code_bucket, "Key": "x"}),
        ("secretsmanager", "get_secret_value", {"SecretId": contract.warehouse.reader_secret}),
        ("sns", "publish", {"TopicArn": outputs["AlertsTopic"], **message}),
        ("sqs", "receive_message", {"QueueUrl": outputs["BotQueues"].split(",")[0]}),
    ):
        with pytest.raises(ClientError, match="not authorized to perform: kms:Decrypt"):
            getattr(client(deployed, service, "keyless"), call)(**given)


def assert_airflow_reads_dags_and_writes_logs(deployed: RehearsedEnvironment) -> None:
    """Read and write S3 as DAG bundle and remote logging do with the host's role; a rehearsal has folders for both."""
    storage, s3 = deployed.contract.storage, client(deployed, "s3", deployed.host_role)
    prefix = storage.code_uri.removeprefix(f"s3://{storage.code_bucket}/")
    s3.head_bucket(Bucket=storage.code_bucket)
    found = s3.list_objects_v2(Bucket=storage.code_bucket, Prefix=f"{prefix}orchestration/dags")["Contents"]
    assert any(item["Key"].endswith("process_bars.py") for item in found)
    for item in found:
        s3.get_object(Bucket=storage.code_bucket, Key=item["Key"])
    log = {"Bucket": storage.logs_bucket, "Key": "airflow/dag_id=process_bars/run_id=r/task_id=summary/attempt=1.log"}
    s3.put_object(**log, Body=b"the log")
    s3.head_object(**log)
    assert s3.get_object(**log)["Body"].read() == b"the log"
    assert s3.list_objects_v2(Bucket=storage.logs_bucket, Prefix="airflow/dag_id=process_bars")["KeyCount"] == 1
    assert deployed.runtime.denied_calls == []
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=storage.code_bucket, Key=f"{prefix}orchestration/dags/process_bars.py", Body=b"another")


class FakeEnvironment(RehearsedEnvironment):
    """An environment whose run ends as ``ended``, posts ``text`` to Slack and has ``rows`` before and after it."""

    def __init__(self, folder: Path, ended: str, text: str, **rows: str) -> None:
        self.runtime = Runtime(folder, "")
        self.slack: Any = SimpleNamespace(posts=[])
        self._ended, self._text, self._rows = ended, text, rows
        self.created: list[dict[str, Any]] = []

    def start_run(self) -> str:
        self.slack.posts.append({"text": self._text})
        self.created.append({"Status": {"State": "TERMINATED"}})
        return "run"

    def wait_for_run(self, run: str) -> str:
        return self._ended

    def reader_rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {"bar_1d": [(self._rows.get("after" if self.created else "before", "same"),)]}

    def clusters(self, *states: str) -> list[dict[str, Any]]:
        return [item for item in self.created if not states or item["Status"]["State"] in states]

    def kill_task(self, run: str, task: str) -> None:
        """Do nothing: the task ends at once."""

    def step_states(self) -> list[str]:
        return ["RUNNING"]


def test_a_denied_call_is_found_although_the_program_went_on(tmp_path: Path) -> None:
    deployed = FakeEnvironment(tmp_path, "success", SUCCESS)
    with pytest.raises(BarflowError, match="no call was evaluated for the roles IngestRole, HostRole"):
        check_no_call_denied(deployed)
    for part in ACTIVE_ROLES * 2:
        deployed.runtime.record_evaluation(f"Barflow-dev-{part}-1")
    assert check_no_call_denied(deployed) == "12 calls of 6 roles, none denied"
    deployed.runtime.record_denial("User: a is not authorized to perform: b")
    with pytest.raises(BarflowError, match="1 calls were denied: User: a is not authorized to perform: b"):
        check_no_call_denied(deployed)


@pytest.mark.parametrize(
    ("started", "ended", "opened"),
    [
        ("2026-11-23T14:28", "2026-11-23T14:29", "2026-11-20T14:30:00Z"),
        ("2026-11-23T14:29", "2026-11-23T14:31", None),
        ("2026-11-23T14:30", "2026-11-23T14:31", None),
        ("2026-11-23T14:49", "2026-11-23T14:51", None),
        ("2026-11-23T14:50", "2026-11-23T14:51", "2026-11-23T14:30:00Z"),
        ("2026-11-26T15:30", "2026-11-26T15:31", "2026-11-25T14:30:00Z"),
    ],
)
def test_a_stale_feed_alert_is_expected_when_the_session_is_old_enough(
    started: str, ended: str, opened: str | None
) -> None:
    found = stale_feed_alerts(["AAPL", "TSLA"], *(datetime.fromisoformat(f"{at}+00:00") for at in (started, ended)))
    assert found == ({f"stale_feed|{symbol}|{opened}" for symbol in ("AAPL", "TSLA")} if opened else set())


def test_a_run_that_fails_as_expected_passes(tmp_path: Path) -> None:
    deployed = FakeEnvironment(tmp_path, "failed (bars_to_parquet)", FAILURE)
    assert run_to_failure(deployed, SCENARIO) == "Why: Container killed on request"
    assert deployed.runtime.take(SCENARIO.fault) is None


@pytest.mark.parametrize(
    ("ended", "text", "rows", "found"),
    [
        ("success", FAILURE, {}, "the run ended as success"),
        ("failed (reconcile)", FAILURE, {}, r"the run ended as failed \(reconcile\)"),
        ("failed (bars_to_parquet)", "nothing", {}, "no message in Slack"),
        ("failed (bars_to_parquet)", FAILURE, {"before": "a", "after": "b"}, "changed what readers see in bar_1d"),
    ],
)
def test_a_run_that_does_not_fail_as_expected_ends_the_rehearsal(
    tmp_path: Path, ended: str, text: str, rows: dict[str, str], found: str
) -> None:
    with pytest.raises(BarflowError, match=found):
        run_to_failure(FakeEnvironment(tmp_path, ended, text, **rows), SCENARIO)


def test_a_cluster_that_still_runs_ends_the_rehearsal(tmp_path: Path) -> None:
    deployed = FakeEnvironment(tmp_path, "failed (bars_to_parquet)", FAILURE)
    deployed.created.append({"Status": {"State": "WAITING"}})
    with pytest.raises(BarflowError, match=r"1 clusters still run: \['WAITING'\]"):
        run_to_failure(deployed, SCENARIO)


def test_a_run_that_does_not_succeed_ends_the_rehearsal(tmp_path: Path) -> None:
    assert run_to_success(FakeEnvironment(tmp_path, "success", SUCCESS)) == "In: 10 Parquet rows"
    with pytest.raises(BarflowError, match="ended as failed"):
        run_to_success(FakeEnvironment(tmp_path, "failed (reconcile)", SUCCESS))
    with pytest.raises(BarflowError, match="no message in Slack"):
        run_to_success(FakeEnvironment(tmp_path, "success", "nothing"))


def test_a_second_step_after_a_killed_worker_ends_the_rehearsal(tmp_path: Path) -> None:
    with pytest.raises(BarflowError, match=r"created 1 clusters, and the newest has steps \['RUNNING'\]"):
        run_with_killed_workers(FakeEnvironment(tmp_path, "success", SUCCESS))


def test_the_error_of_a_step_names_it() -> None:
    def fail() -> str:
        raise BarflowError("no such table")

    with pytest.raises(BarflowError, match="count: no such table"):
        Steps(print)("count", fail)


def test_a_fault_is_met_as_often_as_it_was_injected(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path, "")
    runtime.inject(Fault.STEP_KILLED, "writing", times=2)
    assert [runtime.take(Fault.STEP_KILLED) for _ in range(3)] == ["writing", "writing", None]
    assert runtime.take(Fault.JOB_KILLED) is None


def test_a_runtime_is_the_same_in_another_process(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path, "dsn", {"SETTING": "here"}, idle_minute=0.1)
    assert Runtime.from_json(runtime.to_json()) == runtime


@pytest.mark.parametrize(("scenario", "module"), [(SCENARIOS[0], process), (SCENARIOS[1], aggregate)])
def test_a_fault_is_injected_at_a_line_that_its_program_logs(scenario: Scenario, module: ModuleType) -> None:
    """Without such a line the program would not be killed."""
    assert f'log(f"{scenario.at} ' in inspect.getsource(module)


def test_an_emulator_that_does_not_start_ends_the_rehearsal_with_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise EmulatorError("The AWS emulator did not start (exit code 1).")

    monkeypatch.setattr(rehearsal, "rehearse", fail)
    monkeypatch.setattr(sys, "argv", ["rehearsal"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("rehearsal", run_name="__main__")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: The AWS emulator did not start (exit code 1).\n"


def test_the_printed_table_has_the_seconds_of_a_step_with_a_long_result(capsys: pytest.CaptureFixture[str]) -> None:
    rehearsal.print_table([Step("process", 190.34, "rows " * 40), Step("  compare", 2.71, "6000 rows")])
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if row[1:]][:3] == [["step", "seconds"], ["process", "190.3"], ["rows", "rows"]]
    assert ["compare", "2.7"] in rows
    assert ["all", "193.1"] in rows


def test_the_page_has_each_step_with_its_seconds() -> None:
    text = render_page("dev", [Step("deploy", 1.26, "a|b"), Step("  rows", 2.0, "12")])
    assert "| deploy | 1.3 | a\\|b |\n| &nbsp;&nbsp;rows | 2.0 | 12 |\n| **all** | **3** | |" in text
