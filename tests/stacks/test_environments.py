"""What holds for every stack of every environment: clean under the checks, reproducible, and its data safe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from deployments import Deployment, Synthesize

from config.environments import ENVIRONMENTS, dev, prod

STATEFUL = ("Secrets", "Storage", "Database")
KEPT = (
    *("AWS::KMS::Key", "AWS::S3::Bucket", "AWS::RDS::DBInstance", "AWS::SecretsManager::Secret"),
    *("AWS::EC2::Volume", "AWS::DynamoDB::Table", "AWS::EFS::FileSystem"),
)
FLAG = {"allow_data_deletion": "true"}

# Where AWS offers nothing narrower than every resource: the actions, and why. EMR's RunJobFlow is bound by a tag.
UNBOUND = {
    "an interface of a function or a Glue worker in the VPC": {
        *("ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"),
        "ec2:UnassignPrivateIpAddresses",
    },
    "a question about what there is": {
        *("ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups"),
        *("ec2:DescribeSubnets", "ec2:DescribeVpcAttribute", "ec2:DescribeVpcEndpoints"),
        *("elasticmapreduce:ListClusters", "glue:GetCrawlerMetrics", "glue:GetSecurityConfiguration"),
    },
    "a cluster or a metric that does not exist yet, bound by a condition on its tag or namespace": {
        *("elasticmapreduce:RunJobFlow", "cloudwatch:PutMetricData"),
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
    """Every statement that allows something to a role, with where it is."""
    for where, resource in resources(deployment, ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::Role")):
        properties = resource["Properties"]
        inline = [item["PolicyDocument"] for item in properties.get("Policies", [])]
        for document in [*inline, *([properties["PolicyDocument"]] if "PolicyDocument" in properties else [])]:
            yield from ((where, item) for item in document["Statement"] if item["Effect"] == "Allow")


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def protected(deployment: Deployment) -> set[str]:
    """The stacks under termination protection."""
    artifacts = json.loads((deployment.assembly / "manifest.json").read_text())["artifacts"]
    return {part for part, stack in deployment.stacks.items()
            if artifacts[stack.stack_name]["properties"].get("terminationProtection")}  # fmt: skip


def test_cdk_nag_finds_nothing_that_was_not_answered(deployments: list[Deployment]) -> None:
    assert {finding for deployment in deployments for finding in deployment.findings} == set()


def test_cdk_nag_did_look(synthesize: Synthesize, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stacks.database.acknowledge", lambda *given: None)
    found = {rule for rule, _ in synthesize(dev()).findings}
    assert {"AwsSolutions-RDS10", "NIST.800.53.R5-RDSMultiAZSupport"} <= found


def test_cfn_lint_finds_no_error(deployments: list[Deployment]) -> None:
    templates = [path for deployment in deployments for path in sorted(deployment.assembly.glob("*.template.json"))]
    assert len(templates) == sum(len(deployment.stacks) for deployment in deployments)
    linter = [str(Path(sys.executable).with_name("cfn-lint")), "--non-zero-exit-code", "error", "--format", "parseable"]
    done = subprocess.run([*linter, "-t", *map(str, templates)], capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ":E" in line]
    assert (done.returncode, errors) == (0, []), done.stderr


def test_nothing_is_looked_up_while_synthesizing(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert "missing" not in json.loads((deployment.assembly / "manifest.json").read_text())


def test_the_same_environment_gives_the_same_templates(synthesize: Synthesize, dev_deployment: Deployment) -> None:
    assert synthesize(dev()).templates == dev_deployment.templates


def test_stacks_are_named_by_environment_and_part_and_tagged(deployments: list[Deployment]) -> None:
    assert [deployment.environment.name for deployment in deployments] == list(ENVIRONMENTS)
    for deployment in deployments:
        name = deployment.environment.name
        assert {stack.stack_name for stack in deployment.stacks.values()} == {
            f"Barflow-{name}-{part}" for part in deployment.stacks
        }
        manifest = json.loads((deployment.assembly / "manifest.json").read_text())["artifacts"]
        for part, stack in deployment.stacks.items():
            tags = manifest[stack.stack_name]["properties"]["tags"]
            assert tags == {"barflow:env": name, "barflow:stack": part}


def test_no_role_may_do_everything_of_anything(deployments: list[Deployment]) -> None:
    wild = {
        (where, action)
        for deployment in deployments
        for where, statement in statements(deployment)
        for action in listed(statement["Action"])
        if "*" in action
    }
    assert wild == set()


def test_a_right_on_every_resource_is_one_that_aws_cannot_bind(deployments: list[Deployment]) -> None:
    known = set().union(*UNBOUND.values())
    unbound = {
        (where, action, bool(statement.get("Condition")))
        for deployment in deployments
        for where, statement in statements(deployment)
        for action in listed(statement["Action"])
        if "*" in listed(statement["Resource"])
    }
    assert {(where, action) for where, action, _ in unbound if action not in known} == set()
    assert {action for _, action, _ in unbound} == known, "the list names what nobody needs any more"
    needs_condition = {"elasticmapreduce:RunJobFlow", "cloudwatch:PutMetricData"}
    assert {item for item in unbound if item[1] in needs_condition and not item[2]} == set()


def test_nobody_may_assume_a_role_but_a_service_of_aws(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        for where, role in resources(deployment, ("AWS::IAM::Role",)):
            for statement in role["Properties"]["AssumeRolePolicyDocument"]["Statement"]:
                assert set(statement["Principal"]) == {"Service"}, where


def test_data_outlives_its_stack_unless_both_keys_are_turned(
    deployments: list[Deployment], dev_with_flag: Deployment, prod_with_flag: Deployment
) -> None:
    for deployment in (*deployments, prod_with_flag):
        kept = dict(resources(deployment, KEPT))
        assert kept
        assert {
            where: item["DeletionPolicy"] for where, item in kept.items() if item["DeletionPolicy"] != "Retain"
        } == {}
        assert {item["UpdateReplacePolicy"] for item in kept.values()} == {"Retain"}
    assert {item["DeletionPolicy"] for _, item in resources(dev_with_flag, KEPT)} == {"Delete"}


def test_stacks_with_data_are_protected_unless_both_keys_are_turned(
    deployments: list[Deployment], dev_with_flag: Deployment, prod_with_flag: Deployment
) -> None:
    for deployment in (*deployments, prod_with_flag):
        assert protected(deployment) >= set(STATEFUL)
    assert protected(dev_with_flag) == set()


def test_only_both_keys_take_the_protection_off_the_database(
    dev_with_flag: Deployment, prod_with_flag: Deployment
) -> None:
    def deletable(deployment: Deployment) -> bool:
        return not deployment.only("Database", "AWS::RDS::DBInstance")["DeletionProtection"]

    assert deletable(dev_with_flag)
    assert not deletable(prod_with_flag)


def test_every_log_group_is_encrypted_and_ends(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        for where, group in resources(deployment, ("AWS::Logs::LogGroup",)):
            assert "DataKey" in json.dumps(group["Properties"]["KmsKeyId"]), where
            assert group["Properties"]["RetentionInDays"] <= 3653, where
