"""The rehearsed deployments: each check fails when a deployment does not end as it must."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from barflow.errors import BarflowError
from emulators.aws.deployed import DeployedResource
from emulators.aws.faults import Fault
from emulators.aws.runtime import Runtime
from rehearsal import deployments
from rehearsal.deployments import check_arrows, fail_first_deployments
from rehearsal.environment import RehearsedEnvironment

INJECTED = "cdk deploy failed: Resource creation cancelled by an injected fault"


class FakeEnvironment(RehearsedEnvironment):
    """An environment of two stacks. A deployment calls ``behave``, which may raise and change ``states``."""

    def __init__(self, folder: Path, behave: Callable[[FakeEnvironment], None]) -> None:
        self.folder, self._behave = folder, behave
        self.runtime = Runtime(folder / "runtime", "")
        self.states: dict[str, str] = {}
        self.left = ["A", "B"]
        self.aws: Any = SimpleNamespace(url="")
        (folder / "assembly").mkdir(parents=True)
        for name in ("A", "B"):
            template = {"Resources": {"Last": {"DependsOn": "First"}, "First": {}}}
            (folder / "assembly" / f"{name}.template.json").write_text(json.dumps(template))

    def deploy(self, version: Any = None) -> str:
        self._behave(self)
        return ""

    def client(self, service: str) -> Any:
        stacks = [{"StackName": name, "StackStatus": state} for name, state in self.states.items()]
        return SimpleNamespace(
            describe_stacks=lambda: {"Stacks": stacks},
            update_termination_protection=lambda **given: self.states.pop(given["StackName"]),
        )


def meet_fault(deployed: FakeEnvironment) -> None:
    """Fail while a fault is left, as CloudFormation does."""
    if at := deployed.runtime.take(Fault.RESOURCE_FAILS):
        assert at == "Last"
        deployed.states[deployed.left.pop()] = "ROLLBACK_COMPLETE"
        raise BarflowError(INJECTED)


def succeed(deployed: FakeEnvironment) -> None:
    """Ignore the fault."""


def fail_otherwise(deployed: FakeEnvironment) -> None:
    """Fail with a reason of its own, as where a name is taken."""
    deployed.states["A"] = "ROLLBACK_COMPLETE"
    raise BarflowError("cdk deploy failed: Resource of type 'X' already exists")


def keep_running(deployed: FakeEnvironment) -> None:
    """Fail without a rollback."""
    deployed.states["A"] = "CREATE_COMPLETE"
    raise BarflowError(INJECTED)


def test_each_stack_fails_once_and_is_then_created(tmp_path: Path) -> None:
    deployed = FakeEnvironment(tmp_path, meet_fault)
    assert fail_first_deployments(deployed) == "2 stacks rolled back, then created"
    assert deployed.runtime.take(Fault.RESOURCE_FAILS) is None


@pytest.mark.parametrize(
    ("behave", "found"),
    [(succeed, "the deployment succeeded"), (fail_otherwise, "already exists"), (keep_running, "injected fault")],
)
def test_a_deployment_that_ends_otherwise_ends_the_rehearsal(
    tmp_path: Path, behave: Callable[[FakeEnvironment], None], found: str
) -> None:
    with pytest.raises(BarflowError, match=found):
        fail_first_deployments(FakeEnvironment(tmp_path, behave))


def test_a_denied_arrow_ends_the_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = "arn:aws:sns:us-east-1:123456789012:operations"
    found = [
        DeployedResource("s", "Topic", "AWS::SNS::Topic", {}, topic, topic),
        DeployedResource("s", "Alarm", "AWS::CloudWatch::Alarm", {"AlarmActions": [topic]}, "HostDown", "arn:alarm"),
    ]
    monkeypatch.setattr(deployments, "deployed_resources", lambda url: found)
    with pytest.raises(BarflowError, match="1 arrows are wrong: Alarm HostDown -> Topic operations"):
        check_arrows(FakeEnvironment(tmp_path, succeed))
    monkeypatch.setattr(deployments, "deployed_resources", lambda url: found[:1])
    assert check_arrows(FakeEnvironment(tmp_path / "other", succeed)) == "0 calls between services allowed"
