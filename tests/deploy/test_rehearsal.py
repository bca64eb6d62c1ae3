"""Does what is deployed work together and come back from trouble, and does the rehearsal notice when it does not?"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from airflow_page import GRAPH_OF, look_at_run
from botocore.exceptions import ClientError
from browsing import CAN_BROWSE
from harness import program

from barflow.errors import BarflowError
from emulators.aws.machine import REGION, ROLE_KEY, Machine, Trouble
from rehearsal.checks import AT_WORK, no_call_was_refused, silences
from rehearsal.environment import Rehearsal
from rehearsal.page import Done, page
from rehearsal.rehearse import BREAKS, Steps, fail, rehearse, succeed, survive

WHY = ":red_circle: *process_bars.bars_to_parquet* failed in dev, try 2\nWhy: Container killed on request. Its logs: s3"
FINE = ":white_check_mark: *process run* succeeded in dev: every hop reconciles\nIn: 10 Parquet rows"
STEP = BREAKS[0]
BARFLOW = Path(sys.executable).with_name("barflow")


@pytest.mark.minutes
@pytest.mark.timeout(3600)
def test_what_is_deployed_works_together_and_comes_back_from_trouble(
    request: pytest.FixtureRequest, picture: Callable[[str], Path]
) -> None:
    """``rehearse`` raises at the first step that is not as it should be."""

    def look(deployed: Rehearsal) -> None:
        if CAN_BROWSE:
            (run,) = deployed.airflow.call("GET", "dags/process_bars/dagRuns")["dag_runs"]
            graph, to = GRAPH_OF.format(tasks=11), picture("airflow-deployed.png")
            shot, url = request.getfixturevalue("browser_shot"), deployed.airflow.url
            shown = look_at_run(shot, url, run["dag_run_id"], "graph", graph, to, width=1900, height=620)
            assert "success" in shown
            assert "failed" not in shown

    with tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder:
        done = rehearse("dev", Path(folder), print, look)
    text = page("dev", done)
    assert all(item.name in text for item in BREAKS)
    assert sum(step.name.strip() == "every row against the oracle" for step in done) == 2


@pytest.mark.minutes
@pytest.mark.timeout(900)
def test_where_the_host_ingests_its_role_allows_all_that_a_tick_does() -> None:
    """Vendor's key, staging, alerts through the encrypted topic, metrics: as the commands of that host have it."""
    with (
        tempfile.TemporaryDirectory(prefix="barflow-tests-", ignore_cleanup_errors=True) as folder,
        Rehearsal("prod", Path(folder), print) as deployed,
    ):
        for step in (deployed.synth, deployed.bootstrap, deployed.deploy, deployed.put_secrets_in):
            step()
        host: Any = program("orchestration/host/write_settings.py")
        settings = deployed.variables(**host.barflow_settings(deployed.contract)) | deployed.machine.settings
        settings["AWS_ACCESS_KEY_ID"] = f"{ROLE_KEY}{deployed.host_role}"
        waiting = deployed.leave_an_alert()
        done = subprocess.run([BARFLOW, "ingest"], env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
        assert deployed.machine.refused == []
        listed = subprocess.run([BARFLOW, "alerts", "list"], env=settings, capture_output=True, text=True, check=True)
        assert "sns sent" in listed.stdout
        assert waiting not in {item["_id"] for item in deployed.outbox.find(undelivered=True)}
        airflow_reads_its_dags_and_keeps_its_logs(deployed)
        what_is_encrypted_takes_its_key(deployed)
        assert deployed.machine.judged[deployed.host_role] > 5


def client(deployed: Rehearsal, service: str, role: str) -> Any:
    """As a program of that role has it."""
    keys = {"aws_access_key_id": f"{ROLE_KEY}{role}", "aws_secret_access_key": "x"}
    return boto3.client(service, endpoint_url=deployed.aws.url, region_name=REGION, **keys)


def what_is_encrypted_takes_its_key(deployed: Rehearsal) -> None:
    """The deployed encryption is there to be judged: who has all rights but those to keys opens nothing."""
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


def airflow_reads_its_dags_and_keeps_its_logs(deployed: Rehearsal) -> None:
    """As bundle and remote logging do on a host, by its role; the rehearsal's Airflow has folders for both."""
    storage, s3 = deployed.contract.storage, client(deployed, "s3", deployed.host_role)
    prefix = storage.code_uri.removeprefix(f"s3://{storage.code_bucket}/")
    s3.head_bucket(Bucket=storage.code_bucket)
    found = s3.list_objects_v2(Bucket=storage.code_bucket, Prefix=f"{prefix}orchestration/dags")["Contents"]
    assert any(item["Key"].endswith("process_bars.py") for item in found)
    for item in found:
        s3.get_object(Bucket=storage.code_bucket, Key=item["Key"])
    log = {"Bucket": storage.logs_bucket, "Key": "airflow/dag_id=process_bars/run_id=r/task_id=summary/attempt=1.log"}
    s3.put_object(**log, Body=b"what the task said")
    s3.head_object(**log)
    assert s3.get_object(**log)["Body"].read() == b"what the task said"
    assert s3.list_objects_v2(Bucket=storage.logs_bucket, Prefix="airflow/dag_id=process_bars")["KeyCount"] == 1
    assert deployed.machine.refused == []
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=storage.code_bucket, Key=f"{prefix}orchestration/dags/process_bars.py", Body=b"another")


