"""What moto's CloudFormation lacks of Glue and Athena: database, table, connection, job, crawlers, workgroup.

Each is made in moto's own Glue and Athena, so that what a deployment made can be described, started and queried.
Rules of data quality stay a record: moto keeps none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.athena.models import athena_backends
from moto.glue.models import GlueBackend, glue_backends

from local.aws_types import TYPES, Recorded

Properties = dict[str, Any]


def _glue(account_id: str, region_name: str) -> GlueBackend:
    return glue_backends[account_id][region_name]


def _type(
    name_of: Callable[[Properties], str | None],
    make: Callable[[str, Properties, str, str], None],
    drop: Callable[[str, Properties, str, str], None],
) -> type[Recorded]:
    """A type whose resources are made by ``make`` and taken away by ``drop``; an update does both."""

    class Made(Recorded):
        @classmethod
        def create_from_cloudformation_json(
            cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
        ) -> Made:
            properties = cloudformation_json["Properties"]
            name = name_of(properties) or resource_name
            make(name, properties, account_id, region_name)
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
            properties, name = cloudformation_json["Properties"], original_resource.physical_resource_id
            if properties != original_resource.properties:
                drop(name, original_resource.properties, account_id, region_name)
                make(name, properties, account_id, region_name)
                original_resource.properties = properties
            return original_resource

        @classmethod
        def delete_from_cloudformation_json(
            cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
        ) -> None:
            properties = cloudformation_json["Properties"]
            drop(name_of(properties) or resource_name, properties, account_id, region_name)

    return Made


def _make_connection(name: str, given: Properties, account: str, region: str) -> None:
    _glue(account, region).create_connection(account, given["ConnectionInput"] | {"Name": name}, {})


def _make_table(name: str, given: Properties, account: str, region: str) -> None:
    _glue(account, region).create_table(given["DatabaseName"], name, given["TableInput"])


def _drop_table(name: str, given: Properties, account: str, region: str) -> None:
    tables = _glue(account, region).databases
    if given["DatabaseName"] in tables:  # a database takes its tables along
        tables[given["DatabaseName"]].tables.pop(name, None)


def _make_security(name: str, given: Properties, account: str, region: str) -> None:
    _glue(account, region).create_security_configuration(name, given["EncryptionConfiguration"])


def _make_job(name: str, given: Properties, account: str, region: str) -> None:
    _glue(account, region).create_job(
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


def _make_crawler(name: str, given: Properties, account: str, region: str) -> None:
    _glue(account, region).create_crawler(
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


def _make_workgroup(name: str, given: Properties, account: str, region: str) -> None:
    configuration = given.get("WorkGroupConfiguration", {})
    athena_backends[account][region].create_work_group(name, configuration, given.get("Description", ""), [])


def extend() -> None:
    """Registers the types."""
    TYPES["AWS::Glue::Database"] = _type(
        lambda given: given["DatabaseInput"].get("Name"),
        lambda name, given, *at: _glue(*at).create_database(name, given["DatabaseInput"]) and None,
        lambda name, given, *at: _glue(*at).databases.pop(name, None) and None,
    )
    TYPES["AWS::Glue::Table"] = _type(lambda given: given["TableInput"].get("Name"), _make_table, _drop_table)
    TYPES["AWS::Glue::Connection"] = _type(
        lambda given: given["ConnectionInput"].get("Name"),
        _make_connection,
        lambda name, given, *at: _glue(*at).connections.pop(name, None) and None,
    )
    TYPES["AWS::Glue::SecurityConfiguration"] = _type(
        lambda given: given.get("Name"),
        _make_security,
        lambda name, given, *at: _glue(*at).security_configurations.pop(name, None) and None,
    )
    TYPES["AWS::Glue::Job"] = _type(
        lambda given: given.get("Name"), _make_job, lambda name, given, *at: _glue(*at).jobs.pop(name, None) and None
    )
    TYPES["AWS::Glue::Crawler"] = _type(
        lambda given: given.get("Name"),
        _make_crawler,
        lambda name, given, *at: _glue(*at).crawlers.pop(name, None) and None,
    )
    TYPES["AWS::Athena::WorkGroup"] = _type(
        lambda given: given.get("Name"),
        _make_workgroup,
        lambda name, given, *at: athena_backends[at[0]][at[1]].work_groups.pop(name, None) and None,
    )
