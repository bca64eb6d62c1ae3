"""CloudFormation resource types of Glue and Athena that moto lacks: database, table, connection, job and others.

Each is created in moto's own Glue and Athena, so that what was deployed can be described, started and queried. moto has
no data quality rulesets; emulators.aws.dqdl has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moto.athena.models import AthenaBackend, athena_backends
from moto.glue.models import GlueBackend, glue_backends
from moto.glue.utils import Action

from emulators.aws.dqdl import RULESETS, create_ruleset
from emulators.aws.resource_types import TYPES, RecordedResource

Properties = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """How to create and find resources of one type in moto's backend.

    ``name_in`` is the property that holds the Name, or empty if the Name is a property itself. ``create`` creates a
    resource. ``stored_in`` returns the backend's dictionary of such resources, by name.
    """

    name_in: str
    create: Callable[[Any, str, Properties], object]
    stored_in: Callable[[Any, Properties], dict[str, Any]]

    def name(self, properties: Properties, generated: str) -> str:
        """Return the given name, or the generated one if there is none."""
        return str((properties[self.name_in] if self.name_in else properties).get("Name") or generated)


class CatalogResource(RecordedResource):
    """A resource of Glue or Athena."""

    backends: Any
    kind: Kind

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> CatalogResource:
        """Create the resource in moto's backend."""
        properties = cloudformation_json["Properties"]
        name = cls.kind.name(properties, resource_name)
        cls.kind.create(cls.backends[account_id][region_name], name, properties)
        resource = cls(name, f"arn:aws:glue:{region_name}:{account_id}:{name}")
        resource.properties = properties
        return resource

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: CatalogResource,
        new_resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
    ) -> CatalogResource:
        """Create a changed resource again under its name."""
        before, after = original_resource.properties, cloudformation_json["Properties"]
        if after != before:
            backend, name = cls.backends[account_id][region_name], original_resource.physical_resource_id
            cls.kind.stored_in(backend, before).pop(name, None)
            cls.kind.create(backend, name, after)
            original_resource.properties = after
        return original_resource

    def delete(self, account_id: str, region_name: str) -> None:
        """Delete the resource."""
        stored = self.kind.stored_in(self.backends[account_id][region_name], self.properties)
        stored.pop(self.physical_resource_id, None)


def _create_job(glue: GlueBackend, name: str, given: Properties) -> None:
    glue.create_job(
        name=name,
        role=given["Role"],
        command=given["Command"],
        description=given.get("Description", ""),
        log_uri="",
        execution_property=given.get("ExecutionProperty", {}),
        default_arguments=given.get("DefaultArguments", {}),
        non_overridable_arguments=given.get("NonOverridableArguments", {}),
        connections=given.get("Connections", {}),
        max_retries=int(given.get("MaxRetries", 0)),
        allocated_capacity=0,
        timeout=int(given.get("Timeout", 2880)),
        max_capacity=0.0,
        security_configuration=given.get("SecurityConfiguration", ""),
        tags={},
        notification_property={},
        glue_version=given.get("GlueVersion", ""),
        number_of_workers=int(given.get("NumberOfWorkers", 2)),
        worker_type=given.get("WorkerType", ""),
        code_gen_configuration_nodes={},
        execution_class="STANDARD",
        source_control_details={},
    )


def _create_crawler(glue: GlueBackend, name: str, given: Properties) -> None:
    glue.create_crawler(
        name=name,
        role=given["Role"],
        database_name=given["DatabaseName"],
        description=given.get("Description", ""),
        targets=given["Targets"],
        schedule="",
        classifiers=[],
        table_prefix=given.get("TablePrefix", ""),
        schema_change_policy=given.get("SchemaChangePolicy", {}),
        recrawl_policy={},
        lineage_configuration={},
        configuration=given.get("Configuration", ""),
        crawler_security_configuration=given.get("CrawlerSecurityConfiguration", ""),
        tags={},
    )


def _create_connection(glue: GlueBackend, name: str, given: Properties) -> None:
    glue.create_connection(glue.account_id, given["ConnectionInput"] | {"Name": name}, {})


def _create_workflow(glue: GlueBackend, name: str, given: Properties) -> None:
    maximum = given.get("MaxConcurrentRuns")
    glue.create_workflow(name, given.get("DefaultRunProperties"), given.get("Description", ""), maximum, {})


def _create_trigger(glue: GlueBackend, name: str, given: Properties) -> None:
    glue.create_trigger(
        name=name,
        workflow_name=given.get("WorkflowName", ""),
        trigger_type=given["Type"],
        schedule=given.get("Schedule", ""),
        predicate=None,
        actions=[Action(action) for action in given["Actions"]],
        description=given.get("Description", ""),
        start_on_creation=bool(given.get("StartOnCreation")),
        tags={},
        event_batching_condition={},
    )


def _create_workgroup(athena: AthenaBackend, name: str, given: Properties) -> None:
    athena.create_work_group(name, given.get("WorkGroupConfiguration", {}), given.get("Description", ""), [])


def _tables(glue: GlueBackend, given: Properties) -> dict[str, Any]:
    """Return the tables of a database; none if the database was deleted, and its tables with it."""
    database = glue.databases.get(given["DatabaseName"])
    return database.tables if database else {}


GLUE = {
    "Database": Kind(
        "DatabaseInput",
        lambda glue, name, given: glue.create_database(name, given["DatabaseInput"]),
        lambda glue, given: glue.databases,
    ),
    "Table": Kind(
        "TableInput",
        lambda glue, name, given: glue.create_table(given["DatabaseName"], name, given["TableInput"]),
        _tables,
    ),
    "Connection": Kind("ConnectionInput", _create_connection, lambda glue, given: glue.connections),
    "SecurityConfiguration": Kind(
        "",
        lambda glue, name, given: glue.create_security_configuration(name, given["EncryptionConfiguration"]),
        lambda glue, given: glue.security_configurations,
    ),
    "Job": Kind("", _create_job, lambda glue, given: glue.jobs),
    "Crawler": Kind("", _create_crawler, lambda glue, given: glue.crawlers),
    "Workflow": Kind("", _create_workflow, lambda glue, given: glue.workflows),
    "Trigger": Kind("", _create_trigger, lambda glue, given: glue.triggers),
    "DataQualityRuleset": Kind(
        "", lambda glue, name, given: create_ruleset(name, given["Ruleset"]), lambda glue, given: RULESETS
    ),
}
WORKGROUP = Kind("", _create_workgroup, lambda athena, given: athena.work_groups)

for _name, _kind in GLUE.items():
    TYPES[f"AWS::Glue::{_name}"] = type(_name, (CatalogResource,), {"backends": glue_backends, "kind": _kind})
TYPES["AWS::Athena::WorkGroup"] = type(
    "WorkGroup", (CatalogResource,), {"backends": athena_backends, "kind": WORKGROUP}
)
