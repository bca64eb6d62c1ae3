"""Clusters are encrypted, only the host creates them, and the Spark step gets what its program needs."""

from __future__ import annotations

import json

import boto3
import pytest
from botocore.session import Session
from botocore.validate import ParamValidator
from deployments import Deployment
from moto import mock_aws
from permissions import permissions
from programs import ROOT, program, settings_read, third_party_imports, variable

from barflow.contract import RuntimeContract
from barflow.operations import clusters

RUN = "20250702T200000Z-process-3fa9c1"
# Each field has a value of its own, so that a mix-up fails a test.
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
    """The contract of dev with names in place of CDK's tokens."""
    found = dev_deployment.contract
    settings = found.settings.model_copy(update={"lake_uri": "s3://lake"})
    return found.model_copy(update={"emr": found.emr.model_copy(update=SHAPE), "settings": settings})


def test_a_cluster_encrypts_at_rest_and_in_transit_and_requires_imdsv2(
    dev_deployment: Deployment,
) -> None:
    security = dev_deployment.only("Processing", "AWS::EMR::SecurityConfiguration")["SecurityConfiguration"]
    encryption = security["EncryptionConfiguration"]
    assert encryption["EnableAtRestEncryption"] is True
    assert encryption["EnableInTransitEncryption"] is True
    at_rest = encryption["AtRestEncryptionConfiguration"]
    assert at_rest["S3EncryptionConfiguration"]["EncryptionMode"] == "SSE-KMS"
    assert at_rest["LocalDiskEncryptionConfiguration"]["EnableEbsEncryption"] is True
    (key,) = [
        item["Environment"]["Variables"]["CERTIFICATE_KEY"]
        for item in dev_deployment.resources("Processing", "AWS::Lambda::Function")
        if "CERTIFICATE_KEY" in item.get("Environment", {}).get("Variables", {})
    ]
    assert f"/{key}" in json.dumps(encryption["InTransitEncryptionConfiguration"])
    assert security["InstanceMetadataServiceConfiguration"]["MinimumInstanceMetadataServiceVersion"] == 2


def test_a_rule_renews_the_certificate_each_month(dev_deployment: Deployment) -> None:
    rule = dev_deployment.only("Processing", "AWS::Events::Rule")
    assert rule["ScheduleExpression"] == "rate(30 days)"
    (target,) = rule["Targets"]
    function = dev_deployment.templates["Processing"]["Resources"][target["Arn"]["Fn::GetAtt"][0]]
    assert "CERTIFICATE_KEY" in function["Properties"]["Environment"]["Variables"]


def test_nodes_are_allowed_only_their_prefixes_and_the_mongodb_secret(dev_deployment: Deployment) -> None:
    allowed = permissions(dev_deployment.templates["Processing"], "NodeRole")
    (secret,) = {item.resource for item in allowed if item.action == "secretsmanager:GetSecretValue"}
    assert "MongoDb" in secret
    written = {_prefix(item.resource) for item in allowed if item.action == "s3:PutObject"}
    assert written == {
        *(
            "Lake /bars_5min",
            "Lake /bars_5min/*",
            "Lake /bars_5min_history",
            "Lake /bars_5min_history/*",
            "Lake /corporate_actions",
            "Lake /corporate_actions/*",
            "Lake /_staged",
            "Lake /_staged/*",
        ),
        *("Lake /manifests", "Lake /manifests/*", "Logs /emr", "Logs /emr/*"),
    }
    deleted = {_prefix(item.resource) for item in allowed if item.action == "s3:DeleteObject"}
    assert deleted == {"Lake /_staged", "Lake /_staged/*"}
    read = {_prefix(item.resource) for item in allowed if item.action == "s3:GetObject"}
    assert read - written == {
        *("Code /releases", "Code /releases/*", "Code /certificates", "Code /certificates/*", " .elasticmapreduce/*"),
    }
    assert {item.action.split(":")[0] for item in allowed} == {"kms", "s3", "secretsmanager"}


def _prefix(resource: str) -> str:
    """Return the bucket and prefix of an ARN of objects, such as ``Lake /bars_5min/*``."""
    parts = json.loads(resource)["Fn::Join"][1]
    bucket = next((name for name in ("Lake", "Code", "Logs") if name in json.dumps(parts[:-1])), "")
    return f"{bucket} {parts[-1]}"


