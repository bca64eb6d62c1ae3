"""Are clusters made safely, by whom alone may make them, and is the step given what it asks for?"""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from aws_cdk import aws_iam as iam
from botocore.session import Session
from botocore.validate import ParamValidator
from deployments import Deployment
from moto import mock_aws
from permissions import rights, rights_of
from programs import ROOT, program, settings_read, third_party_imports, variable

from barflow import clusters
from barflow.contract import RuntimeContract

RUN = "20250702T200000Z-process-3fa9c1"
# Of another contract: each field a value of its own, so that a mix-up shows.
SHAPE = {
    "subnet_ids": ("subnet-11111111", "subnet-22222222"),
    "primary_security_group": "sg-primary",
    "core_security_group": "sg-core",
    "service_security_group": "sg-service",
    "service_role": "service-role",
    "instance_profile": "node-profile",
    "security_configuration": "security",
    "log_uri": "s3://logs/emr/",
    "bootstrap_uri": "s3://code/spark/requirements.sh",
    "packages_uri": "s3://code/emr.gluewheels.zip",
    "step_uri": "s3://code/spark/bars_to_parquet.py",
    "library_uri": "s3://code/barflow.zip",
}


@pytest.fixture
def contract(dev_deployment: Deployment) -> RuntimeContract:
    """The environment's contract with names in place of what AWS decides on deployment."""
    found = dev_deployment.contract
    settings = found.settings.model_copy(update={"lake_uri": "s3://lake"})
    return found.model_copy(update={"emr": found.emr.model_copy(update=SHAPE), "settings": settings})


def test_a_cluster_encrypts_at_rest_and_in_transit_and_answers_only_the_second_version_of_its_metadata(
    dev_deployment: Deployment,
) -> None:
    security = dev_deployment.only("Processing", "AWS::EMR::SecurityConfiguration")["SecurityConfiguration"]
    encryption = security["EncryptionConfiguration"]
    assert encryption["EnableAtRestEncryption"] is True
    assert encryption["EnableInTransitEncryption"] is True
    at_rest = encryption["AtRestEncryptionConfiguration"]
    assert at_rest["S3EncryptionConfiguration"]["EncryptionMode"] == "SSE-KMS"
    assert at_rest["LocalDiskEncryptionConfiguration"]["EnableEbsEncryption"] is True
    made = _certificate(dev_deployment)["CERTIFICATE_KEY"]
    assert f"/{made}" in json.dumps(encryption["InTransitEncryptionConfiguration"])
    assert security["InstanceMetadataServiceConfiguration"]["MinimumInstanceMetadataServiceVersion"] == 2


def _certificate(deployment: Deployment) -> Any:
    (found,) = [
        item["Environment"]["Variables"]
        for item in deployment.resources("Processing", "AWS::Lambda::Function")
        if "CERTIFICATE_KEY" in item.get("Environment", {}).get("Variables", {})
    ]
    return found


def test_nodes_reach_their_own_prefixes_and_the_mongodb_secret_and_nothing_else(dev_deployment: Deployment) -> None:
    allowed = rights(dev_deployment.templates["Processing"], "NodeRole")
    (secret,) = {right.resource for right in allowed if right.action == "secretsmanager:GetSecretValue"}
    assert "MongoDb" in secret
    written = {_place(right.resource) for right in allowed if right.action == "s3:PutObject"}
    assert written == {"Lake /bars_5min*", "Lake /_staged*", "Lake /manifests*", "Logs /emr*"}
    read = {_place(right.resource) for right in allowed if right.action == "s3:GetObject"}
    assert read - written == {"Code /releases*", "Code /certificates*", " .elasticmapreduce/*"}
    assert {right.action.split(":")[0] for right in allowed} == {"kms", "s3", "secretsmanager"}


def _place(resource: str) -> str:
    """``Lake /bars_5min*`` of the joined ARN of objects."""
    parts = json.loads(resource)["Fn::Join"][1]
    bucket = next((name for name in ("Lake", "Code", "Logs") if name in json.dumps(parts[:-1])), "")
    return f"{bucket} {parts[-1]}"


