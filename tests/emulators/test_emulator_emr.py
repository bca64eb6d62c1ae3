"""The EMR emulator: clusters move through EMR's states, and their steps run the deployed programs."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from aws_parts import CODE, Aws, allow, wait_for, zipped

from emulators.aws.faults import Fault

SCRIPT = """
import json, os, sys
import barflow
print(json.dumps({"args": sys.argv[1:], "library": barflow.WHERE, "files": sorted(os.listdir(".")),
                  "setting": os.environ.get("SETTING"), "given": os.environ.get("GIVEN"),
                  "of_tests": os.environ.get("PYTEST_CURRENT_TEST")}))
"""
ENDLESS = "import time\nprint('running', flush=True)\ntime.sleep(600)\n"
ORDER = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING", "TERMINATED"]
OVER = ("TERMINATED", "TERMINATED_WITH_ERRORS")
STEP_OVER = ("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")


class Cluster:
    """A cluster on the emulator; ``states`` holds the states that it was seen in."""

    def __init__(self, aws: Aws, profile: str = "r", **more: Any) -> None:
        self._emr = aws.client("emr")
        request = {"Name": "test", "ReleaseLabel": "emr-7.13.0", "ServiceRole": "r", "JobFlowRole": profile}
        instances = {"KeepJobFlowAliveWhenNoSteps": True}
        self.id = self._emr.run_job_flow(**request, LogUri=f"s3://{CODE}/logs/", Instances=instances, **more)[
            "JobFlowId"
        ]
        self.states: list[str] = []

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self._emr.describe_cluster(ClusterId=self.id)["Cluster"]["Status"]
        if status["State"] not in self.states[-1:]:
            self.states.append(status["State"])
        return status

    def becomes(self, *states: str) -> dict[str, Any]:
        found: dict[str, Any] = wait_for(self.status, lambda status: status["State"] in states)
        return found

    def add(self, *arguments: str) -> str:
        step = {"Name": "s", "ActionOnFailure": "CONTINUE"}
        jar = {"Jar": "command-runner.jar", "Args": ["spark-submit", "--deploy-mode", "cluster", *arguments]}
        found = self._emr.add_job_flow_steps(JobFlowId=self.id, Steps=[step | {"HadoopJarStep": jar}])
        return str(found["StepIds"][0])

    def step(self, step: str, *states: str) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            self.status()
            status: dict[str, Any] = self._emr.describe_step(ClusterId=self.id, StepId=step)["Step"]["Status"]
            return status

        return wait_for(look, lambda status: status["State"] in states)

    def end(self) -> dict[str, Any]:
        self._emr.terminate_job_flows(JobFlowIds=[self.id])
        return self.becomes(*OVER)


def log_of(aws: Aws, cluster: Cluster, step: str) -> str:
    body = aws.client("s3").get_object(Bucket=CODE, Key=f"logs/{cluster.id}/steps/{step}/stderr.gz")["Body"].read()
    return gzip.decompress(body).decode()


def test_a_step_runs_the_deployed_script_with_the_deployed_library_and_environment(aws: Aws) -> None:
    script = aws.put("spark/print.py", SCRIPT)
    library = aws.put("spark/barflow.zip", zipped({"barflow/__init__.py": "WHERE = 'deployed'"}))
    cluster = Cluster(aws)
    settings = ["--conf", "spark.yarn.appMasterEnv.GIVEN=a=b", "--conf", "spark.yarn.maxAppAttempts=1"]
    step = cluster.add("--py-files", library, *settings, script, "--lake", "s3://lake")
    assert cluster.step(step, *STEP_OVER)["State"] == "COMPLETED"
    (printed,) = [line for line in log_of(aws, cluster, step).splitlines() if line.startswith("{")]
    files = ["barflow.zip", "print.py", "spark-defaults.conf"]
    assert json.loads(printed) == {
        **{"args": ["--lake", "s3://lake"], "library": "deployed", "files": files},
        **{"setting": "here", "given": "a=b", "of_tests": None},
    }
    ended = cluster.end()
    assert ended["StateChangeReason"] == {"Code": "USER_REQUEST", "Message": "Terminated by user request"}
    # It waits after its step, and also before it if the step came late.
    moved = [state for state in cluster.states if state != "WAITING"]
    assert moved == sorted(moved, key=ORDER.index)
    assert {"RUNNING", "TERMINATED"} <= {*moved}


def test_a_failed_step_has_a_reason_and_the_next_step_runs(aws: Aws) -> None:
    wrong = aws.put("spark/wrong.py", "import sys\nsys.exit('error: the lake is gone')\n")
    right = aws.put("spark/right.py", "print('done')\n")
    cluster = Cluster(aws)
    first, missing, last = cluster.add(wrong), cluster.add(f"s3://{CODE}/spark/nowhere.py"), cluster.add(right)
    assert cluster.step(last, *STEP_OVER)["State"] == "COMPLETED"
    failed = cluster.step(first, *STEP_OVER)
    assert (failed["State"], failed["FailureDetails"]["Message"]) == ("FAILED", "the lake is gone")
    assert failed["FailureDetails"]["LogFile"].endswith(f"{first}/stderr.gz")
    assert "error: the lake is gone" in log_of(aws, cluster, first)
    assert "spark/nowhere.py does not exist" in cluster.step(missing, "FAILED")["FailureDetails"]["Message"]
    cluster.end()


def test_terminating_a_cluster_interrupts_its_step_and_cancels_pending_ones(aws: Aws) -> None:
    script = aws.put("spark/endless.py", ENDLESS)
    cluster = Cluster(aws)
    working, waiting = cluster.add(script), cluster.add(script)
    cluster.step(working, "RUNNING")
    cluster.end()
    assert cluster.step(working, *STEP_OVER)["State"] == "INTERRUPTED"
    assert cluster.step(waiting, *STEP_OVER)["State"] == "CANCELLED"


def test_an_injected_fault_kills_a_step_at_a_printed_line(aws: Aws) -> None:
    script = aws.put("spark/endless.py", ENDLESS)
    aws.runtime.inject(Fault.STEP_KILLED, at="running")
    cluster = Cluster(aws)
    failed = cluster.step(cluster.add(script), *STEP_OVER)
    assert (failed["State"], "137" in failed["FailureDetails"]["Message"]) == ("FAILED", True)
    cluster.end()


def test_an_idle_cluster_terminates(aws: Aws) -> None:
    cluster = Cluster(aws, AutoTerminationPolicy={"IdleTimeout": 300})
    assert "idle" in cluster.becomes(*OVER)["StateChangeReason"]["Message"]


@pytest.mark.parametrize("wanted", ["script", "certificate"])
def test_a_cluster_without_its_start_files_fails(aws: Aws, wanted: str) -> None:
    there, missing = aws.put("bootstrap.sh", "true"), f"s3://{CODE}/missing"
    script = missing if wanted == "script" else there
    encryption = {
        "InTransitEncryptionConfiguration": {"TLSCertificateConfiguration": {"S3Object": missing}},
    }
    security = json.dumps({"EncryptionConfiguration": encryption if wanted == "certificate" else {}})
    aws.client("emr").create_security_configuration(Name=f"for {wanted}", SecurityConfiguration=security)
    action = {"Name": "packages", "ScriptBootstrapAction": {"Path": script, "Args": [there]}}
    cluster = Cluster(aws, BootstrapActions=[action], SecurityConfiguration=f"for {wanted}")
    ended = cluster.becomes(*OVER)
    assert ended["State"] == "TERMINATED_WITH_ERRORS"
    assert ended["StateChangeReason"]["Code"] == "BOOTSTRAP_FAILURE"
    assert f"{missing} does not exist" in ended["StateChangeReason"]["Message"]


def test_nodes_need_permission_to_read_their_files_and_to_write_logs(aws: Aws) -> None:
    script = aws.put("emr/setup.sh", "true")
    logs = allow("s3:PutObject", f"arn:aws:s3:::{CODE}/logs/*")
    actions = [{"Name": "b", "ScriptBootstrapAction": {"Path": script, "Args": []}}]
    for profile, wanted in (
        (aws.create_profile("blind", logs), "s3:GetObject"),
        (aws.create_profile("mute", allow("s3:GetObject")), "s3:PutObject"),
    ):
        ended = Cluster(aws, profile, BootstrapActions=actions).becomes(*OVER)
        assert ended["State"] == "TERMINATED_WITH_ERRORS"
        assert f"not authorized to perform: {wanted}" in ended["StateChangeReason"]["Message"]
    seeing = aws.create_profile("seeing", logs, allow("s3:GetObject", f"arn:aws:s3:::{CODE}/emr/*"))
    cluster = Cluster(aws, seeing, BootstrapActions=actions)
    step = cluster.add(aws.put("elsewhere/print.py", "print('done')"))
    failed = cluster.step(step, *STEP_OVER)
    assert failed["State"] == "FAILED"
    assert "not authorized to perform: s3:GetObject" in failed["FailureDetails"]["Message"]
    cluster.end()


def test_a_cluster_without_capacity_stays_in_starting_until_it_is_terminated(aws: Aws) -> None:
    aws.runtime.inject(Fault.CLUSTER_STUCK)
    stuck, other = Cluster(aws), Cluster(aws)
    other.becomes("WAITING")
    assert stuck.status()["State"] == "STARTING"
    stuck.end()
    assert {*stuck.states} <= {"STARTING", "TERMINATING", "TERMINATED"}
    other.end()


def test_a_late_answer_comes_after_the_cluster_was_created(aws: Aws) -> None:
    aws.runtime.inject(Fault.LATE_ANSWER, at="0.01")
    cluster = Cluster(aws, Tags=[{"Key": "barflow:run", "Value": "late"}])
    found = aws.client("emr").describe_cluster(ClusterId=cluster.id)["Cluster"]
    assert found["Tags"] == [{"Key": "barflow:run", "Value": "late"}]
    cluster.end()
