"""Refresh the facts about AWS services in config/aws.

Without options it reads what AWS publishes through the pinned packages (moto, cfn-lint, botocore). With --account it
also asks the account of the caller's profile. It only reads there; the calls are ListSupportedInstanceTypes (EMR) and
DescribeDBEngineVersions, DescribeOrderableDBInstanceOptions and DescribeEngineDefaultParameters (RDS). A file that was
read from an account stays as it is when the tool runs without --account.

    .venv/bin/python tools/refresh_aws_facts.py                                  # from the packages
    .venv/bin/python tools/refresh_aws_facts.py --account --profile barflow-dev  # and from the account
    .venv/bin/python tools/refresh_aws_facts.py --check                          # exit 1 when a file would change
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from config import versions  # noqa: E402
from config.aws.facts import FOLDER  # noqa: E402

PROVIDERS = files("cfnlint") / "data" / "schemas" / "providers"
EXTENSIONS = files("cfnlint") / "data" / "schemas" / "extensions"
ENGINE = "postgres"
HOME = "us-east-1"  # the region of the prices; its lists stand for a region that no setting names
GRAVITON = re.compile(r"(?:db\.)?(t4g|[cmrx]\d+g[dn]?)\.")
Values = dict[str, Any]


def families(instance_types: Iterable[str]) -> dict[str, str]:
    """Return the sizes of each instance family, smallest first, separated by spaces."""
    found: dict[str, set[str]] = {}
    for item in instance_types:
        family, _, size = item.rpartition(".")
        found.setdefault(family, set()).add(size)
    return {family: " ".join(sorted(found[family], key=_by_size)) for family in sorted(found)}


def _by_size(size: str) -> tuple[int, int]:
    names = ("nano", "micro", "small", "medium", "large")
    if size in names:
        return 0, names.index(size)
    number = re.match(r"\d*", size)
    return 1, int(number.group() or 1) if number else 1


def _schema(name: str) -> Any:
    return json.loads((EXTENSIONS / name).read_text(encoding="utf-8"))


def _property(kind: str, name: str) -> Any:
    """Return the schema of a property of a CloudFormation resource type."""
    from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

    return PROVIDER_SCHEMA_MANAGER.get_resource_schema(HOME, kind).schema["properties"][name]


def published_emr() -> Values:
    """Return the instance types of the EMR release, from moto's copy of ListSupportedInstanceTypes."""
    listed = files("moto") / "emr" / "resources" / f"instance-types-{versions.EMR_RELEASE}.json.gz"
    return {
        "source": f"EMR ListSupportedInstanceTypes, as moto {version('moto')} ships it",
        "release": versions.EMR_RELEASE,
        "families": families(json.loads(gzip.decompress(listed.read_bytes()))),
    }


def published_rds() -> Values:
    """Return the versions and Graviton classes of RDS for PostgreSQL, from cfn-lint."""
    known = _of_engine(_schema("aws_rds_dbinstance/engine_version.json"))
    deprecated = _deprecated(_schema("aws_rds_dbinstance/engine_version_deprecated.json"))
    majors = tuple(f"{major}." for major in versions.POSTGRESQL_MAJORS)
    mine = [item for item in known if f"{item}.".startswith(majors)]
    return {
        "source": f"cfn-lint {version('cfn-lint')}, from RDS DescribeDBEngineVersions and the price list",
        "engine_versions": " ".join(sorted(mine, key=_by_version)),
        "deprecated_versions": " ".join(sorted(set(mine) & set(deprecated), key=_by_version)),
        "classes": families(item for item in _rds_classes(HOME) if GRAVITON.match(item)),
    }


def _by_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _of_engine(schema: Any) -> list[str]:
    """Return the versions that a schema of cfn-lint allows for the engine."""
    for rule in schema["allOf"]:
        if rule["if"]["properties"]["Engine"].get("const") == ENGINE:
            return list(rule["then"]["properties"]["EngineVersion"]["enum"])
    raise SystemExit(f"error: cfn-lint has no versions of {ENGINE}; nothing was written")


def _deprecated(schema: Any) -> list[str]:
    for rule in schema["allOf"]:
        if rule["if"]["properties"]["Engine"].get("const") == ENGINE:
            return list(rule["if"]["properties"]["EngineVersion"]["enum"])
    return []


def _rds_classes(region: str) -> set[str]:
    found: set[str] = set()
    for rule in _schema("aws_rds_dbinstance/dbinstanceclass_enum.json").get(region, {}).get("allOf", ()):
        if rule["if"]["properties"].get("Engine", {}).get("const") == ENGINE:
            found |= set(rule["then"]["properties"]["DBInstanceClass"]["enum"])
    return found