def test_who_may_run_clusters_may_run_those_of_this_environment_with_these_roles_alone(
    dev_deployment: Deployment,
) -> None:
    processing = dev_deployment.stacks["Processing"]
    host = iam.Role(processing, "Tester", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
    processing.allow_run(host)
    allowed = {right.action: right for right in rights_of(host) if right.action != "iam:PassRole"}
    tag = "Tag/barflow:env"
    for action, condition in {
        "RunJobFlow": "Request",
        "AddTags": "Request",
        "AddJobFlowSteps": "Resource",
        "TerminateJobFlows": "Resource",
        "DescribeCluster": "Resource",
        "DescribeStep": "Resource",
    }.items():
        asked = json.loads(allowed[f"elasticmapreduce:{action}"].condition)
        assert asked == {"StringEquals": {f"elasticmapreduce:{condition}{tag}": "dev"}}, action
    unconditioned = {right.action for right in allowed.values() if right.condition == "{}"}
    assert unconditioned == {"elasticmapreduce:ListClusters"}
    passed = {
        (
            json.loads(right.resource)["Fn::GetAtt"][0][:8],
            json.loads(right.condition)["StringEquals"]["iam:PassedToService"],
        )
        for right in rights_of(host)
        if right.action == "iam:PassRole"
    }
    assert passed == {("ServiceR", "elasticmapreduce.amazonaws.com"), ("NodeRole", "ec2.amazonaws.com")}


def test_emr_may_touch_the_private_subnets_and_its_own_groups(dev_deployment: Deployment) -> None:
    marked = {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"}
    resources = dev_deployment.templates["Network"]["Resources"]
    found = {name for name, item in resources.items() if marked in item.get("Properties", {}).get("Tags", [])}
    kinds = sorted((resources[name]["Type"].split("::")[-1], name[:10]) for name in found)
    assert [kind for kind in kinds if kind[0] == "SecurityGroup"] == [
        ("SecurityGroup", "EmrCoreGro"),
        ("SecurityGroup", "EmrPrimary"),
        ("SecurityGroup", "EmrService"),
    ]
    assert {kind for kind in kinds if kind[0] != "SecurityGroup"} == {("Subnet", "Vpcprivate"), ("VPC", "Vpc8378EB3")}


def test_emr_takes_the_cluster_and_its_step_as_they_are(
    contract: RuntimeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Session().get_service_model("emr")
    for operation, asked in (
        ("RunJobFlow", clusters.cluster_request(contract, RUN)),
        ("AddJobFlowSteps", {"JobFlowId": "j-1", "Steps": clusters.step_request(contract, RUN)}),
    ):
        report = ParamValidator().validate(asked, model.operation_model(operation).input_shape)
        assert not report.has_errors(), report.generate_report()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("emr")
        made = client.run_job_flow(**clusters.cluster_request(contract, RUN))["JobFlowId"]
        client.add_job_flow_steps(JobFlowId=made, Steps=clusters.step_request(contract, RUN))
        cluster = client.describe_cluster(ClusterId=made)["Cluster"]
    assert cluster["ReleaseLabel"] == "emr-7.13.0"
    tags = {tag["Key"]: tag["Value"] for tag in cluster["Tags"]}
    # What the right to make clusters asks for, and what AWS's policy for EMR does.
    assert (tags["barflow:env"], tags["for-use-with-amazon-emr-managed-policies"]) == ("dev", "true")


def test_the_step_is_called_with_arguments_that_the_program_takes(contract: RuntimeContract) -> None:
    (step,) = clusters.step_request(contract, RUN)
    arguments = step["HadoopJarStep"]["Args"]
    start = arguments.index(SHAPE["step_uri"])
    parsed = program("spark/bars_to_parquet.py").parser().parse_args(arguments[start + 1 :])
    assert (parsed.lake, parsed.run_id) == ("s3://lake", RUN)


def test_the_step_finds_every_setting_that_it_reads_in_its_arguments_or_variables(contract: RuntimeContract) -> None:
    read = settings_read("spark/bars_to_parquet.py") - {"mongodb_database", "lease_seconds"}  # left to their defaults
    (step,) = clusters.step_request(contract, RUN)
    set_by = "spark.yarn.appMasterEnv."
    given = dict(
        item.removeprefix(set_by).split("=", 1) for item in step["HadoopJarStep"]["Args"] if item.startswith(set_by)
    )
    assert {variable(field) for field in read} - {"BARFLOW_LAKE_URI"} == set(given) - {"AWS_DEFAULT_REGION"}
    assert given["BARFLOW_MONGODB_URI"] == "secretsmanager:barflow/dev/mongodb"
    assert given["AWS_DEFAULT_REGION"] == "us-east-1"


@pytest.mark.parametrize(
    ("source", "lock", "provided"),
    [
        ("spark/bars_to_parquet.py", "spark/requirements.txt", {"pyspark"}),
        ("glue/aggregate_bars.py", "glue/requirements.txt", {"pyspark", "pyarrow", "boto3", "botocore", "orjson"}),
    ],
)
def test_what_a_program_imports_is_in_its_lock_or_with_its_service(source: str, lock: str, provided: set[str]) -> None:
    packages = {"bson": "pymongo"}
    names = {packages.get(name, name).replace("_", "-") for name in third_party_imports(source) - provided}
    locked = {line.split("==")[0] for line in (ROOT / lock).read_text().splitlines() if "==" in line}
    assert names <= locked
