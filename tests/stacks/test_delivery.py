"""The delivery roles: whom they trust, and what they may do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deployments import ROOT, as_list, text_of

from config.validation import ConfigError
from tools.iam_reference import problems, read

REPOSITORY, ISSUER = "acme/barflow", "token.actions.githubusercontent.com"
Template = dict[str, Any]


def synthesized(folder: Path, **context: str) -> Template:
    """Return the template. cdk-nag raises for a finding without a reason."""
    import aws_cdk as cdk

    from stacks.delivery import build

    app = cdk.App(outdir=str(folder), context={"repository": REPOSITORY, "env": "prod", **context})
    stack = build(app)
    app.synth()
    return dict(json.loads((folder / f"{stack.stack_name}.template.json").read_text()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("delivery")


@pytest.fixture(scope="module")
def template(folder: Path) -> Template:
    return synthesized(folder)


def of_type(template: Template, kind: str) -> list[dict[str, Any]]:
    return [item["Properties"] for item in template["Resources"].values() if item["Type"] == kind]


def statements(template: Template, role: str) -> list[dict[str, Any]]:
    """Return the statements of the inline policy of a role, Deliver or Read."""
    (policy,) = [item for item in of_type(template, "AWS::IAM::Policy") if role in item["Roles"][0]["Ref"]]
    return list(policy["PolicyDocument"]["Statement"])


def test_a_role_trusts_this_repository_in_one_github_environment_and_nothing_else(template: Template) -> None:
    trusted = {}
    for role in of_type(template, "AWS::IAM::Role"):
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        assert statement["Principal"] == {"Federated": {"Fn::GetAtt": ["GitHub", "Arn"]}}
        assert set(statement["Condition"]) == {"StringEquals"}
        claims = statement["Condition"]["StringEquals"]
        assert set(claims) == {f"{ISSUER}:aud", f"{ISSUER}:sub"}
        assert claims[f"{ISSUER}:aud"] == "sts.amazonaws.com"
        trusted[role["Description"]] = claims[f"{ISSUER}:sub"]
    assert trusted == {
        "Barflow prod: what the delivery workflow may deliver": "repo:acme/barflow:environment:prod",
        "Barflow prod: what the delivery workflow may read": "repo:acme/barflow:environment:prod-read",
    }


def test_the_provider_is_created_once_in_an_account(template: Template, tmp_path: Path) -> None:
    (provider,) = of_type(template, "AWS::IAM::OIDCProvider")
    assert provider["Url"] == f"https://{ISSUER}"
    assert provider["ClientIdList"] == ["sts.amazonaws.com"]
    second = synthesized(tmp_path, env="dev", github_provider="exists")
    assert of_type(second, "AWS::IAM::OIDCProvider") == []
    trusted = of_type(second, "AWS::IAM::Role")[0]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]
    assert text_of(trusted["Federated"]).endswith(f":oidc-provider/{ISSUER}")


def test_a_repository_with_ids_in_its_tokens_is_trusted_with_them(tmp_path: Path) -> None:
    newer = synthesized(tmp_path, repository="acme@12/barflow@345")
    (statement,) = of_type(newer, "AWS::IAM::Role")[0]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Condition"]["StringEquals"][f"{ISSUER}:sub"] == "repo:acme@12/barflow@345:environment:prod"


@pytest.mark.parametrize(
    "repository",
    ["", "acme", "acme@1/barflow", "acme@*/barflow@*", "acme/*", "*/barflow", "acme/barflow:environment:x", "acme/a/b"],
)
def test_a_repository_with_a_wildcard_or_of_another_form_is_rejected(tmp_path: Path, repository: str) -> None:
    with pytest.raises(ConfigError, match="give the GitHub repository as OWNER/NAME"):
        synthesized(tmp_path, repository=repository)


def assumed_by(template: Template, role: str) -> list[str]:
    """Return the names of the roles that a role may assume."""
    (statement,) = [item for item in statements(template, role) if item["Action"] == "sts:AssumeRole"]
    return [text_of(arn).split("role/")[1] for arn in as_list(statement["Resource"])]


def test_the_delivering_role_may_assume_only_the_roles_of_the_bootstrap(template: Template) -> None:
    found = {role: assumed_by(template, role) for role in ("Deliver", "Read")}
    here = "<AWS::AccountId>-<AWS::Region>"
    assert found == {
        "Deliver": [f"cdk-hnb659fds-{kind}-role-{here}" for kind in ("deploy", "file-publishing", "lookup")],
        "Read": [f"cdk-hnb659fds-lookup-role-{here}"],
    }


def test_the_reading_role_can_read_no_data_and_change_nothing(template: Template) -> None:
    (denied,) = [item for item in statements(template, "Read") if item["Effect"] == "Deny"]
    assert denied["Resource"] == "*"
    assert {"kms:Decrypt", "secretsmanager:GetSecretValue"} <= set(denied["Action"])
    (reading,) = [item for item in of_type(template, "AWS::IAM::Role") if "ManagedPolicyArns" in item]
    assert [text_of(arn) for arn in reading["ManagedPolicyArns"]] == [
        "arn:<AWS::Partition>:iam::aws:policy/ReadOnlyAccess"
    ]


def test_what_changes_something_is_limited_to_the_environment(template: Template) -> None:
    """By a name with the environment in it, or by the environment's tag."""
    reading = ("Describe", "Get", "List", "View", "Filter", "Validate", "CancelCommand")
    for item in statements(template, "Deliver"):
        names = as_list(item["Action"])
        changing = [
            name
            for name in names
            if name == "secretsmanager:GetSecretValue" or not name.split(":")[1].startswith(reading)
        ]
        if not changing or changing in (["sts:AssumeRole"], ["elasticmapreduce:PutAutoTerminationPolicy"]):
            continue
        resources = [text_of(arn) for arn in as_list(item["Resource"])]
        by_tag = "barflow:env" in json.dumps(item.get("Condition", {}))
        by_name = all("prod" in arn for arn in resources)
        assert by_tag or by_name or resources == ["arn:<AWS::Partition>:ssm:<AWS::Region>::document/AWS-RunShellScript"]


def test_every_action_and_condition_key_exists(template: Template, folder: Path) -> None:
    assert problems(read(folder)) == []


def test_the_policy_is_smaller_than_an_inline_policy_may_be(template: Template) -> None:
    assert len(json.dumps(statements(template, "Deliver"), separators=(",", ":"))) < 10_240


def test_the_module_describes_how_it_is_deployed() -> None:
    from stacks import delivery

    assert "-m stacks.delivery" in (delivery.__doc__ or "")


def test_the_delivering_role_has_every_permission_of_preflight(template: Template) -> None:
    """Also on the names that preflight asks for: those of the functions, and of the version of CDK's bootstrap."""
    documented = json.loads((ROOT / "docs/preflight-policy.json").read_text())["Statement"][0]["Action"]
    arns: dict[str, set[str]] = {}
    for statement in statements(template, "Deliver"):
        for action in as_list(statement["Action"]):
            arns.setdefault(action, set()).update(map(text_of, as_list(statement["Resource"])))
    assert set(documented) - arns.keys() == set()
    assert any(arn.endswith(":parameter/cdk-bootstrap/hnb659fds/version") for arn in arns["ssm:GetParameter"])
    assert any(arn.endswith(":function:barflow-prod-*") for arn in arns["lambda:GetFunctionConfiguration"])