def published_glue() -> Values:
    """Return the worker types of Glue, from botocore."""
    import botocore.session

    shape = botocore.session.get_session().get_service_model("glue").shape_for("WorkerType")
    return {"worker_types": " ".join(sorted(shape.enum))}


def published_lambda() -> Values:
    """Return the runtimes, architectures and limits of Lambda, from cfn-lint."""
    ends = json.loads((files("cfnlint") / "data/AdditionalSpecs/LmbdRuntimeLifecycle.json").read_text())
    runtimes = _property("AWS::Lambda::Function", "Runtime")["enum"]
    memory = _property("AWS::Lambda::Function", "MemorySize")
    return {
        "source": f"cfn-lint {version('cfn-lint')}: CloudFormation's schema and Lambda's table of deprecations",
        "runtimes": {name: ends.get(name, {}).get("deprecated") for name in sorted(runtimes)},
        "architectures": " ".join(_property("AWS::Lambda::Function", "Architectures")["items"]["enum"]),
        "memory_mb": [memory["minimum"], 10240],
        "timeout_seconds": [_property("AWS::Lambda::Function", "Timeout")["minimum"], 900],
    }


def published_logs() -> Values:
    """Return the retentions of CloudWatch Logs, from CloudFormation's schema."""
    return {
        "source": f"CloudFormation's schema of AWS::Logs::LogGroup, as cfn-lint {version('cfn-lint')} ships it",
        "retention_days": _property("AWS::Logs::LogGroup", "RetentionInDays")["enum"],
    }


def published_regions() -> Values:
    """Return what each region lacks: resource types of the templates, and Graviton families."""
    emr = _schema("aws_emr_cluster/instancetypeconfig_instancetype_enum.json")
    ec2 = _schema("aws_ec2_instance/instancetype_enum.json")
    known = sorted(region for region in set(emr) & set(ec2) if _registry(region))
    offered = {
        "missing_ec2": {region: set(ec2[region]["enum"]) for region in known},
        "missing_emr": {region: set(emr[region]["enum"]) for region in known},
        "missing_rds": {region: _rds_classes(region) for region in known},
    }
    used = types_in_templates()
    missing = {region: sorted(used - _registry(region)) for region in known}
    return {
        "source": f"cfn-lint {version('cfn-lint')}: the CloudFormation registry and the price list of each region",
        "regions": " ".join(known),
        "missing_types": _named(missing),
        **{name: _named(_without(of_region)) for name, of_region in offered.items()},
    }


def _registry(region: str) -> set[str]:
    """Return the resource types that CloudFormation has in a region."""
    path = PROVIDERS / f"{region}.json"
    return set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()


