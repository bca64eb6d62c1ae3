"""What moto's CloudFormation lacks of Glue and Athena: database, table, connection, job, crawlers, workgroup.

Each is made in moto's own Glue and Athena, so that what a deployment made can be described, started and queried.
Rules of data quality stay a record: moto keeps none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moto.athena.models import AthenaBackend, athena_backends
from moto.glue.models import GlueBackend, glue_backends

from emulators.aws.resource_types import TYPES, Recorded

Properties = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """``named_in``: the part of the properties that has the Name, or none; ``make`` puts one into moto's backend, and
    ``kept`` is where that keeps those of this kind, by name."""

    named_in: str
    make: Callable[[Any, str, Properties], object]
    kept: Callable[[Any, Properties], dict[str, Any]]

    def name(self, given: Properties, generated: str) -> str:
        return str((given[self.named_in] if self.named_in else given).get("Name") or generated)


class Made(Recorded):
    """A resource of one of the kinds."""

    backends: Any
    kind: Kind

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Made:
        properties = cloudformation_json["Properties"]
        name = cls.kind.name(properties, resource_name)
        cls.kind.make(cls.backends[account_id][region_name], name, properties)
        made = cls(name, f"arn:aws:glue:{region_name}:{account_id}:{name}")
        made.properties = properties
        return made

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Made,
        new_resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
    ) -> Made:
        """What changed is made anew, under its name."""
        before, after = original_resource.properties, cloudformation_json["Properties"]
        if after != before:
            backend, name = cls.backends[account_id][region_name], original_resource.physical_resource_id
            cls.kind.kept(backend, before).pop(name, None)
            cls.kind.make(backend, name, after)
            original_resource.properties = after
        return original_resource

    def delete(self, account_id: str, region_name: str) -> None:
        self.kind.kept(self.backends[account_id][region_name], self.properties).pop(self.physical_resource_id, None)


def _make_job(glue: GlueBackend, name: str, given: Properties) -> None:
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


def _make_crawler(glue: GlueBackend, name: str, given: Properties) -> None:
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


def _make_connection(glue: GlueBackend, name: str, given: Properties) -> None:
    glue.create_connection(glue.account_id, given["ConnectionInput"] | {"Name": name}, {})


def _make_workgroup(athena: AthenaBackend, name: str, given: Properties) -> None:
    athena.create_work_group(name, given.get("WorkGroupConfiguration", {}), given.get("Description", ""), [])


def _tables(glue: GlueBackend, given: Properties) -> dict[str, Any]:
    """Those of its database, which takes them along when it goes."""
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
    "Connection": Kind("ConnectionInput", _make_connection, lambda glue, given: glue.connections),
    "SecurityConfiguration": Kind(
        "",
        lambda glue, name, given: glue.create_security_configuration(name, given["EncryptionConfiguration"]),
        lambda glue, given: glue.security_configurations,
    ),
    "Job": Kind("", _make_job, lambda glue, given: glue.jobs),
    "Crawler": Kind("", _make_crawler, lambda glue, given: glue.crawlers),
}
WORKGROUP = Kind("", _make_workgroup, lambda athena, given: athena.work_groups)


def extend() -> None:
    """Registers the types."""
    for name, kind in GLUE.items():
        TYPES[f"AWS::Glue::{name}"] = type(name, (Made,), {"backends": glue_backends, "kind": kind})
    TYPES["AWS::Athena::WorkGroup"] = type("WorkGroup", (Made,), {"backends": athena_backends, "kind": WORKGROUP})
