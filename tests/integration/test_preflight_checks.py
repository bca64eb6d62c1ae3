"""Preflight finds what would fail in an account: each check passes in a good account and fails on a planted defect."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from account_needs import SECRET, STACK, Ask, failure, needs, policy
from botocore.exceptions import ClientError, EndpointConnectionError

import emulators.aws.access_analyzer  # ValidatePolicy
import emulators.aws.resource_types  # noqa: F401  rulesets
from barflow.operations.checks import Check
from barflow.operations.preflight import services
from barflow.operations.preflight.account import Account, find_account
from barflow.operations.preflight.names import KINDS
from barflow.operations.preflight.run import answers, run
from barflow.warehouse.authorities import Authority
from emulators.aws import account_apis
from emulators.aws.account import ACCOUNT, REGION, client_variables

SPOT_ROLE = "service-linked roles"


def test_a_ready_account_passes_every_check(ask: Ask) -> None:
    checks = ask(needs())
    assert [check for check in checks.values() if not check.ok] == []
    assert {f"names: {kind.word}s" for kind in KINDS.values()} <= set(checks)
    notes = [name for name, check in checks.items() if check.fix]
    assert notes == ["JDBC driver", "secrets"]


def test_without_credentials_there_is_one_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in client_variables("http://localhost:9").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    check, account = find_account(None, None)
    assert account is None
    assert (check.ok, "NoCredentialsError" in check.found) == (False, True)
    assert "aws sts get-caller-identity" in check.fix


def test_without_a_region_there_is_one_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in client_variables("http://localhost:9").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    check, account = find_account(None, None)
    assert (check.found, check.fix, account) == ("no region", "export AWS_REGION=us-east-1", None)


def test_a_profile_that_does_not_exist_is_one_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    check, account = find_account(None, REGION)
    assert (check.ok, account) == (False, None)
    assert "nobody" in check.found


def test_another_account_than_the_environments_is_found(aws: Callable[[str], Any]) -> None:
    check, account = find_account("210987654321", REGION)
    assert (check.ok, account) == (False, None)
    assert "the environment is deployed to account 210987654321" in check.found
    check, account = find_account(ACCOUNT, REGION)
    assert (check.ok, account and account.number) == (True, ACCOUNT)
    assert check.found.endswith(f" in {REGION}")


def test_a_region_that_lacks_a_type_is_found(aws: Callable[[str], Any], ask: Ask) -> None:
    check = failure(ask(needs(region_problems=("EC2 has no t4g there",)), "region"))
    assert (check.name, check.found) == ("region", "EC2 has no t4g there")


def test_too_few_zones_are_found(aws: Callable[[str], Any], ask: Ask) -> None:
    check = failure(ask(needs(zones=7), "availability zones"))
    assert check.found.startswith(f"{REGION} has {REGION}a, ")
    assert check.found.endswith("; the VPC needs 7")


def test_a_zone_that_the_region_lacks_is_found(ask: Ask) -> None:
    names = (f"{REGION}a", "eu-west-1b")
    check = failure(ask(needs(zone_names=names), "availability zones"))
    assert check.found.endswith(f"; the VPC needs {REGION}a, eu-west-1b")


@pytest.mark.parametrize(("version", "state"), [("5", "version 5"), (None, "us-east-1 is not bootstrapped")])
def test_an_old_or_missing_bootstrap_is_found(
    aws: Callable[[str], Any], ask: Ask, version: str | None, state: str
) -> None:
    name = needs().bootstrap_parameter
    if version:
        aws("ssm").put_parameter(Name=name, Value=version, Type="String", Overwrite=True)
    else:
        aws("ssm").delete_parameter(Name=name)
    check = failure(ask(needs(), "CDK bootstrap"))
    assert (check.name, check.found) == ("CDK bootstrap", f"{state}, needs 6")
    assert check.fix == f"npx cdk bootstrap aws://{ACCOUNT}/{REGION}"


@pytest.mark.parametrize(
    ("state", "protected", "fix"),
    [
        ("UPDATE_ROLLBACK_FAILED", True, "continue-update-rollback"),
        ("ROLLBACK_FAILED", False, "delete-stack"),
        ("DELETE_FAILED", False, "npx cdk destroy"),
        ("UPDATE_IN_PROGRESS", True, "describe-stacks"),
        ("ROLLBACK_COMPLETE", True, "--no-enable-termination-protection"),
        ("ROLLBACK_COMPLETE", False, None),
        ("REVIEW_IN_PROGRESS", False, None),
    ],
)
def test_a_stack_that_cannot_be_updated_is_found(state: str, protected: bool, fix: str | None) -> None:
    stack = {"StackName": STACK, "StackStatus": state, "EnableTerminationProtection": protected}
    cloudformation = SimpleNamespace(describe_stacks=lambda StackName: {"Stacks": [stack]})
    (check,) = answers("stacks", needs(), Account(ACCOUNT, "aws", REGION, lambda name: cloudformation))
    assert check.ok == (fix is None)
    if fix is not None:
        assert check.name == f"stack {STACK}"
        assert check.found.startswith(f"it is in {state}")
        assert fix in check.fix


@pytest.mark.parametrize(
    ("quota", "value", "name", "state"),
    [
        (("ec2", "L-1216C47A"), 5, "quota: vCPUs on demand", "needs 8 (2 t4g.small, 1 m6g.xlarge), 0 in use already"),
        (("ec2", "L-34B43A08"), 2, "quota: vCPUs of Spot", "needs 4 (1 m6g.xlarge), 0 in use already"),
        (("ec2", "L-0263D0A3"), 0, "quota: Elastic IP addresses", "needs 1 more, 0 in use already"),
        (("vpc", "L-F678F1CE"), 1, "quota: VPCs", "needs 1 more, 1 in use already"),
    ],
)
def test_a_quota_without_room_is_found_and_its_command_raises_it(
    aws: Callable[[str], Any], ask: Ask, quota: tuple[str, str], value: float, name: str, state: str
) -> None:
    question = "quota: vCPUs" if "vCPUs" in name else name
    account_apis.QUOTAS[quota] = value
    check = failure(ask(needs(), question))
    assert (check.name, check.found) == (name, f"{state}, the quota is {value}")
    service, code = quota
    wanted = f"--service-code {service} --quota-code {code} --desired-value "
    raised = float(check.fix.split(wanted)[1])
    aws("service-quotas").request_service_quota_increase(ServiceCode=service, QuotaCode=code, DesiredValue=raised)
    assert ask(needs(), question)[name].ok


def test_a_quota_that_the_account_has_no_value_of_is_awss_default(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(account_apis.QUOTAS, ("ec2", "L-1216C47A"))
    check = failure(ask(needs(), "quota: vCPUs"))
    assert check.found.endswith("the quota is 5")


def test_an_instance_family_with_another_quota_is_named(ask: Ask) -> None:
    checks = ask(needs(on_demand={"t4g.small": 2, "x2gd.xlarge": 1}), "quota: vCPUs")
    assert checks["quota: vCPUs"].found.startswith("not checked for x2gd.xlarge")
    assert checks["quota: vCPUs on demand"].found.startswith("needs 4 (2 t4g.small)")


def test_instances_of_others_count_and_those_of_the_environment_do_not(aws: Callable[[str], Any], ask: Ask) -> None:
    image = aws("ec2").describe_images()["Images"][0]["ImageId"]

    def start(kind: str, env: str) -> None:
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "barflow:env", "Value": env}]}]
        aws("ec2").run_instances(ImageId=image, InstanceType=kind, MinCount=1, MaxCount=1, TagSpecifications=tags)

    start("m6g.2xlarge", "staging")
    start("m6g.2xlarge", "dev")
    assert "8 in use already" in ask(needs(), "quota: vCPUs")["quota: vCPUs on demand"].found


@pytest.mark.parametrize(("total", "ok"), [(10, False), (100, False), (101, True)])
def test_an_account_that_cannot_reserve_concurrency_is_found(ask: Ask, total: float, ok: bool) -> None:
    name = "quota: Lambda concurrent executions"
    account_apis.QUOTAS["lambda", "L-B99A9384"] = total
    check = ask(needs(), name)[name]
    assert check.ok == ok
    assert check.found == f"reserves 1, {total} of {total} are unreserved, and Lambda keeps 100 of them"
    assert ok or "--desired-value 101, or set reserve_concurrency=False" in check.fix
    assert ask(needs(reserved={}), name)[name].ok


def test_a_missing_role_of_spot_is_found_and_its_command_creates_it(aws: Callable[[str], Any], ask: Ask) -> None:
    aws("iam").delete_role(RoleName="AWSServiceRoleForEC2Spot")
    check = failure(ask(needs(), SPOT_ROLE))
    assert (check.name, check.fix) == (
        SPOT_ROLE,
        "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com",
    )
    assert ask(needs(spot={}), SPOT_ROLE) == {}
    aws("iam").create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    assert ask(needs(), SPOT_ROLE)[SPOT_ROLE].ok


def test_an_instance_type_that_emr_lacks_is_found(aws: Callable[[str], Any], ask: Ask) -> None:
    check = failure(ask(needs(emr_types=("m6g.xlarge", "m7g.large")), "EMR"))
    assert (check.name, check.found) == ("EMR", f"emr-7.13.0 has no m7g.large in {REGION}")


@pytest.mark.parametrize(
    ("version", "instance_class", "ok"),
    [
        ("18.3", "db.t4g.micro", True),
        ("18", "db.t4g.micro", True),
        ("18.99", "db.t4g.micro", False),
        ("18.3", "db.t1g.micro", False),
    ],
)
def test_a_database_that_rds_does_not_create_is_found(ask: Ask, version: str, instance_class: str, ok: bool) -> None:
    check = ask(needs(database_version=version, database_class=instance_class), "RDS")["RDS"]
    assert check.ok == ok
    assert check.found.startswith(f"RDS has {'' if ok else 'no '}{instance_class} with PostgreSQL {version}")


def test_a_policy_with_an_action_that_does_not_exist_is_found_once(aws: Callable[[str], Any], ask: Ask) -> None:
    wrong = policy("s3:GetObjct", resource="arn:aws:s3:::bucket/*")
    check = failure(ask(needs(policies=(wrong, wrong)), "policies"))
    assert check.name == f"policy {STACK}/Role PolicyDocument"
    assert check.found == "INVALID_ACTION: The action s3:GetObjct does not exist."
    assert "access-analyzer-reference-policy-checks-error-invalid-action" in check.fix


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{", "JSON_SYNTAX_ERROR"),
        ('{"Version": "2012-10-17"}', "MISSING_STATEMENT"),
        (policy("s9:GetObject").document, "INVALID_SERVICE_IN_ACTION"),
        (policy("s3:GetObject", resource="bucket/*").document, "INVALID_ARN_PREFIX"),
        (policy("s3:GetObject", resource="arn:aws:s3").document, "MISSING_ARN_FIELD"),
    ],
)
def test_access_analyzers_error_is_the_result(ask: Ask, document: str, code: str) -> None:
    wrong = replace(policy("s3:GetObject"), document=document)
    assert failure(ask(needs(policies=(wrong,)), "policies")).found.startswith(f"{code}: ")


def test_access_analyzer_rejects_an_unknown_kind_of_policy(aws: Callable[[str], Any]) -> None:
    with pytest.raises(ClientError, match="ValidationException"):
        aws("accessanalyzer").validate_policy(policyDocument="{}", policyType="POLICY")


def test_a_warning_about_a_policy_is_a_note(ask: Ask) -> None:
    checks = ask(needs(policies=(policy("iam:PassRole"),)), "policies")
    note = checks[f"policy {STACK}/Role PolicyDocument"]
    assert (note.ok, note.found.split(":")[0]) == (True, "PASS_ROLE_WITH_STAR_IN_RESOURCE")
    assert checks["policies"].ok


def test_a_budget_tag_that_is_not_active_is_a_note_and_its_command_activates_it(
    aws: Callable[[str], Any], ask: Ask
) -> None:
    account_apis.ACTIVE_TAGS.clear()
    check = ask(needs(), "budget tag")["budget tag"]
    assert check.ok
    assert "the budget counts nothing yet" in check.found
    assert "update-cost-allocation-tags-status" in check.fix
    assert "TagKey=barflow:env,Status=Active" in check.fix
    aws("ce").update_cost_allocation_tags_status(
        CostAllocationTagsStatus=[{"TagKey": "barflow:env", "Status": "Active"}]
    )
    assert ask(needs(), "budget tag")["budget tag"].fix == ""


def test_a_driver_that_is_not_installed_is_a_note_with_its_command(aws: Callable[[str], Any], ask: Ask) -> None:
    assert ask(needs(), "JDBC driver")["JDBC driver"].found.startswith("to install after the deployment")
    uri = "s3://code/drivers/postgresql-1.jar"
    template = {
        "Resources": {"Code": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "code"}}},
        "Outputs": {"JdbcDriver": {"Value": uri}, "JdbcDriverSha256": {"Value": "0ff"}},
    }
    aws("cloudformation").create_stack(StackName="Barflow-dev-Storage", TemplateBody=json.dumps(template))
    note = ask(needs(), "JDBC driver")["JDBC driver"]
    assert (note.ok, note.found.startswith(f"{uri} is not there")) == (True, True)
    assert note.fix.endswith(f"aws s3 cp postgresql-1.jar {uri}")
    aws("s3").put_object(Bucket="code", Key="drivers/postgresql-1.jar", Body=b"jar")
    assert ask(needs(), "JDBC driver")["JDBC driver"] == Check("JDBC driver", True, f"{uri} is there")


def test_a_secret_that_still_has_its_first_value_is_a_note(aws: Callable[[str], Any], ask: Ask) -> None:
    assert ask(needs(), "secrets")["secrets"].found == "1 to set after the deployment"
    aws("secretsmanager").create_secret(Name=SECRET.name, SecretString="x")
    note = ask(needs(), "secrets")["secrets"]
    assert (note.ok, note.found) == (True, "still placeholders: barflow/dev/slack")
    assert "barflow runbook --env dev" in note.fix
    aws("secretsmanager").put_secret_value(SecretId=SECRET.name, SecretString="xoxb-1")
    assert ask(needs(), "secrets")["secrets"] == Check("secrets", True, "1 are set")


def with_error(aws: Callable[[str], Any], service: str, method: str, error: Exception) -> Account:
    """Return the account with a call that fails."""

    def fail(*given: Any, **named: Any) -> Any:
        raise error

    def client(name: str) -> Any:
        return SimpleNamespace(**{method: fail}) if name == service else aws(name)

    return Account(ACCOUNT, "aws", REGION, client)


def test_a_denied_call_names_its_permission_and_stops_no_other_check(aws: Callable[[str], Any]) -> None:
    text = "User: arn:aws:iam::1:user/x is not authorized to perform: iam:GetRole on resource: role x because no policy"
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": text}}, "GetRole")
    checks = list(run(needs(), with_error(aws, "iam", "get_role", error)))
    (check,) = (item for item in checks if not item.ok)
    assert (check.name, check.found) == (SPOT_ROLE, "not checked: iam:GetRole is denied")
    assert check.fix.startswith("allow iam:GetRole to your role")
    assert checks[-1].name == "secrets"


def test_a_denied_call_about_the_budget_is_a_note(aws: Callable[[str], Any]) -> None:
    denied = {"Error": {"Code": "AccessDeniedException", "Message": "Linked account"}}
    error = ClientError(denied, "ListCostAllocationTags")
    (check,) = answers("budget tag", needs(), with_error(aws, "ce", "list_cost_allocation_tags", error))
    assert (check.ok, check.found) == (True, "not checked: ListCostAllocationTags is denied")


def test_a_service_that_does_not_answer_fails_its_check_in_one_line(aws: Callable[[str], Any]) -> None:
    error = EndpointConnectionError(endpoint_url="https://access-analyzer.example.com")
    (check,) = answers("policies", needs(), with_error(aws, "accessanalyzer", "get_paginator", error))
    assert (check.ok, check.found.startswith("not checked: Could not connect")) == (False, True)


def test_a_region_whose_certificates_the_bundle_lacks_is_found(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Authority(f"Amazon RDS {REGION} Root CA RSA2048 G1", datetime.now(UTC) + timedelta(days=300))
    expired = replace(known, valid_until=datetime.now(UTC) - timedelta(days=1))
    elsewhere = replace(known, name="Amazon RDS eu-nowhere-9 Root CA RSA2048 G1")
    for bundle in ([elsewhere], [expired]):
        monkeypatch.setattr(services, "authorities", lambda bundle=bundle: bundle)
        check = failure(ask(needs(), "RDS certificates"))
        assert f"no valid certificate of RDS in {REGION}" in check.found
        assert "tools/refresh_rds_authorities.py" in check.fix
    monkeypatch.setattr(services, "authorities", lambda: [known, elsewhere])
    note = ask(needs(), "RDS certificates")["RDS certificates"]
    assert note.ok
    assert known.name in note.found
    assert elsewhere.name not in note.found
    assert note.fix
