"""The visual job is a graph that Glue accepts, with the project's SQL, and it writes only the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from botocore.validate import ParamValidator
from deployments import ROOT, Deployment
from permissions import permissions
from programs import program

from stacks.bundles import VISUAL_JOB

GRAPH = ROOT / "glue" / "visual_job.json"
NAMES = {
    "CONNECTION": "sandbox",
    "DATABASE": "barflow_dev",
    "SESSIONS": "s3://code/sessions.csv",
    "TABLE": "bars_5min",
}


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function as deployed: with its graph, and its variables in the environment."""
    for name, value in (NAMES | {"JOB": "visual", "AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    found = program("lambda/visual_job/handler.py")
    assert VISUAL_JOB.files[found.GRAPH.name] == str(GRAPH.relative_to(ROOT))
    monkeypatch.setattr(found, "GRAPH", GRAPH)
    return found


@pytest.fixture
def nodes(function: ModuleType) -> dict[str, dict[str, Any]]:
    """The graph that the job gets: node → its one type and the properties."""
    found: dict[str, dict[str, Any]] = function.nodes({name.lower(): value for name, value in NAMES.items()})
    return found


def of_kind(nodes: Mapping[str, Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """Return the properties of the nodes of a type."""
    return {key: node[kind] for key, node in nodes.items() if kind in node}


def test_the_graph_is_valid_for_the_api_of_glue(nodes: dict[str, Any]) -> None:
    shape = boto3.client("glue", region_name="us-east-1").meta.service_model.shape_for("JobUpdate")
    report = ParamValidator().validate({"CodeGenConfigurationNodes": nodes}, shape)
    assert report.generate_report() == ""
    assert all(len(node) == 1 for node in nodes.values())  # a node has one type


def test_an_invalid_graph_is_found(nodes: dict[str, Any]) -> None:
    shape = boto3.client("glue", region_name="us-east-1").meta.service_model.shape_for("JobUpdate")
    del nodes["bar_1h"]["SparkSQL"]["SqlQuery"]
    report = ParamValidator().validate({"CodeGenConfigurationNodes": nodes}, shape).generate_report()
    assert 'Missing required parameter in CodeGenConfigurationNodes.bar_1h.SparkSQL: "SqlQuery"' in report


def test_every_transform_has_exactly_the_sql_of_its_file(nodes: dict[str, Any]) -> None:
    tool = program("tools/visual_job.py")
    for transform in of_kind(nodes, "SparkSQL").values():
        assert transform["SqlQuery"] == tool.sql(transform["Name"]), "run .venv/bin/python tools/visual_job.py"


def test_every_sql_file_is_in_the_graph_except_the_copy_of_the_archive(nodes: dict[str, Any]) -> None:
    files = {path.stem for path in (ROOT / "glue").rglob("*.sql")}
    assert {transform["Name"] for transform in of_kind(nodes, "SparkSQL").values()} == files - {
        "bar_5min",
        "bar_buckets",
    } | {"bar_30min", "bar_1h"}


def test_the_inputs_of_a_node_exist_and_all_have_an_alias(nodes: dict[str, Any]) -> None:
    for node in nodes.values():
        (properties,) = node.values()
        assert set(properties.get("Inputs", [])) <= set(nodes)
    for transform in of_kind(nodes, "SparkSQL").values():
        assert [alias["From"] for alias in transform["SqlAliases"]] == transform["Inputs"]


def test_it_writes_only_the_sandbox_through_the_jdbc_connection(nodes: dict[str, Any]) -> None:
    inputs = {name for node in nodes.values() for item in node.values() for name in item.get("Inputs", [])}
    targets = of_kind(nodes, "ConnectorDataTarget")
    assert set(nodes) - inputs == set(targets)
    for target in targets.values():
        assert target["ConnectionType"] == "postgresql"
        assert target["Data"] == {
            "useConnectionProperties": "true",
            "connectionName": "sandbox",
            "dbtable": f"sandbox.{target['Inputs'][0]}",
        }


JOB = {
    "Name": "visual",
    "JobMode": "VISUAL",
    "Role": "arn:aws:iam::1:role/sandbox",
    "Command": {"Name": "glueetl", "ScriptLocation": "s3://code/visual/visual_job.py", "PythonVersion": "3"},
    "DefaultArguments": {"--enable-auto-scaling": "true"},
    "Connections": {"Connections": ["sandbox"]},
    "GlueVersion": "5.1",
    "WorkerType": "G.1X",
    "NumberOfWorkers": 2,
    "MaxCapacity": 2.0,
    "AllocatedCapacity": 2,
    "CodeGenConfigurationNodes": {
        "old": {"SparkSQL": {"Name": "x", "Inputs": ["y"], "SqlQuery": "", "SqlAliases": []}}
    },
}


@pytest.fixture
def glue(monkeypatch: pytest.MonkeyPatch, function: ModuleType) -> Iterator[Stubber]:
    """A client of Glue that validates each call against the model of the service."""
    client = boto3.client("glue", region_name="us-east-1")
    monkeypatch.setattr(function.boto3, "client", lambda _: client)
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def test_the_function_sets_the_graph_and_keeps_the_other_properties_of_the_job(
    function: ModuleType, glue: Stubber, nodes: dict[str, Any]
) -> None:
    kept = {key: JOB[key] for key in JOB if key not in ("Name", "MaxCapacity", "AllocatedCapacity")}
    glue.add_response("get_job", {"Job": JOB}, {"JobName": "visual"})
    glue.add_response("update_job", {}, {"JobName": "visual", "JobUpdate": kept | {"CodeGenConfigurationNodes": nodes}})
    assert function.handler({}, None) == {"job": "visual", "nodes": len(nodes)}


def test_a_graph_that_glue_rejects_fails_the_deployment(function: ModuleType, glue: Stubber) -> None:
    glue.add_response("get_job", {"Job": JOB}, {"JobName": "visual"})
    glue.add_client_error(
        "update_job", "InvalidInputException", "no such node", expected_params={"JobName": "visual", "JobUpdate": ANY}
    )
    with pytest.raises(Exception, match="no such node"):
        function.handler({}, None)


def job(deployment: Deployment) -> Mapping[str, Any]:
    (found,) = (item for item in deployment.resources("Catalog", "AWS::Glue::Job") if item.get("JobMode") == "VISUAL")
    return found


def test_it_is_started_only_by_hand_and_connects_as_the_sandboxs_user(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        found = job(deployment)
        assert "SandboxConnection" in json.dumps(found["Connections"])
        assert "Sandbox" in json.dumps(found["Role"])
        assert "VisualJob" not in json.dumps(deployment.resources("Catalog", "AWS::Glue::Trigger"))
        assert deployment.contract.glue.job != "visual"
        (connection,) = (
            item["ConnectionInput"]["ConnectionProperties"]
            for item in deployment.resources("Catalog", "AWS::Glue::Connection")
            if "sandbox" in item["ConnectionInput"].get("Description", "")
        )
        assert "SandboxSecret" in json.dumps(connection["SECRET_ID"])


def test_the_function_gets_every_name_and_updates_only_this_job(dev_deployment: Deployment) -> None:
    (given,) = (
        item["Environment"]["Variables"]
        for item in dev_deployment.resources("Catalog", "AWS::Lambda::Function")
        if "JOB" in item.get("Environment", {}).get("Variables", {})
    )
    assert set(given) == set(NAMES) | {"JOB"}
    allowed = permissions(dev_deployment.templates["Catalog"], "Graph")
    changed = {item.action: item.resource for item in allowed if item.action.startswith("glue:")}
    assert set(changed) == {"glue:GetJob", "glue:UpdateJob"}
    assert all("VisualJob" in resource and "*" not in resource for resource in changed.values())
    (passed,) = [item for item in allowed if item.action == "iam:PassRole"]
    assert "Sandbox" in passed.resource
    assert "glue.amazonaws.com" in passed.condition


def test_the_calendar_of_sessions_is_published(dev_deployment: Deployment) -> None:
    release = dev_deployment.stacks["Storage"].release
    header = (ROOT / "barflow" / "market" / "sessions_xnys.csv").read_text().split("\n", 1)[0]
    assert "barflow/market/sessions_xnys.csv" in release.paths
    assert header == "session_date,open_utc,close_utc"
