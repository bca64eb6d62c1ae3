"""What a deployment needs of its AWS account: a plain value, made from the settings and the templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """A policy of the templates as JSON, and where it is.

    ``kind`` is IDENTITY_POLICY or RESOURCE_POLICY. ``attached_to`` is the CloudFormation type of the resource that has
    the policy, if Access Analyzer has checks for that type.
    """

    place: str
    kind: str
    document: str
    attached_to: str = ""


@dataclass(frozen=True)
class FixedName:
    """A resource whose name the templates fix, such as a secret: its type, name, stack and logical id."""

    kind: str
    name: str
    stack: str
    logical_id: str


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one environment needs of its account.

    ``elastic_ips``, ``vpcs`` and ``reserved`` (concurrent executions of a function) are by (stack, logical id), so that
    what is deployed already does not count twice. ``on_demand`` and ``spot`` are the largest numbers of EC2 instances
    that run at one time, by type: two hosts while one replaces the other, and the cluster of a process run.
    ``operator_secrets`` are the names of the secrets that an operator sets. ``driver_outputs`` names a stack, and its
    outputs with the location and the SHA-256 of the JDBC driver that an operator installs. ``region_problems``
    lists what the region lacks by AWS's published lists.
    """

    env: str
    stacks: tuple[str, ...]
    bootstrap_version: int
    bootstrap_parameter: str
    zones: int
    zone_names: tuple[str, ...]
    region_problems: tuple[str, ...]
    elastic_ips: frozenset[tuple[str, str]]
    vpcs: frozenset[tuple[str, str]]
    reserved: Mapping[tuple[str, str], int]
    on_demand: Mapping[str, int]
    spot: Mapping[str, int]
    emr_release: str
    emr_types: tuple[str, ...]
    database_version: str
    database_class: str
    policies: tuple[Policy, ...]
    names: tuple[FixedName, ...]
    operator_secrets: tuple[str, ...]
    driver_outputs: tuple[str, str, str]
    budget_tag: str
