"""What is the host, what may it do, and does the contract say it all?"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from deployments import Deployment
from moto import mock_aws

from barflow.contract import RuntimeContract, parse
from barflow.deployment import read_contract, settings_of
from config.environment import Environment, NetworkConfig
from config.environments import dev
from stacks.bundles import RELEASE

HOST = Path(__file__).parents[2] / "orchestration" / "host"


def text_of(value: Any) -> str:
    """A templated text with a word in place of each token."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        return "".join(text_of(part) for part in value["Fn::Join"][1])
    if "Fn::Base64" in value:
        return text_of(value["Fn::Base64"])
    return "TOKEN"


def statements(deployment: Deployment) -> list[Mapping[str, Any]]:
    (policy,) = deployment.resources("Orchestration", "AWS::IAM::Policy")
    return list(policy["PolicyDocument"]["Statement"])


def test_the_host_is_private_asks_for_imdsv2_and_encrypts_every_disk(dev_deployment: Deployment) -> None:
    host = dev_deployment.only("Orchestration", "AWS::EC2::Instance")
    assert host["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert all(disk["Ebs"]["Encrypted"] and disk["Ebs"]["KmsKeyId"] for disk in host["BlockDeviceMappings"])
    assert "private" in json.dumps(host["SubnetId"])
    assert "NetworkInterfaces" not in host, "no public address"


def test_a_page_open_to_public_addresses_puts_the_host_where_they_reach_it(
    synthesize: Callable[[Environment], Deployment],
) -> None:
    opened = synthesize(replace(dev(), network=NetworkConfig(airflow_ui_cidrs=("203.0.114.0/24",))))
    host = opened.only("Orchestration", "AWS::EC2::Instance")
    (interface,) = host["NetworkInterfaces"]
    assert interface["AssociatePublicIpAddress"] is True
    assert "public" in json.dumps(interface["SubnetId"])


def test_the_stack_waits_until_the_host_says_that_it_is_up(dev_deployment: Deployment) -> None:
    found = dev_deployment.templates["Orchestration"]["Resources"]
    ((logical_id, host),) = [(name, item) for name, item in found.items() if item["Type"] == "AWS::EC2::Instance"]
    script = text_of(host["Properties"]["UserData"])
    assert host["CreationPolicy"]["ResourceSignal"]["Timeout"]
    assert f"--resource {logical_id} " in script
    assert re.search(r"trap 'code=\$\?; \S+cfn-signal .* --exit-code \$code' EXIT", script), "also when it fails"


def test_the_host_fetches_its_setup_as_this_deployment_publishes_it(dev_deployment: Deployment) -> None:
    script = text_of(dev_deployment.only("Orchestration", "AWS::EC2::Instance")["UserData"])
    assert f"/releases/{RELEASE.digest[:16]}/orchestration/host/ /opt/barflow/setup/" in script
    assert {f"release/orchestration/host/{path.name}" for path in HOST.iterdir()} <= RELEASE.places


def test_the_parameter_is_the_contract(dev_deployment: Deployment) -> None:
    parameter = dev_deployment.only("Orchestration", "AWS::SSM::Parameter")
    text = text_of(parameter["Value"])
    assert parameter["Name"] == "/barflow/dev/runtime"
    assert isinstance(parse(text), RuntimeContract)
    assert len(text) < 8 * 1024, "what a parameter of the advanced tier holds"


def test_the_contract_holds_references_and_no_secret(dev_deployment: Deployment) -> None:
    settings = dev_deployment.contract.settings
    for value in (settings.twelvedata_api_key, settings.mongodb_uri, settings.warehouse_dsn):
        assert value.startswith("secretsmanager:")


def test_the_host_may_pass_none_but_the_roles_of_this_environment(dev_deployment: Deployment) -> None:
    passed = [item for item in statements(dev_deployment) if "iam:PassRole" in json.dumps(item["Action"])]
    assert passed
    for statement in passed:
        assert "*" not in json.dumps(statement["Resource"])
        assert "iam:PassedToService" in json.dumps(statement["Condition"])


def test_the_host_ends_only_clusters_with_this_environments_tag(dev_deployment: Deployment) -> None:
    ends = [item for item in statements(dev_deployment) if "elasticmapreduce:TerminateJobFlows" in item["Action"]]
    assert [item["Condition"] for item in ends] == [
        {"StringEquals": {"elasticmapreduce:ResourceTag/barflow:env": "dev"}}
    ]


def test_the_host_publishes_metrics_of_this_project_alone(dev_deployment: Deployment) -> None:
    (metrics,) = [item for item in statements(dev_deployment) if item["Action"] == "cloudwatch:PutMetricData"]
    assert metrics["Condition"] == {"StringEquals": {"cloudwatch:namespace": "Barflow"}}


def test_the_bootstrap_is_clean_shell() -> None:
    shellcheck = shutil.which("shellcheck") or str(Path(".venv/bin/shellcheck"))
    found = subprocess.run([shellcheck, HOST / "bootstrap.sh"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_bootstrap_refuses_to_guess_its_environment() -> None:
    found = subprocess.run(["bash", HOST / "bootstrap.sh"], capture_output=True, text=True, env={}, check=False)
    assert found.returncode != 0
    assert "BARFLOW_ENV" in found.stderr


def test_log_shipping_names_the_hosts_group_by_its_placeholder() -> None:
    config = json.loads((HOST / "cloudwatch-agent.json").read_text())
    files = config["logs"]["logs_collected"]["files"]["collect_list"]
    assert {item["log_group_name"] for item in files} == {"LOG_GROUP"}


@pytest.mark.parametrize("action", ["*", "s3:*", "iam:*"])
def test_no_action_is_a_wildcard(dev_deployment: Deployment, action: str) -> None:
    for statement in statements(dev_deployment):
        assert action not in statement["Action"]


def test_commands_get_the_settings_of_the_parameter_that_the_stack_writes(
    dev_deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    text = text_of(dev_deployment.only("Orchestration", "AWS::SSM::Parameter")["Value"])
    with mock_aws():
        boto3.client("ssm").put_parameter(Name="/barflow/dev/runtime", Type="String", Tier="Advanced", Value=text)
        settings = settings_of(read_contract("dev"))
    assert settings.env == "dev"
    assert settings.symbols == dev_deployment.environment.symbols
    assert settings.credits_per_day == dev_deployment.environment.plan.credits_per_day
    assert settings.lake_uri == "s3://TOKEN"
