"""What is the host, what may it do, and does the contract say it all?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from deployments import Deployment, changed
from moto import mock_aws

from barflow.contract import RuntimeContract, parse
from barflow.deployment import read_contract, settings_of
from config.environment import Environment, NetworkConfig
from config.environments import dev
from config.schedule import ProcessConfig
from stacks.bundles import RELEASE

ROOT = Path(__file__).parents[2]


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
    opened = synthesize(changed(dev(), network=NetworkConfig(airflow_ui_cidrs=("203.0.114.0/24",))))
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


def test_the_host_fetches_the_release_as_this_deployment_publishes_it_and_runs_it(dev_deployment: Deployment) -> None:
    script = text_of(dev_deployment.only("Orchestration", "AWS::EC2::Instance")["UserData"])
    assert f"/releases/{RELEASE.digest[:16]}/ /opt/barflow/release/" in script
    assert "bash /opt/barflow/release/orchestration/host/bootstrap.sh" in script


def test_the_release_holds_all_that_the_host_runs() -> None:
    for folder in (
        "orchestration/host",
        "orchestration/host/units",
        "orchestration/dags",
        "dashboard",
        "barflow",
        "sql",
    ):
        names = {path.name for path in (ROOT / folder).iterdir() if path.is_file()} - {"py.typed"}
        assert names
        assert {f"release/{folder}/{name}" for name in names} <= RELEASE.paths
    assert "release/config/alerts.toml" in RELEASE.paths


def test_another_contract_is_another_instance(synthesize: Callable[[Environment], Deployment]) -> None:
    def instance(environment: Environment) -> str:
        found = synthesize(environment).templates["Orchestration"]["Resources"]
        return next(name for name, item in found.items() if item["Type"] == "AWS::EC2::Instance")

    hourly = changed(dev(), process=ProcessConfig(schedule=("5 10-16 * * MON-FRI",)))
    assert instance(dev()) == instance(dev()) != instance(hourly)


@pytest.mark.parametrize("opened", ["airflow_ui_cidrs", "dashboard_cidrs"])
def test_a_page_listens_beyond_the_host_only_where_a_network_may_reach_it(
    synthesize: Callable[[Environment], Deployment], opened: str
) -> None:
    made = synthesize(changed(dev(), network=NetworkConfig(**{opened: ("10.1.0.0/16",)})))
    contract, ports = made.contract, {"airflow_ui_cidrs": 8080, "dashboard_cidrs": 8050}
    listening = {"airflow_ui_cidrs": contract.airflow.listen, "dashboard_cidrs": contract.dashboard.listen}
    assert listening == {name: "0.0.0.0" if name == opened else "127.0.0.1" for name in ports}
    groups = made.resources("Network", "AWS::EC2::SecurityGroup")
    rules = [rule for group in groups for rule in group.get("SecurityGroupIngress", []) if "CidrIp" in rule]
    assert [(rule["CidrIp"], rule["FromPort"], rule["ToPort"]) for rule in rules] == [
        ("10.1.0.0/16", ports[opened], ports[opened])
    ]


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


def test_beside_a_deployment_the_warehouse_is_only_read(dev_deployment: Deployment) -> None:
    dsn = settings_of(dev_deployment.contract).warehouse_dsn
    assert dsn is not None
    assert dsn.get_secret_value() == f"secretsmanager:{dev_deployment.contract.warehouse.reader_secret}#dsn"