class Deployed(Rehearsal):
    """A deployment whose run ends as ``ended`` says, tells Slack ``text``, and leaves readers ``rows`` to see."""

    def __init__(self, folder: Path, ended: str, text: str, **rows: str) -> None:
        self.machine = Machine(folder, "")
        self.slack: Any = SimpleNamespace(posts=[])
        self._ended, self._text, self._rows = ended, text, rows
        self.made: list[dict[str, Any]] = []

    def start_run(self) -> str:
        self.slack.posts.append({"text": self._text})
        self.made.append({"Status": {"State": "TERMINATED"}})
        return "run"

    def end_of(self, run: str) -> str:
        return self._ended

    def seen(self) -> dict[str, list[tuple[Any, ...]]]:
        return {"bar_1d": [(self._rows.get("after" if self.made else "before", "same"),)]}

    def clusters(self, *states: str) -> list[dict[str, Any]]:
        return [item for item in self.made if not states or item["Status"]["State"] in states]

    def kill(self, run: str, task: str) -> None:
        """It is dead at once."""

    def steps(self) -> list[str]:
        return ["RUNNING"]


def test_a_call_that_was_refused_is_found_though_the_program_went_on(tmp_path: Path) -> None:
    deployed = Deployed(tmp_path, "success", FINE)
    with pytest.raises(BarflowError, match="no call was judged of the roles IngestRole, HostRole"):
        no_call_was_refused(deployed)
    for part in AT_WORK * 2:
        deployed.machine.note("judged", f"Barflow-dev-{part}-1")
    assert no_call_was_refused(deployed) == "12 of 6 roles, none refused"
    deployed.machine.note("refused", "User: a is not authorized to perform: b")
    with pytest.raises(BarflowError, match="1 calls were refused: User: a is not authorized to perform: b"):
        no_call_was_refused(deployed)


@pytest.mark.parametrize(
    ("begun", "ended", "opened"),
    [
        ("2026-11-23T14:28", "2026-11-23T14:29", "2026-11-20T14:30:00Z"),
        ("2026-11-23T14:29", "2026-11-23T14:31", None),
        ("2026-11-23T14:30", "2026-11-23T14:31", None),
        ("2026-11-23T14:49", "2026-11-23T14:51", None),
        ("2026-11-23T14:50", "2026-11-23T14:51", "2026-11-23T14:30:00Z"),
        ("2026-11-26T15:30", "2026-11-26T15:31", "2026-11-25T14:30:00Z"),
    ],
)
def test_alerts_of_a_silent_feed_are_asked_for_when_a_session_is_old_enough(
    begun: str, ended: str, opened: str | None
) -> None:
    found = silences(["AAPL", "TSLA"], *(datetime.fromisoformat(f"{at}+00:00") for at in (begun, ended)))
    assert found == ({f"stale_feed|{symbol}|{opened}" for symbol in ("AAPL", "TSLA")} if opened else set())


def test_a_failed_run_is_as_it_should_be(tmp_path: Path) -> None:
    deployed = Deployed(tmp_path, "failed (bars_to_parquet)", WHY)
    assert fail(deployed, STEP) == "Why: Container killed on request"
    assert deployed.machine.take(STEP.trouble) is None


@pytest.mark.parametrize(
    ("ended", "text", "rows", "found"),
    [
        ("success", WHY, {}, "the run ended as success"),
        ("failed (reconcile)", WHY, {}, r"the run ended as failed \(reconcile\)"),
        ("failed (bars_to_parquet)", "nothing", {}, "no message in Slack"),
        ("failed (bars_to_parquet)", WHY, {"before": "a", "after": "b"}, "changed what readers see in bar_1d"),
    ],
)
def test_a_failed_run_that_is_not_as_it_should_be_ends_the_rehearsal(
    tmp_path: Path, ended: str, text: str, rows: dict[str, str], found: str
) -> None:
    with pytest.raises(BarflowError, match=found):
        fail(Deployed(tmp_path, ended, text, **rows), STEP)


def test_a_cluster_that_lives_on_ends_the_rehearsal(tmp_path: Path) -> None:
    deployed = Deployed(tmp_path, "failed (bars_to_parquet)", WHY)
    deployed.made.append({"Status": {"State": "WAITING"}})
    with pytest.raises(BarflowError, match=r"1 clusters still live: \['WAITING'\]"):
        fail(deployed, STEP)


def test_a_run_that_should_go_well_and_does_not_ends_the_rehearsal(tmp_path: Path) -> None:
    assert succeed(Deployed(tmp_path, "success", FINE)) == "In: 10 Parquet rows"
    with pytest.raises(BarflowError, match="ended as failed"):
        succeed(Deployed(tmp_path, "failed (reconcile)", FINE))
    with pytest.raises(BarflowError, match="no message in Slack"):
        succeed(Deployed(tmp_path, "success", "nothing"))


def test_a_second_step_after_the_worker_died_ends_the_rehearsal(tmp_path: Path) -> None:
    with pytest.raises(BarflowError, match=r"made 1 clusters, and the last had steps \['RUNNING'\]"):
        survive(Deployed(tmp_path, "success", FINE))


def test_a_step_that_fails_is_named() -> None:
    def wrong() -> str:
        raise BarflowError("no such table")

    with pytest.raises(BarflowError, match="count: no such table"):
        Steps(print)("count", wrong)


def test_trouble_is_met_as_often_as_it_was_prepared(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "")
    machine.expect(Trouble.STEP_DIES, "writing", times=2)
    assert [machine.take(Trouble.STEP_DIES) for _ in range(3)] == ["writing", "writing", None]
    assert machine.take(Trouble.JOB_DIES) is None
    assert Machine.from_json(machine.to_json()) == machine


def test_the_page_has_each_step_with_its_seconds() -> None:
    text = page("dev", [Done("deploy", 1.26, "a|b"), Done("  rows", 2.0, "12")])
    assert "| deploy | 1.3 | a\\|b |\n| &nbsp;&nbsp;rows | 2.0 | 12 |\n| **all** | **3** | |" in text
