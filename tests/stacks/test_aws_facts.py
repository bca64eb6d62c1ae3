"""Every template asks only for what AWS accepts, by the facts in config/aws."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
from deployments import Deployment

from barflow.contract import RuntimeContract
from barflow.operations import clusters
from config import versions
from config.aws import checks, facts
from config.environment import EmrConfig, Environment, LogDays

RUN = "20250702T200000Z-process-3fa9c1"


def resources(deployment: Deployment) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield each resource of an environment: where it is, its type, its properties."""
    for part, template in deployment.templates.items():
        for name, resource in template["Resources"].items():
            yield f"{part}/{name}", resource["Type"], resource.get("Properties", {})


def problems(deployment: Deployment) -> list[str]:
    """Return what AWS would reject or ignore in an environment."""
    return [
        f"{where}: {problem}"
        for where, kind, properties in resources(deployment)
        for problem in checks.resource_problems(kind, properties)
    ]


def planted(deployment: Deployment, kind: str, **properties: Any) -> list[str]:
    """Return the problems of an environment's first resource of a type with other properties."""
    _, _, found = next(item for item in resources(deployment) if item[1] == kind)
    return checks.resource_problems(kind, copy.deepcopy(dict(found)) | properties)


def test_every_resource_asks_for_what_aws_accepts(deployments: list[Deployment]) -> None:
    assert [problem for deployment in deployments for problem in problems(deployment)] == []


