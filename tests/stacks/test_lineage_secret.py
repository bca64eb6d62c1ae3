"""An environment with lineage gives every hop the backend and its key, and opens nothing that was closed before."""

from __future__ import annotations

import json

import pytest
from deployments import Deployment, text_of
from permissions import permissions
from programs import program

from barflow.operations import clusters
from barflow.pipeline.program import parse_arguments

URL, KEY = "https://lineage.example.com", "barflow/dev/lineage"
PARENT = "barflow-dev/process_bars.bars_to_parquet/018f6f5c-0000-7000-8000-000000000001"


def test_the_function_gets_the_backend_and_only_the_name_of_its_key(customized: Deployment) -> None:
    given = customized.only("Ingestion", "AWS::Lambda::Function")["Environment"]["Variables"]
    assert given["BARFLOW_OPENLINEAGE_URL"] == URL
    assert given["BARFLOW_OPENLINEAGE_API_KEY"] == f"secretsmanager:{KEY}"


def test_the_step_gets_the_backend_and_its_parent_and_without_lineage_neither(
    customized: Deployment, dev_deployment: Deployment
) -> None:
    (step,) = clusters.step_request(customized.contract, "run", PARENT)
    arguments = step["HadoopJarStep"]["Args"]
    assert f"spark.yarn.appMasterEnv.BARFLOW_OPENLINEAGE_URL={URL}" in arguments
    assert "spark.yarn.appMasterEnv.BARFLOW_ENV=dev" in arguments
    assert f"spark.yarn.appMasterEnv.BARFLOW_OPENLINEAGE_API_KEY=secretsmanager:{KEY}" in arguments
    own = arguments[arguments.index(customized.contract.emr.step_uri) + 1 :]
    assert program("spark/bars_to_parquet.py").parser().parse_args(own).lineage_parent == PARENT
    (plain,) = clusters.step_request(dev_deployment.contract, "run")
    assert not [item for item in plain["HadoopJarStep"]["Args"] if "LINEAGE" in str(item).upper()]


def test_the_job_gets_the_backend_and_its_program_parses_it(customized: Deployment) -> None:
    (job,) = (item for item in customized.resources("Catalog", "AWS::Glue::Job") if "JobMode" not in item)
    argv = [part for name, value in job["DefaultArguments"].items() for part in (name, text_of(value))]
    parsed = parse_arguments(program("glue/aggregate_bars.py").parser(), argv)
    assert (parsed.environment, parsed.openlineage_url) == ("dev", URL)
    assert parsed.openlineage_reference == f"secretsmanager:{KEY}"


@pytest.mark.parametrize(
    ("part", "role"),
    [("Ingestion", "Ingest"), ("Processing", "NodeRole"), ("Catalog", "Loader"), ("Orchestration", "HostRole")],
)
def test_each_hop_and_the_host_may_read_the_key_and_nobody_may_without_lineage(
    customized: Deployment, dev_deployment: Deployment, part: str, role: str
) -> None:
    allowed = permissions(customized.templates[part], role)
    read = [
        item.resource for item in allowed if item.action == "secretsmanager:GetSecretValue" and KEY in item.resource
    ]
    assert len(read) == 1
    assert f"secret:{KEY}-??????" in read[0], "it has AWS's suffix, and no other secret fits"
    assert KEY not in json.dumps(dev_deployment.templates[part])


def test_the_secret_exists_only_with_a_key(customized: Deployment, dev_deployment: Deployment) -> None:
    names = [item["Name"] for item in customized.resources("Secrets", "AWS::SecretsManager::Secret")]
    assert KEY in names
    assert KEY not in [item["Name"] for item in dev_deployment.resources("Secrets", "AWS::SecretsManager::Secret")]
