"""Check what a template or a request asks of AWS against the facts of this folder.

Each function returns one line per problem: what is asked, and what AWS accepts. A value that is known only after the
deployment (a token) is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from config.aws import facts

Properties = Mapping[str, Any]


def resource_problems(kind: str, properties: Properties) -> list[str]:
    """Return the problems of a CloudFormation resource of this type, such as ``AWS::RDS::DBInstance``."""
    check = CHECKS.get(kind)
    return list(check(properties)) if check else []


def instance_type_problem(instance_type: str) -> str | None:
    """Return why EMR rejects the instance type, or None."""
    known = facts.emr()
    if known.offers(instance_type):
        return None
    family = instance_type.partition(".")[0]
    sizes = known.families.get(family)
    has = f"{family} comes as {', '.join(sizes)}" if sizes else f"it has no {family}"
    return f"{known.release} has no instance type {instance_type}; {has}"


def cluster_problems(request: Mapping[str, Any]) -> list[str]:
    """Return the problems of a RunJobFlow request: its release and the instance types of its fleets and groups."""
    known, instances = facts.emr(), request.get("Instances", {})
    problems = []
    if request.get("ReleaseLabel") != known.release:
        problems.append(
            f"config/aws/emr.json is of {known.release}, and the cluster asks for {request['ReleaseLabel']}"
        )
    asked = [
        item["InstanceType"] for fleet in instances.get("InstanceFleets", ()) for item in fleet["InstanceTypeConfigs"]
    ]
    asked += [group["InstanceType"] for group in instances.get("InstanceGroups", ())]
    return problems + [problem for item in asked if (problem := instance_type_problem(item))]


def parameter_problem(family: str, name: str, value: str) -> str | None:
    """Return why RDS rejects a parameter of a parameter group family, such as postgres18, or None."""
    parameters = facts.rds().parameters.get(family)
    if parameters is None:
        return f"config/aws/rds.json has no parameters of {family}"
    if name not in parameters:
        return f"config/aws/rds.json has no parameter {name} of {family}. Add it with its source"
    if parameters[name].accepts(value):
        return None
    return f"{family} rejects {name}={value}; it accepts {parameters[name].allowed_values}"


def region_problems(region: str | None, *, host: str, emr: tuple[str, ...], database: str) -> list[str]:
    """Return what a region lacks: resource types of the templates, and the families of these instance types.

    Without a region, nothing is known and nothing is checked.
    """
    known = facts.regions()
    if region is None:
        return []
    if region not in known.regions:
        return [f"config/aws/regions.json does not have it; it has {', '.join(known.regions)}"]
    problems = [f"CloudFormation has no {kind} there" for kind in known.missing_types.get(region, ())]
    for service, missing, asked in (
        ("EC2", known.missing_ec2, (host,)),
        ("EMR", known.missing_emr, emr),
        ("RDS", known.missing_rds, (database,)),
    ):
        lacking = sorted({item.rpartition(".")[0] for item in asked} & set(missing.get(region, ())))
        problems += [f"{service} has no {family} there" for family in lacking]
    return problems


def _database(properties: Properties) -> Iterator[str]:
    known, version = facts.rds(), properties["EngineVersion"]
    if version not in known.engine_versions:
        yield f"RDS has no PostgreSQL {version}; it has {', '.join(known.engine_versions)}"
    elif version in known.deprecated_versions:
        yield f"RDS no longer creates instances of PostgreSQL {version}"
    if not known.offers_class(properties["DBInstanceClass"]):
        yield f"RDS for PostgreSQL has no class {properties['DBInstanceClass']}"


def _parameter_group(properties: Properties) -> Iterator[str]:
    for name, value in properties["Parameters"].items():
        problem = parameter_problem(properties["Family"], name, value)
        if problem:
            yield problem


def _job(properties: Properties) -> Iterator[str]:
    known, version = facts.glue(), properties["GlueVersion"]
    if version not in known.versions:
        yield f"there is no Glue {version}; there is {', '.join(known.versions)}"
        return
    if properties["WorkerType"] not in known.worker_types:
        yield f"Glue has no worker type {properties['WorkerType']}"
    python = properties["Command"].get("PythonVersion")
    if python != "3":
        yield f"Glue {version} runs Python 3, and the job asks for {python}"
    for name in properties.get("DefaultArguments", {}):
        other = known.versions[version].ignored_arguments.get(name)
        if other is not None:
            yield f"Glue {version} ignores {name}" + (f"; it takes {other}" if other else "")
        elif name not in known.arguments and name.lower() in {item.lower() for item in known.arguments}:
            yield f"Glue's own argument is written otherwise than {name}"


def _function(properties: Properties) -> Iterator[str]:
    known, runtime = facts.functions(), properties.get("Runtime")
    if isinstance(runtime, str):
        if runtime not in known.runtimes:
            yield f"Lambda has no runtime {runtime}"
        elif (end := known.runtimes[runtime]) and end <= known.as_of:
            yield f"Lambda's runtime {runtime} is deprecated since {end}"
    for architecture in properties.get("Architectures", ()):
        if architecture not in known.architectures:
            yield f"Lambda has no architecture {architecture}"
    for name, (low, high) in (("MemorySize", known.memory_mb), ("Timeout", known.timeout_seconds)):
        if name in properties and not low <= properties[name] <= high:
            yield f"Lambda's {name} is from {low} to {high}, and the function asks for {properties[name]}"


def _log_group(properties: Properties) -> Iterator[str]:
    days = properties.get("RetentionInDays")
    if days is None:
        yield "the log group has no retention, so its events never expire"
    elif days not in facts.logs().retention_days:
        yield f"CloudWatch Logs has no retention of {days} days"


CHECKS: Mapping[str, Callable[[Properties], Iterator[str]]] = {
    "AWS::RDS::DBInstance": _database,
    "AWS::RDS::DBParameterGroup": _parameter_group,
    "AWS::Glue::Job": _job,
    "AWS::Lambda::Function": _function,
    "AWS::Logs::LogGroup": _log_group,
}