def test_the_host_runs_only_clusters_of_this_environment_with_these_roles(dev_deployment: Deployment) -> None:
    allowed = permissions(dev_deployment.templates["Orchestration"], "HostRole")
    of_emr = {item.action.split(":")[1]: item for item in allowed if item.action.startswith("elasticmapreduce:")}
    unconditioned = {name for name, item in of_emr.items() if item.condition == "{}"}
    # A policy for idle clusters is set at a cluster's creation, before the cluster has a tag.
    assert unconditioned == {"ListClusters", "PutAutoTerminationPolicy"}
    assert set(of_emr) >= {"AddJobFlowSteps", "DescribeCluster", "DescribeStep", "RunJobFlow", "TerminateJobFlows"}
    for name in set(of_emr) - unconditioned:
        tag = "RequestTag" if name in ("RunJobFlow", "AddTags") else "ResourceTag"
        condition = {"StringEquals": {f"elasticmapreduce:{tag}/barflow:env": "dev"}}
        assert json.loads(of_emr[name].condition) == condition, name
    passed = {
        (next(role for role in ("ServiceRole", "NodeRole", "Reader") if role in item.resource), service)
        for item in allowed
        if item.action == "iam:PassRole"
        for service in [json.loads(item.condition)["StringEquals"]["iam:PassedToService"]]
    }
    assert passed - {("Reader", "glue.amazonaws.com")} == {
        ("ServiceRole", "elasticmapreduce.amazonaws.com"),
        ("NodeRole", "ec2.amazonaws.com"),
    }


def test_emr_is_allowed_the_private_subnets_and_its_own_groups(dev_deployment: Deployment) -> None:
    tag = {"Key": "for-use-with-amazon-emr-managed-policies", "Value": "true"}
    resources = dev_deployment.templates["Network"]["Resources"]
    found = {name for name, item in resources.items() if tag in item.get("Properties", {}).get("Tags", [])}
    kinds = sorted((resources[name]["Type"].split("::")[-1], name[:10]) for name in found)
    assert [kind for kind in kinds if kind[0] == "SecurityGroup"] == [
        ("SecurityGroup", "EmrCoreGro"),
        ("SecurityGroup", "EmrPrimary"),
        ("SecurityGroup", "EmrService"),
    ]
    assert {kind for kind in kinds if kind[0] != "SecurityGroup"} == {("Subnet", "Vpcprivate"), ("VPC", "Vpc8378EB3")}


def test_the_requests_for_cluster_and_step_are_valid_for_emr(
    contract: RuntimeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Session().get_service_model("emr")
    for operation, request in (
        ("RunJobFlow", clusters.cluster_request(contract, RUN)),
        ("AddJobFlowSteps", {"JobFlowId": "j-1", "Steps": clusters.step_request(contract, RUN)}),
    ):
        report = ParamValidator().validate(request, model.operation_model(operation).input_shape)
        assert not report.has_errors(), report.generate_report()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("emr")
        made = client.run_job_flow(**clusters.cluster_request(contract, RUN))["JobFlowId"]
        client.add_job_flow_steps(JobFlowId=made, Steps=clusters.step_request(contract, RUN))
        cluster = client.describe_cluster(ClusterId=made)["Cluster"]
    assert cluster["ReleaseLabel"] == "emr-7.13.0"
    tags = {tag["Key"]: tag["Value"] for tag in cluster["Tags"]}
    # The host's permission to create clusters requires the first tag, AWS's managed policy for EMR the second.
    assert (tags["barflow:env"], tags["for-use-with-amazon-emr-managed-policies"]) == ("dev", "true")


def test_the_program_parses_every_argument_of_the_step(contract: RuntimeContract) -> None:
    (step,) = clusters.step_request(contract, RUN)
    arguments = step["HadoopJarStep"]["Args"]
    start = arguments.index(SHAPE["step_uri"])
    parsed = program("spark/bars_to_parquet.py").parser().parse_args(arguments[start + 1 :])
    assert (parsed.lake, parsed.run_id) == ("s3://lake", RUN)


def test_the_step_gets_every_setting_that_its_program_reads(contract: RuntimeContract) -> None:
    read = settings_read("barflow/pipeline/process.py") - {"mongodb_database", "lease_seconds"}  # these have defaults
    (step,) = clusters.step_request(contract, RUN)
    prefix = "spark.yarn.appMasterEnv."
    given = dict(
        item.removeprefix(prefix).split("=", 1) for item in step["HadoopJarStep"]["Args"] if item.startswith(prefix)
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
def test_the_packages_that_a_program_imports_are_locked_or_provided(source: str, lock: str, provided: set[str]) -> None:
    packages = {"bson": "pymongo", "openlineage": "openlineage-python"}
    names = {packages.get(name, name).replace("_", "-") for name in third_party_imports(source) - provided}
    locked = {line.split("==")[0] for line in (ROOT / lock).read_text().splitlines() if "==" in line}
    assert names <= locked