def _without(of_region: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """Return the Graviton families of the home region that each region lacks entirely."""
    have = {
        region: {item.rpartition(".")[0] for item in items if GRAVITON.match(item)}
        for region, items in of_region.items()
    }
    return {region: sorted(have[HOME] - families_here) for region, families_here in have.items()}


def _named(lists: Mapping[str, Iterable[str]]) -> dict[str, str]:
    return {name: " ".join(items) for name, items in lists.items() if items}


def types_in_templates() -> set[str]:
    """Return the AWS resource types of the committed templates."""
    templates = (ROOT / "tests" / "snapshots").glob("*/*.json")
    resources = (item for path in templates for item in json.loads(path.read_text())["Resources"].values())
    return {item["Type"] for item in resources if item["Type"].startswith("AWS::")}


def account_emr(client: Callable[[str], Any]) -> Values:
    """Return the instance types of the EMR release that the account's region has."""
    emr = client("emr")
    found: list[str] = []
    marker: dict[str, str] = {}
    while True:  # botocore has no paginator for this call
        page = emr.list_supported_instance_types(ReleaseLabel=versions.EMR_RELEASE, **marker)
        found += [item["Type"] for item in page["SupportedInstanceTypes"]]
        if not page.get("Marker"):
            return {
                "source": "EMR ListSupportedInstanceTypes",
                "release": versions.EMR_RELEASE,
                "families": families(found),
                "note": "",
            }
        marker = {"Marker": page["Marker"]}


def account_rds(client: Callable[[str], Any], held: Values) -> Values:
    """Return the versions, classes and parameter values of RDS in the account's region."""
    rds = client("rds")
    listed = [
        item
        for page in rds.get_paginator("describe_db_engine_versions").paginate(Engine=ENGINE, IncludeAll=True)
        for item in page["DBEngineVersions"]
        if item["EngineVersion"].split(".")[0] in versions.POSTGRESQL_MAJORS
    ]
    options = rds.get_paginator("describe_orderable_db_instance_options").paginate(
        Engine=ENGINE, EngineVersion=versions.POSTGRESQL
    )
    classes = {item["DBInstanceClass"] for page in options for item in page["OrderableDBInstanceOptions"]}
    majors = sorted({item["EngineVersion"].split(".")[0] for item in listed}, key=int)
    return {
        "source": "RDS DescribeDBEngineVersions, DescribeOrderableDBInstanceOptions, DescribeEngineDefaultParameters",
        "note": "",
        "engine_versions": " ".join(sorted({item["EngineVersion"] for item in listed} | set(majors), key=_by_version)),
        "deprecated_versions": " ".join(
            sorted((i["EngineVersion"] for i in listed if i.get("Status") == "deprecated"), key=_by_version)
        ),
        "classes": families(item for item in classes if GRAVITON.match(item)),
        "parameters": {
            family: _account_parameters(rds, family, parameters) for family, parameters in held["parameters"].items()
        },
    }


def _account_parameters(rds: Any, family: str, held: Mapping[str, Any]) -> dict[str, Values]:
    pages = rds.get_paginator("describe_engine_default_parameters").paginate(DBParameterGroupFamily=family)
    found = {item["ParameterName"]: item for page in pages for item in page["EngineDefaults"]["Parameters"]}
    unknown = sorted(set(held) - set(found))
    if unknown:
        raise SystemExit(f"error: {family} has no parameter {', '.join(unknown)}; nothing was written")
    return {
        name: {"data_type": found[name]["DataType"], "allowed_values": found[name].get("AllowedValues")}
        for name in sorted(held)
    }


def refreshed(held: Mapping[str, Values]) -> dict[str, Values]:
    """Return the facts of every file with what the packages publish.

    What no package publishes stays, and so does a file that was read from an account.
    """
    published: dict[str, Values] = {
        "emr": published_emr(),
        "rds": published_rds(),
        "glue": published_glue(),
        "lambda": published_lambda(),
        "logs": published_logs(),
        "regions": published_regions(),
    }
    return {
        name: dict(values) | ({} if values.get("read_in") else published.get(name, {})) for name, values in held.items()
    }


def from_account(held: Mapping[str, Values], client: Callable[[str], Any], region: str) -> dict[str, Values]:
    """Return the facts of every file with what the account answers."""
    found = {name: dict(values) for name, values in held.items()}
    found["emr"] |= account_emr(client) | {"read_in": region}
    found["rds"] |= account_rds(client, found["rds"]) | {"read_in": region}
    return found


def read(folder: Path) -> dict[str, Values]:
    """Return the facts of every file of the folder."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def dated(old: Mapping[str, Values], new: Mapping[str, Values], today: date) -> dict[str, Values]:
    """Return the new facts. Files that change get today's date."""
    return {
        name: values if values == old.get(name) else values | {"as_of": today.isoformat()}
        for name, values in new.items()
    }


def write(folder: Path, facts: Mapping[str, Values]) -> None:
    """Write every file of the folder."""
    for name, values in facts.items():
        text = json.dumps(values, indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _session(profile: str | None, region: str | None) -> tuple[Callable[[str], Any], str]:
    import boto3

    session = boto3.Session(profile_name=profile, region_name=region)
    if not session.region_name:
        raise SystemExit("error: no region; nothing was written. Give --region, or set one in the profile")
    return session.client, session.region_name


def main(argv: list[str] | None = None) -> int:
    """Refresh the facts. Return 1 when --check finds that a file would change or when AWS does not answer."""
    parser = argparse.ArgumentParser(
        description="Refresh the facts about AWS services in config/aws.",
        epilog="Example:  tools/refresh_aws_facts.py --account --profile barflow-dev --region us-east-1",
    )
    parser.add_argument("--account", action="store_true", help="also ask the account (read-only calls)")
    parser.add_argument("--profile", help="the AWS profile (default: the caller's)")
    parser.add_argument("--region", help="the AWS region (default: the profile's)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file would change")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the folder of the facts (default: config/aws)")
    options = parser.parse_args(argv)
    held = read(options.folder)
    facts = refreshed(held)
    if options.account:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client, region = _session(options.profile, options.region)
            facts = from_account(facts, client, region)
        except (BotoCoreError, ClientError) as error:
            print(f"error: the account did not answer: {error}. Nothing was written.", file=sys.stderr)
            return 1
    changed = sorted(name for name, values in facts.items() if values != held.get(name))
    if options.check:
        print("\n".join(f"{name}.json would change" for name in changed) or "the facts are current")
        return 1 if changed else 0
    write(options.folder, dated(held, facts, datetime.now(UTC).date()))
    print("\n".join(f"{name}.json changed" for name in changed) or "the facts are current")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