def test_every_kind_of_check_finds_a_resource_to_check(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert set(checks.CHECKS) <= {kind for _, kind, _ in resources(deployment)}


def test_every_cluster_asks_for_instance_types_of_its_release(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert checks.cluster_problems(clusters.cluster_request(deployment.contract, RUN)) == []


def test_an_instance_type_that_the_release_lacks_is_found(dev_deployment: Deployment) -> None:
    contract: RuntimeContract = dev_deployment.contract
    emr = contract.emr.model_copy(update={"core_instance": "m7g.large", "task_count": 1})
    request = clusters.cluster_request(contract.model_copy(update={"emr": emr}), RUN)
    expected = "emr-7.13.0 has no instance type m7g.large; m7g comes as xlarge, 2xlarge, 4xlarge, 8xlarge, 12xlarge"
    assert [problem.removesuffix(", 16xlarge") for problem in checks.cluster_problems(request)] == [expected] * 2
    groups = {"ReleaseLabel": "emr-6.0.0", "Instances": {"InstanceGroups": [{"InstanceType": "t4g.large"}]}}
    assert checks.cluster_problems(groups) == [
        "config/aws/emr.json is of emr-7.13.0, and the cluster asks for emr-6.0.0",
        "emr-7.13.0 has no instance type t4g.large; it has no t4g",
    ]


@pytest.mark.parametrize(
    ("kind", "properties", "problem"),
    [
        ("AWS::RDS::DBInstance", {"EngineVersion": "18.99"}, "RDS has no PostgreSQL 18.99"),
        ("AWS::RDS::DBInstance", {"EngineVersion": "17.1"}, "RDS no longer creates instances of PostgreSQL 17.1"),
        ("AWS::RDS::DBInstance", {"DBInstanceClass": "db.c7g.large"}, "RDS for PostgreSQL has no class db.c7g.large"),
        (
            "AWS::RDS::DBParameterGroup",
            {"Parameters": {"log_connections": "1"}},
            "postgres18 rejects log_connections=1; it accepts receipt,authentication,authorization,setup_durations,all",
        ),
        (
            "AWS::RDS::DBParameterGroup",
            {"Parameters": {"tcp_keepalives_idle": "half"}},
            "postgres18 rejects tcp_keepalives_idle=half; it accepts 0-2147483647",
        ),
        (
            "AWS::RDS::DBParameterGroup",
            {"Parameters": {"made_up": "1"}},
            "config/aws/rds.json has no parameter made_up of postgres18",
        ),
        ("AWS::RDS::DBParameterGroup", {"Family": "postgres99"}, "config/aws/rds.json has no parameters of postgres99"),
        (
            "AWS::Glue::Job",
            {"DefaultArguments": {"--continuous-log-logGroup": "/aws-glue/barflow"}},
            "Glue 5.1 ignores --continuous-log-logGroup; it takes --custom-logGroup-prefix",
        ),
        (
            "AWS::Glue::Job",
            {"DefaultArguments": {"--custom-loggroup-prefix": "/aws-glue/barflow"}},
            "Glue's own argument is written otherwise than --custom-loggroup-prefix",
        ),
        ("AWS::Glue::Job", {"GlueVersion": "5.9"}, "there is no Glue 5.9"),
        ("AWS::Glue::Job", {"WorkerType": "G.3X"}, "Glue has no worker type G.3X"),
        ("AWS::Glue::Job", {"Command": {"PythonVersion": "2"}}, "Glue 5.1 runs Python 3, and the job asks for 2"),
        ("AWS::Lambda::Function", {"Runtime": "python3.99"}, "Lambda has no runtime python3.99"),
        (
            "AWS::Lambda::Function",
            {"Runtime": "python3.8"},
            "Lambda's runtime python3.8 is deprecated since 2024-10-14",
        ),
        ("AWS::Lambda::Function", {"Architectures": ["riscv"]}, "Lambda has no architecture riscv"),
        ("AWS::Lambda::Function", {"Timeout": 901}, "Lambda's Timeout is from 1 to 900, and the function asks for 901"),
        ("AWS::Lambda::Function", {"MemorySize": 64}, "Lambda's MemorySize is from 128 to 10240"),
        ("AWS::Logs::LogGroup", {"RetentionInDays": 31}, "CloudWatch Logs has no retention of 31 days"),
        ("AWS::Logs::LogGroup", {"RetentionInDays": None}, "the log group has no retention"),
    ],
)
def test_what_aws_rejects_or_ignores_is_found(
    kind: str, properties: dict[str, Any], problem: str, dev_deployment: Deployment
) -> None:
    assert planted(dev_deployment, kind) == []
    found = planted(dev_deployment, kind, **properties)
    assert found
    assert all(item.startswith(problem) for item in found)


def test_a_list_parameter_takes_several_values_and_a_range_its_ends() -> None:
    def rejected(name: str, value: str, family: str = "postgres18") -> bool:
        return checks.parameter_problem(family, name, value) is not None

    assert not rejected("log_connections", "receipt,authentication")
    assert rejected("log_connections", "receipt,everything")
    assert not rejected("log_connections", "1", "postgres17")
    assert [rejected("log_min_duration_statement", value) for value in ("-2", "-1", "2147483647", "2147483648")] == [
        True, False, False, True,
    ]  # fmt: skip


def test_the_facts_are_of_the_versions_that_run_together() -> None:
    assert facts.emr().release == versions.EMR_RELEASE
    assert (facts.glue().versions[versions.GLUE].spark, facts.glue().versions[versions.GLUE].python) == (
        versions.SPARK, versions.SPARK_PYTHON,
    )  # fmt: skip
    assert versions.POSTGRESQL in facts.rds().engine_versions
    assert {f"postgres{major}" for major in versions.POSTGRESQL_MAJORS} == set(facts.rds().parameters)
    assert f"python{versions.LAMBDA_PYTHON}" in facts.functions().runtimes
    assert get_args(LogDays) == facts.logs().retention_days


def test_each_fact_has_its_source_and_date() -> None:
    known = (facts.emr(), facts.rds(), facts.glue(), facts.functions(), facts.logs(), facts.regions())
    assert [item for item in known if not item.source or item.as_of.year < 2026] == []


def test_the_default_instance_types_are_in_every_region_that_has_the_templates_types() -> None:
    known, emr = facts.regions(), EmrConfig()
    complete = [region for region in known.regions if region not in known.missing_types]
    assert "us-east-1" in complete
    for region in complete:
        assert checks.region_problems(region, host="t4g.small", emr=(emr.core_instance,), database="db.t4g.micro") == []


@pytest.mark.parametrize(
    ("region", "problem"),
    [
        ("ca-west-1", "RDS has no db.t4g there"),
        ("eu-north-1", "CloudFormation has no AWS::Budgets::Budget there"),
        ("eu-nowhere-9", "config/aws/regions.json does not have it"),
    ],
)
def test_a_region_that_lacks_something_is_rejected(region: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Environment(name="dev", account="123456789012", region=region)


def test_the_log_groups_of_each_glue_job_exist_before_it_runs(dev_deployment: Deployment) -> None:
    """With a security configuration, Glue names them after it and the job's role."""
    resources = dev_deployment.templates["Catalog"]["Resources"].values()
    groups = [item["Properties"] for item in resources if item["Type"] == "AWS::Logs::LogGroup"]
    jobs = [item["Properties"] for item in resources if item["Type"] == "AWS::Glue::Job"]
    assert len(jobs) == 2
    for job in jobs:
        prefix, security = job["DefaultArguments"]["--custom-logGroup-prefix"], job["SecurityConfiguration"]
        role = {"Ref": job["Role"]["Fn::GetAtt"][0]}
        for kind in ("error", "output"):
            parts = [f"{prefix}/", security, "-role/", role, f"/{kind}"]
            names = [group.get("LogGroupName", {}) for group in groups]
            assert _flat(parts) in [_flat(name["Fn::Join"][1]) for name in names if "Fn::Join" in name]


def _flat(parts: list[Any]) -> list[Any]:
    """Return the parts of a joined text, neighbouring strings as one."""
    found: list[Any] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        else:
            found.append(part)
    return found
