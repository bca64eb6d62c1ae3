"""What preflight takes from the settings and the templates, and the command as an operator runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from deployments import Deployment, schema_of
from moto_server import moto_server
from policy_sentry.querying.actions import get_action_data
from typer.testing import CliRunner, Result

from barflow.cli.main import app
from barflow.errors import BadInputError
from barflow.operations.clusters import cluster_request
from barflow.operations.preflight.names import KINDS
from barflow.operations.preflight.needs import Needs
from emulators.aws import account_apis  # noqa: F401  what the checks ask
from emulators.aws.access_analyzer import validate_policy
from emulators.aws.account import ACCOUNT, REGION, client_variables
from stacks.preflight import BUDGET_TAG, needs_of, stacks_of
from stacks.templates import NAMES, Resolver, Stack
from tools.iam_reference import policy_problems


def resolver_of(deployment: Deployment, region: str = REGION) -> Resolver:
    return Resolver(stacks_of(deployment.environment.name, deployment.assembly), ACCOUNT, region, "aws")


def needs(deployment: Deployment) -> Needs:
    return needs_of(deployment.environment, resolver_of(deployment))


def test_every_type_with_a_fixed_name_can_be_looked_up(deployments: list[Deployment]) -> None:
    assert set(NAMES) == set(KINDS)
    for deployment in deployments:
        found = {item.kind for item in needs(deployment).names}
        assert {"AWS::SecretsManager::Secret", "AWS::Glue::Database", "AWS::Athena::WorkGroup"} <= found


def test_no_other_resource_has_an_identifier_that_the_template_fixes(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        resolver = resolver_of(deployment)
        fixed = {
            body["Type"]
            for stack in resolver.stacks
            for _, body in stack.resources()
            if body["Type"].startswith("AWS::") and is_fixed(resolver, stack, body)
        }
        # These belong to a resource that has a name itself: a table to its database, the other to its function.
        assert fixed - set(NAMES) <= {"AWS::Glue::Table", "AWS::Lambda::EventInvokeConfig"}


def is_fixed(resolver: Resolver, stack: Stack, body: Mapping[str, Any]) -> bool:
    """Return whether the template gives the whole primary identifier of a resource, without a generated name."""
    schema = schema_of(body["Type"])
    values: list[Any] = []
    for path in schema["primaryIdentifier"]:
        found: Any = body
        for key in path.strip("/").replace("properties", "Properties", 1).split("/"):
            found = found.get(key) if isinstance(found, Mapping) else None
        values.append(found)
    return all(value is not None and resolver.is_fixed(stack, value) for value in values)


def test_every_policy_is_resolved_and_valid(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        policies = needs(deployment).policies
        assert len(policies) > 50
        assert [item.place for item in policies if "Fn::" in item.document or '"Ref"' in item.document] == []
        assert list(errors(needs(deployment))) == []
        kinds = {(item.kind, item.attached_to) for item in policies}
        assert kinds == {
            ("IDENTITY_POLICY", ""),
            ("RESOURCE_POLICY", ""),
            ("RESOURCE_POLICY", "AWS::S3::Bucket"),
            ("RESOURCE_POLICY", "AWS::IAM::AssumeRolePolicyDocument"),
        }


def errors(asked: Needs) -> Iterator[tuple[str, str]]:
    """Yield the errors in the policies, each with its place."""
    for item in asked.policies:
        for finding in validate_policy({"policyDocument": item.document, "policyType": item.kind})["findings"]:
            if finding["findingType"] == "ERROR":
                yield item.place, finding["issueCode"]


def test_the_resolved_policies_name_the_account_and_the_region(dev_deployment: Deployment) -> None:
    resolver = Resolver(stacks_of("dev", dev_deployment.assembly), "210987654321", "eu-west-1", "aws")
    text = " ".join(item.document for item in needs_of(dev_deployment.environment, resolver).policies)
    assert "arn:aws:sns:eu-west-1:210987654321:barflow-dev-alerts.fifo" in text
    assert REGION not in text


def test_a_function_of_cloudformation_that_cannot_be_resolved_is_an_error(dev_deployment: Deployment) -> None:
    resolver = resolver_of(dev_deployment)
    with pytest.raises(ValueError, match="uses Fn::Base64"):
        resolver.resolve(resolver.stacks[0], {"Fn::Base64": "x"})


def test_the_instances_are_those_of_the_cluster_and_two_hosts(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        on_demand, spot = Counter({deployment.environment.host.instance_type: 2}), Counter[str]()
        for fleet in cluster_request(deployment.contract, "run")["Instances"]["InstanceFleets"]:
            kind = fleet["InstanceTypeConfigs"][0]["InstanceType"]
            on_demand[kind] += fleet["TargetOnDemandCapacity"]
            spot[kind] += fleet["TargetSpotCapacity"]
        found = needs(deployment)
        assert (found.on_demand, found.spot) == (+on_demand, +spot)


def test_what_the_templates_create_is_counted(prod_deployment: Deployment) -> None:
    found = needs(prod_deployment)
    assert len(found.elastic_ips) == prod_deployment.environment.network.nat_gateways == 2
    assert len(found.vpcs) == 1
    functions = [
        item for part in prod_deployment.templates for item in prod_deployment.resources(part, "AWS::Lambda::Function")
    ]
    assert sum(found.reserved.values()) == sum(item.get("ReservedConcurrentExecutions", 0) for item in functions)
    assert (found.bootstrap_version, found.bootstrap_parameter) == (6, "/cdk-bootstrap/hnb659fds/version")
    assert found.stacks == tuple(stack.stack_name for stack in prod_deployment.stacks.values())


def test_a_region_that_lacks_a_resource_type_is_a_problem(dev_deployment: Deployment) -> None:
    found = needs_of(dev_deployment.environment, resolver_of(dev_deployment, "eu-north-1"))
    assert "CloudFormation has no AWS::Budgets::Budget there" in found.region_problems
    assert needs(dev_deployment).region_problems == ()


def test_the_secrets_of_the_operator_are_those_of_the_runbook(dev_deployment: Deployment) -> None:
    text = (Path(__file__).parents[2] / "barflow" / "operations" / "runbook.md.j2").read_text()
    chapter = text.split("## Store the secrets")[1].split("\n## ")[0]
    outputs = dev_deployment.templates["Secrets"]["Outputs"]
    named = {item["Value"] for key, item in outputs.items() if f"Secrets.{key} " in chapter}
    assert len(named) == 5
    assert set(needs(dev_deployment).operator_secrets) == named


def test_the_tag_that_preflight_and_the_runbook_activate_is_the_budgets(dev_deployment: Deployment) -> None:
    (budget,) = dev_deployment.resources("Observability", "AWS::Budgets::Budget")
    assert budget["Budget"]["CostFilters"] == {"TagKeyValue": [f"user:{BUDGET_TAG}$dev"]}
    runbook = (Path(__file__).parents[2] / "barflow" / "operations" / "runbook.md.j2").read_text()
    assert f"--cost-allocation-tags-status TagKey={BUDGET_TAG},Status=Active" in runbook


def test_the_driver_is_looked_for_where_the_storage_stack_says(dev_deployment: Deployment) -> None:
    stack, *keys = needs(dev_deployment).driver_outputs
    assert stack == dev_deployment.stacks["Storage"].stack_name
    assert set(keys) <= set(dev_deployment.templates["Storage"]["Outputs"])


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Point the command at an account that is ready. Yield its endpoint."""
    with moto_server() as url:
        for name, value in client_variables(url).items():
            monkeypatch.setenv(name, value)
        ssm, iam = (boto3.client(name, endpoint_url=url, region_name=REGION) for name in ("ssm", "iam"))
        ssm.put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="33", Type="String")
        iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
        yield url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["preflight", *arguments])


