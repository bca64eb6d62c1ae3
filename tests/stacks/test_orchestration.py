"""Airflow's host is private, has only its permissions, and reads the contract that the stack writes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from deployments import OFFICE, ROOT, Deployment, text_of
from moto import mock_aws
from permissions import permissions

from barflow.contract import RuntimeContract, parse
from barflow.operations.deployment import read_contract, settings_of
from stacks.bundles import RELEASE


def statements(deployment: Deployment) -> list[Mapping[str, Any]]:
    kinds = ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy")
    policies = [item for kind in kinds for item in deployment.resources("Orchestration", kind)]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def test_the_host_is_private_requires_imdsv2_and_encrypts_every_disk(dev_deployment: Deployment) -> None:
    host = dev_deployment.only("Orchestration", "AWS::EC2::Instance")
    assert host["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert all(disk["Ebs"]["Encrypted"] and disk["Ebs"]["KmsKeyId"] for disk in host["BlockDeviceMappings"])
    assert "private" in json.dumps(host["SubnetId"])
    assert "NetworkInterfaces" not in host, "it has a public address"


def test_the_host_has_no_public_address_when_a_page_is_open_to_public_networks(customized: Deployment) -> None:
    host = customized.only("Orchestration", "AWS::EC2::Instance")
    assert "NetworkInterfaces" not in host
    assert "private" in json.dumps(host["SubnetId"])


def test_the_stack_waits_for_the_hosts_signal(dev_deployment: Deployment) -> None:
    found = dev_deployment.templates["Orchestration"]["Resources"]
    ((logical_id, host),) = [(name, item) for name, item in found.items() if item["Type"] == "AWS::EC2::Instance"]
    script = text_of(host["Properties"]["UserData"])
    assert host["CreationPolicy"]["ResourceSignal"]["Timeout"]
    assert f"--resource {logical_id} " in script
    assert re.search(r"trap 'code=\$\?; \S+cfn-signal .* --exit-code \$code' EXIT", script), (
        "it does not signal a failure"
    )


def test_the_host_runs_the_setup_of_this_deployments_release(dev_deployment: Deployment) -> None:
    script = text_of(dev_deployment.only("Orchestration", "AWS::EC2::Instance")["UserData"])
    assert f"/releases/{RELEASE.digest[:16]}/ /opt/barflow/release/" in script
    assert "bash /opt/barflow/release/orchestration/host/bootstrap.sh" in script


def test_the_release_has_all_that_the_host_runs() -> None:
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
    assert "release/barflow/alerts/alerts.toml" in RELEASE.paths


def test_another_contract_creates_another_instance(dev_deployment: Deployment, customized: Deployment) -> None:
    first, second = (item.logical_id("Orchestration", "AWS::EC2::Instance") for item in (dev_deployment, customized))
    assert first != second


def ingress(deployment: Deployment) -> list[tuple[str, int, int]]:
    """Return (CIDR, first port, last port) of every rule that opens a group to addresses."""
    groups = deployment.resources("Network", "AWS::EC2::SecurityGroup")
    rules = [rule for group in groups for rule in group.get("SecurityGroupIngress", []) if "CidrIp" in rule]
    return [(rule["CidrIp"], rule["FromPort"], rule["ToPort"]) for rule in rules]


def test_a_page_listens_to_other_hosts_only_when_a_network_is_allowed_to_reach_it(
    dev_deployment: Deployment, opened: Deployment, customized: Deployment
) -> None:
    for deployment, airflow, page, rules in (
        (dev_deployment, "127.0.0.1", "127.0.0.1", []),
        (opened, "0.0.0.0", "127.0.0.1", [(cidr, 8080, 8080) for cidr in OFFICE]),
        (
            customized,
            *("0.0.0.0", "0.0.0.0"),
            [("10.1.0.0/16", 8050, 8050), *(("203.0.114.0/24", port, port) for port in (443, 80))],
        ),
    ):
        contract = deployment.contract
        assert (contract.airflow.listen, contract.dashboard.listen) == (airflow, page)
        assert ingress(deployment) == rules


def test_the_parameter_contains_the_contract(dev_deployment: Deployment) -> None:
    parameters = {item["Name"]: item for item in dev_deployment.resources("Orchestration", "AWS::SSM::Parameter")}
    assert set(parameters) == {"/barflow/dev/runtime", "/barflow/dev/host"}
    text = text_of(parameters["/barflow/dev/runtime"]["Value"])
    assert isinstance(parse(text), RuntimeContract)
    assert len(text) < 8 * 1024, "the limit of the advanced tier"


def test_the_contract_has_references_and_no_secret(dev_deployment: Deployment) -> None:
    settings = dev_deployment.contract.settings
    for value in (settings.twelvedata_api_key, settings.mongodb_uri, settings.warehouse_dsn):
        assert value.startswith("secretsmanager:")


def test_the_host_passes_only_roles_of_this_environment(dev_deployment: Deployment) -> None:
    passed = [item for item in statements(dev_deployment) if "iam:PassRole" in json.dumps(item["Action"])]
    assert passed
    for statement in passed:
        assert "*" not in json.dumps(statement["Resource"])
        assert "iam:PassedToService" in json.dumps(statement["Condition"])


def test_the_host_terminates_only_clusters_with_this_environments_tag(dev_deployment: Deployment) -> None:
    terminating = [
        item for item in statements(dev_deployment) if "elasticmapreduce:TerminateJobFlows" in item["Action"]
    ]
    assert [item["Condition"] for item in terminating] == [
        {"StringEquals": {"elasticmapreduce:ResourceTag/barflow:env": "dev"}}
    ]


def test_the_host_reads_only_its_own_parameter(dev_deployment: Deployment) -> None:
    """AWS's managed policy for the SSM agent lets it read every parameter of the account."""
    (role,) = [
        item for item in dev_deployment.resources("Orchestration", "AWS::IAM::Role")
        if "ec2.amazonaws.com" in json.dumps(item["AssumeRolePolicyDocument"])
    ]  # fmt: skip
    assert "aws:policy" not in json.dumps(role.get("ManagedPolicyArns", []))
    allowed = permissions(dev_deployment.templates["Orchestration"], "HostRole")
    of_ssm = {item.action: item.resource for item in allowed if item.action.split(":")[0] == "ssm"}
    assert set(of_ssm) == {"ssm:GetParameter", "ssm:UpdateInstanceInformation"}
    assert "Runtime" in of_ssm["ssm:GetParameter"]
    channels = {f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")}
    assert {item.action for item in allowed if item.action.startswith("ssmmessages:")} == channels
    on_anything = {item.action.split(":")[0] for item in allowed if item.resource == "*"}
    assert on_anything == {"cloudwatch", "ec2messages", "elasticmapreduce", "glue", "ssm", "ssmmessages"}


def test_the_host_publishes_only_metrics_of_this_project(dev_deployment: Deployment) -> None:
    (metrics,) = [item for item in statements(dev_deployment) if item["Action"] == "cloudwatch:PutMetricData"]
    assert metrics["Condition"] == {"StringEquals": {"cloudwatch:namespace": "Barflow"}}


def test_commands_read_their_settings_from_the_parameter(
    dev_deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    parameters = {item["Name"]: item for item in dev_deployment.resources("Orchestration", "AWS::SSM::Parameter")}
    text = text_of(parameters["/barflow/dev/runtime"]["Value"])
    with mock_aws():
        boto3.client("ssm").put_parameter(Name="/barflow/dev/runtime", Type="String", Tier="Advanced", Value=text)
        settings = settings_of(read_contract("dev"))
    assert settings.env == "dev"
    assert settings.symbols == dev_deployment.environment.symbols
    assert settings.credits_per_day == dev_deployment.environment.plan.credits_per_day
    assert settings.lake_uri is not None
    assert re.fullmatch("s3://<.+Lake.+>", settings.lake_uri)


def test_commands_connect_to_the_warehouse_as_the_reader(dev_deployment: Deployment) -> None:
    dsn = settings_of(dev_deployment.contract).warehouse_dsn
    assert dsn is not None
    assert dsn.get_secret_value() == f"secretsmanager:{dev_deployment.contract.warehouse.reader_secret}#dsn"
