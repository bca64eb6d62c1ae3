"""Every stack of every environment passes the checks, is reproducible, and retains its data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from deployments import Deployment, Synthesize, as_list, changed, synthesized

from config.environment import NetworkConfig
from config.environments import ENVIRONMENTS, dev, prod

STATEFUL_STACKS = ("Secrets", "Storage", "Database")
STATEFUL = (
    *("AWS::KMS::Key", "AWS::S3::Bucket", "AWS::RDS::DBInstance", "AWS::SecretsManager::Secret"),
    *("AWS::EC2::Volume", "AWS::DynamoDB::Table", "AWS::EFS::FileSystem"),
)
FLAG = {"allow_data_deletion": "true"}

# The actions for which AWS has no narrower resource than all, by reason. A condition on a tag limits RunJobFlow.
UNBOUND = {
    "network interfaces of a function or a Glue worker in the VPC": {
        *("ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"),
        "ec2:UnassignPrivateIpAddresses",
    },
    "lists and descriptions": {
        *("ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups"),
        *("ec2:DescribeSubnets", "ec2:DescribeVpcAttribute", "ec2:DescribeVpcEndpoints"),
        *("elasticmapreduce:ListClusters", "glue:GetCrawlerMetrics", "glue:GetSecurityConfiguration"),
    },
    "a new cluster or metric, with a condition on its tag or namespace": {
        *("elasticmapreduce:RunJobFlow", "cloudwatch:PutMetricData"),
    },
    "the channels of the SSM agent; AWS's guide allows the agent's registration on every resource": {
        *(f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")),
        *("ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage"),
        *("ec2messages:GetEndpoint", "ec2messages:GetMessages", "ec2messages:SendReply"),
        "ssm:UpdateInstanceInformation",
    },
}


@pytest.fixture(scope="session")
def dev_with_flag(synthesize: Synthesize) -> Deployment:
    return synthesize(dev(), **FLAG)


@pytest.fixture(scope="session")
def prod_with_flag(synthesize: Synthesize) -> Deployment:
    return synthesize(prod(), **FLAG)


def resources(deployment: Deployment, kinds: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for part, template in deployment.templates.items():
        for key, resource in template["Resources"].items():
            if resource["Type"] in kinds:
                yield f"{part}/{key}", resource


def statements(deployment: Deployment) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every statement that allows a role something, with its resource."""
    for where, resource in resources(deployment, ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::Role")):
        properties = resource["Properties"]
        inline = [item["PolicyDocument"] for item in properties.get("Policies", [])]
        for document in [*inline, *([properties["PolicyDocument"]] if "PolicyDocument" in properties else [])]:
            yield from ((where, item) for item in document["Statement"] if item["Effect"] == "Allow")


def manifest(deployment: Deployment) -> dict[str, Any]:
    """Return the manifest of the cloud assembly."""
    found: dict[str, Any] = json.loads((deployment.assembly / "manifest.json").read_text())
    return found


def protected(deployment: Deployment) -> set[str]:
    """Return the stacks with termination protection."""
    artifacts = manifest(deployment)["artifacts"]
    return {
        part
        for part, stack in deployment.stacks.items()
        if artifacts[stack.stack_name]["properties"].get("terminationProtection")
    }


@pytest.mark.parametrize(
    "name", ["dev", "staging", "prod", "dev_with_flag", "prod_with_flag", "opened", "customized", "host_ingests"]
)
def test_cdk_nag_has_no_finding_without_an_acknowledgement(name: str, request: pytest.FixtureRequest) -> None:
    deployment: Deployment = request.getfixturevalue(f"{name}_deployment" if name in ENVIRONMENTS else name)
    assert deployment.findings == set()


def test_cdk_nag_has_findings_when_they_are_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stacks.database.acknowledge", lambda *given: None)
    found = {rule for rule, _ in synthesized(dev(), tmp_path).findings}
    assert {"AwsSolutions-RDS10", "NIST.800.53.R5-RDSMultiAZSupport"} <= found


@pytest.mark.minutes
def test_cfn_lint_finds_no_error(deployments: list[Deployment]) -> None:
    templates = [path for deployment in deployments for path in sorted(deployment.assembly.glob("*.template.json"))]
    assert len(templates) == sum(len(deployment.stacks) for deployment in deployments)
    linter = [str(Path(sys.executable).with_name("cfn-lint")), "--non-zero-exit-code", "error", "--format", "parseable"]
    done = subprocess.run([*linter, "-t", *map(str, templates)], capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ":E" in line]
    assert (done.returncode, errors) == (0, []), done.stderr


def test_synthesis_looks_nothing_up(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert "missing" not in manifest(deployment)


def test_an_environment_always_gives_the_same_templates(tmp_path: Path, dev_deployment: Deployment) -> None:
    assert synthesized(dev(), tmp_path).templates == dev_deployment.templates


def test_stacks_have_the_name_and_the_tags_of_their_environment_and_part(deployments: list[Deployment]) -> None:
    assert [deployment.environment.name for deployment in deployments] == list(ENVIRONMENTS)
    for deployment in deployments:
        name = deployment.environment.name
        artifacts = manifest(deployment)["artifacts"]
        for part, stack in deployment.stacks.items():
            assert stack.stack_name == f"Barflow-{name}-{part}"
            tags = artifacts[stack.stack_name]["properties"]["tags"]
            assert tags == {"barflow:env": name, "barflow:stack": part}


def test_no_role_is_allowed_a_wildcard_of_actions(deployments: list[Deployment]) -> None:
    wild = {
        (where, action)
        for deployment in deployments
        for where, statement in statements(deployment)
        for action in as_list(statement["Action"])
        if "*" in action
    }
    assert wild == set()


def test_an_action_is_allowed_on_every_resource_only_when_aws_has_no_narrower_one(
    deployments: list[Deployment],
) -> None:
    known = set().union(*UNBOUND.values())
    unbound = {
        (where, action, bool(statement.get("Condition")))
        for deployment in deployments
        for where, statement in statements(deployment)
        for action in as_list(statement["Action"])
        if "*" in as_list(statement["Resource"])
    }
    assert {(where, action) for where, action, _ in unbound if action not in known} == set()
    assert {action for _, action, _ in unbound} == known, "the list has an action that no policy allows"
    needs_condition = {"elasticmapreduce:RunJobFlow", "cloudwatch:PutMetricData"}
    assert {item for item in unbound if item[1] in needs_condition and not item[2]} == set()


def test_only_services_of_aws_assume_a_role(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        for where, role in resources(deployment, ("AWS::IAM::Role",)):
            for statement in role["Properties"]["AssumeRolePolicyDocument"]["Statement"]:
                assert set(statement["Principal"]) == {"Service"}, where


def test_data_is_retained_unless_environment_and_flag_allow_its_deletion(
    deployments: list[Deployment], dev_with_flag: Deployment, prod_with_flag: Deployment
) -> None:
    for deployment in (*deployments, prod_with_flag):
        stateful = dict(resources(deployment, STATEFUL))
        assert stateful
        assert {item["DeletionPolicy"] for item in stateful.values()} <= {"Retain", "RetainExceptOnCreate"}
        assert {item["UpdateReplacePolicy"] for item in stateful.values()} == {"Retain"}
    assert {item["DeletionPolicy"] for _, item in resources(dev_with_flag, STATEFUL)} == {"Delete"}


def test_stateful_stacks_are_protected_unless_environment_and_flag_allow_deletion(
    deployments: list[Deployment], dev_with_flag: Deployment, prod_with_flag: Deployment
) -> None:
    for deployment in (*deployments, prod_with_flag):
        assert protected(deployment) >= set(STATEFUL_STACKS)
    assert protected(dev_with_flag) == set()


def test_the_database_is_protected_unless_environment_and_flag_allow_deletion(
    dev_with_flag: Deployment, prod_with_flag: Deployment
) -> None:
    def deletable(deployment: Deployment) -> bool:
        return not deployment.only("Database", "AWS::RDS::DBInstance")["DeletionProtection"]

    assert deletable(dev_with_flag)
    assert not deletable(prod_with_flag)


def test_every_log_group_is_encrypted_and_expires(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        for where, group in resources(deployment, ("AWS::Logs::LogGroup",)):
            assert "DataKey" in json.dumps(group["Properties"]["KmsKeyId"]), where
            assert group["Properties"]["RetentionInDays"] <= 3653, where


def test_every_function_writes_to_a_log_group_of_its_stack(deployments: list[Deployment]) -> None:
    """Also the functions of CDK's custom resources: Lambda would create a group that keeps its logs for ever."""
    for deployment in deployments:
        for part, template in deployment.templates.items():
            groups = {name for name, item in template["Resources"].items() if item["Type"] == "AWS::Logs::LogGroup"}
            for function in deployment.resources(part, "AWS::Lambda::Function"):
                assert function["LoggingConfig"]["LogGroup"]["Ref"] in groups, function.get("Description")


def test_named_zones_are_those_of_the_subnets(dev_deployment: Deployment, synthesize: Synthesize) -> None:
    zones = ("us-east-1b", "us-east-1d")
    named = synthesize(changed(dev(), network=NetworkConfig(zone_names=zones)))
    assert {item["AvailabilityZone"] for item in named.resources("Network", "AWS::EC2::Subnet")} == set(zones)
    assert all(
        "Fn::Select" in item["AvailabilityZone"] for item in dev_deployment.resources("Network", "AWS::EC2::Subnet")
    )