def test_the_command_prints_one_line_per_check_and_what_fixes_it(account: str, dev_deployment: Deployment) -> None:
    arguments = ("--env", "dev", "--assembly", str(dev_deployment.assembly))
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert "ok    CDK bootstrap: version 33, needs 6\n" in done.stdout
    assert "note  secrets: 5 to set after the deployment\n      set them as the runbook describes" in done.stdout
    boto3.client("iam", endpoint_url=account).delete_role(RoleName="AWSServiceRoleForEC2Spot")
    done = run(*arguments)
    assert done.exit_code == 1
    assert "FAIL  service-linked roles: there is no AWSServiceRoleForEC2Spot" in done.stdout
    assert "\n      aws iam create-service-linked-role --aws-service-name spot.amazonaws.com\n" in done.stdout
    assert re.match(r"1 of \d+ checks failed\. Nothing was changed\.", done.stderr.splitlines()[-1])


def test_the_command_prints_one_json_object(account: str, dev_deployment: Deployment) -> None:
    done = run("--env", "dev", "--json", "--assembly", str(dev_deployment.assembly))
    printed = json.loads(done.stdout)
    assert (done.exit_code, printed["ok"]) == (0, True)
    assert {tuple(check) for check in printed["checks"]} == {("name", "ok", "found", "fix")}
    assert printed["checks"][0]["name"] == "credentials"


def test_without_credentials_the_command_makes_no_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in client_variables("http://localhost:9").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    done = run("--env", "dev", "--json")
    (check,) = json.loads(done.stdout)["checks"]
    assert (done.exit_code, check["ok"], check["name"]) == (1, False, "credentials")
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("variables", "found"),
    [({}, "no region"), ({"AWS_REGION": "eu-west-1"}, "AWS does not accept the credentials (NoCredentialsError")],
)
def test_the_command_reads_the_region_from_the_variable_that_the_cdk_reads(
    variables: dict[str, str], found: str
) -> None:
    nobody = client_variables("http://localhost:9").items()
    environment = {name: value for name, value in nobody if "KEY" not in name and "REGION" not in name}
    command = [str(Path(sys.executable).with_name("barflow")), "preflight", "--env", "dev"]
    done = subprocess.run(command, env={**environment, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(f"FAIL  credentials: {found}")
    assert done.stderr == "1 of 1 checks failed. Nothing was changed. Fix them, then run this command again.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--env", "test"), "there is no environment 'test'"),
        (("--env", "dev", "--assembly", "."), "--assembly . is not a cloud assembly"),
    ],
)
def test_bad_input_is_one_error(account: str, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, BadInputError)
    assert str(done.exception).startswith(message)


def test_an_assembly_of_another_environment_is_bad_input(account: str, prod_deployment: Deployment) -> None:
    done = run("--env", "dev", "--assembly", str(prod_deployment.assembly))
    assert isinstance(done.exception, BadInputError)
    assert "has no stack of dev" in str(done.exception)


def test_the_documented_policy_has_the_permissions_of_the_table_and_only_reads() -> None:
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "deploy.md").read_text()
    policy = json.loads((docs / "preflight-policy.json").read_text())
    (statement,) = policy["Statement"]
    table = text.split("| check | fails if | permissions |")[1].split("\n\n")[0]
    assert statement["Action"] == sorted(set(re.findall(r"`([\w-]+:\w+)`", table)))
    assert policy_problems(policy) == []
    levels = {action: get_action_data(*action.split(":")) for action in statement["Action"]}
    found = {action: data[action.split(":")[0]][0]["access_level"] for action, data in levels.items()}
    assert {action: level for action, level in found.items() if level not in ("Read", "List")} == {}
