"""A deployment can follow a failed first one, and one with other settings: no name is taken and no export in use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from deployments import Deployment, Synthesize, changed, schema_of

from config.environment import (
    AlarmConfig,
    DatabaseConfig,
    EmrConfig,
    GlueConfig,
    HostConfig,
    IngestConfig,
    LineageConfig,
    PlanConfig,
    RetentionConfig,
    WebhookConfig,
)
from config.environments import dev
from tools.review import create_only

OTHER_SETTINGS: dict[str, Any] = {
    "symbols": ("AAPL", "MSFT"),
    "bots": (),
    "database": DatabaseConfig(instance_class="db.t4g.small", storage_gb=40, backup_days=3),
    "emr": EmrConfig(primary_instance="m7g.xlarge", core_instance="m7g.xlarge", core_count=3, volume_gb=64),
    "glue": GlueConfig(worker_type="G.2X", max_workers=4, timeout_minutes=30),
    "host": HostConfig(instance_type="t4g.medium", data_volume_gb=30),
    "plan": PlanConfig(credits_per_minute=55, credits_per_day=None),
    "ingest": IngestConfig(runner="host", every_minutes=10),
    "retention": RetentionConfig(logs_days=60, old_versions_days=10),
    "lineage": LineageConfig(url="https://lineage.example.com", api_key=True),
    "alarms": AlarmConfig(emails=("data@example.com",), slack_channel="#data"),
    "webhooks": WebhookConfig(urls=("https://bot.example.com/alerts",)),
    "apprise": ("team",),
}


@pytest.fixture(scope="session")
def other_settings(synthesize: Synthesize) -> Deployment:
    """The environment dev with other settings of everything but its network."""
    return synthesize(changed(dev(), **OTHER_SETTINGS))


def retained(deployment: Deployment, policy: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for part, template in deployment.templates.items():
        for name, resource in template["Resources"].items():
            if resource.get("DeletionPolicy") == policy:
                yield f"{part}/{name}", resource


def given_names(resource: Mapping[str, Any]) -> set[str]:
    """Return the properties with which the template itself names the resource."""
    schema = schema_of(resource["Type"])
    identifiers = {path.removeprefix("/properties/") for path in schema["primaryIdentifier"]}
    return ({"Name"} | identifiers) & resource.get("Properties", {}).keys()


def exports(deployment: Deployment) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Return each exported output by its name, with the template that it is in."""
    return {
        output["Export"]["Name"]: (output, template)
        for template in deployment.templates.values()
        for output in template.get("Outputs", {}).values()
        if "Export" in output
    }


def exported_resource(output: Mapping[str, Any], template: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the resource that an exported value refers to."""
    ((_, reference),) = output["Value"].items()
    resource: Mapping[str, Any] = template["Resources"][reference if isinstance(reference, str) else reference[0]]
    return resource


def fixed(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a resource whose change replaces it."""
    properties = resource.get("Properties", {})
    return {name: properties[name] for name in create_only(resource["Type"]) if name in properties}


def test_a_resource_with_a_name_does_not_outlive_a_failed_first_deployment(deployments: list[Deployment]) -> None:
    named = {
        where: names
        for deployment in deployments
        for where, resource in retained(deployment, "Retain")
        if (names := given_names(resource))
    }
    assert named == {}


def test_a_failed_first_deployment_deletes_only_what_aws_lets_it_delete(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        for where, resource in retained(deployment, "RetainExceptOnCreate"):
            assert resource["Type"] != "AWS::S3::Bucket", f"{where} may contain objects"
            assert not resource["Properties"].get("DeletionProtection"), f"{where} is protected"


def test_no_export_is_of_a_resource_that_every_deployment_may_replace(deployments: list[Deployment]) -> None:
    """A new AMI, or another program, replaces what depends on a parameter or has its hash in its logical id."""
    for deployment in deployments:
        for name, (output, template) in exports(deployment).items():
            parameters = {f'{{"Ref": "{parameter}"}}' for parameter in template.get("Parameters", {})}
            text = json.dumps(fixed(exported_resource(output, template)))
            assert not any(parameter in text for parameter in parameters), name
            assert "Host" not in json.dumps(output["Value"]).replace("HostGroup", ""), name


def test_other_settings_change_no_export_that_another_stack_imports(
    dev_deployment: Deployment, other_settings: Deployment
) -> None:
    for before, after in ((dev_deployment, other_settings), (other_settings, dev_deployment)):
        imported = "".join(json.dumps(template) for template in before.templates.values())
        old, new = exports(before), exports(after)
        used = {name for name in old if f'"Fn::ImportValue": "{name}"' in imported}
        assert used - new.keys() == set(), "they cannot be removed"
        for name in used:
            assert old[name][0]["Value"] == new[name][0]["Value"], name
            assert fixed(exported_resource(*old[name])) == fixed(exported_resource(*new[name])), name


def test_a_trigger_invokes_a_version_for_which_cloudformation_waits(deployments: list[Deployment]) -> None:
    """Lambda rejects the invocation of a function that is still pending, and CDK's trigger does not retry that."""
    create = {kind: schema_of(kind)["handlers"]["create"] for kind in ("AWS::Lambda::Function", "AWS::Lambda::Version")}
    assert "lambda:GetFunction" in create["AWS::Lambda::Function"]["permissions"]
    assert "lambda:GetFunctionConfiguration" in create["AWS::Lambda::Version"]["permissions"]
    for deployment in deployments:
        for template in deployment.templates.values():
            resources = template["Resources"].values()
            for trigger in (item["Properties"] for item in resources if item["Type"] == "Custom::Trigger"):
                invoked = template["Resources"][trigger["HandlerArn"]["Ref"]]
                assert invoked["Type"] == "AWS::Lambda::Version"
