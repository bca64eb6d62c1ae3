"""Compare the synthesized templates with the committed ones, and list the changes by danger.

    .venv/bin/python tools/review.py dev             # cdk.out against the committed tests/snapshots/dev
    .venv/bin/python tools/review.py dev --update    # accept: write the templates as the new baseline

The kinds, worst first: `data` (a stateful resource is replaced, deleted or less protected), `access` (IAM allows more
or denies less), `network` (a security group allows more), `other`. The exit code is 1 for changes of `data` and
`access`, unless the same change acknowledges each in tests/snapshots/acknowledged.toml:

    [[acknowledged]]
    kind = "access"
    resource = "Barflow-dev-Processing/StepRole"      # or only its start
    reason = "the step reads a second secret"
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

ROOT = Path(__file__).parents[1]
SNAPSHOTS = Path("tests/snapshots")
ACKNOWLEDGED = SNAPSHOTS / "acknowledged.toml"
DATA, ACCESS, NETWORK, OTHER = KINDS = ("data", "access", "network", "other")
MUST_BE_ACKNOWLEDGED = (DATA, ACCESS)
STATEFUL = {
    "AWS::S3::Bucket",
    "AWS::RDS::DBInstance",
    "AWS::KMS::Key",
    "AWS::SecretsManager::Secret",
    "AWS::Logs::LogGroup",
    "AWS::EC2::Volume",
    "AWS::EC2::EIP",
    "AWS::SQS::Queue",
    "AWS::Glue::Database",
}
# The policies that keep the data of a deployed resource.
KEEPS = ("Retain", "RetainExceptOnCreate", "Snapshot")
# The properties of resources that contain IAM statements.
POLICIES = (
    "PolicyDocument",
    "AssumeRolePolicyDocument",
    "KeyPolicy",
    "ResourcePolicy",
    "Policies",
    "ManagedPolicyArns",
)
# What differs between builds: hashes of assets and releases, and of the host and function versions that depend on them.
HASH = re.compile(
    r"\b[0-9a-f]{64}\b|(?<=releases/)[0-9a-f]{16}|(?<=\bHost)[0-9a-f]{8}\b|(?<=RefHost)[0-9a-f]{8}[0-9A-F]{8}"
    r"|(?<=CurrentVersion)[0-9A-F]{8}[0-9a-f]{32}"
)
Template = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """A difference: its kind, the resource as ``STACK/LOGICAL_ID (type)``, and what happens."""

    kind: str
    resource: str
    what: str


def normalised(template: Template) -> dict[str, Any]:
    """Return the template without what differs between builds, and without the metadata of resources."""
    made: dict[str, Any] = json.loads(HASH.sub("HASH", json.dumps(template, sort_keys=True)))
    for resource in made.get("Resources", {}).values():
        resource.pop("Metadata", None)
    return made


def compare(stack: str, old: Template, new: Template) -> list[Change]:
    """Return the changes of one stack, worst kind first."""
    before, after = old.get("Resources", {}), new.get("Resources", {})
    changes: list[Change] = []
    for name in sorted({*before, *after}):
        changes += _compare_resource(stack, name, before.get(name), after.get(name))
    for part in sorted(({*old, *new}) - {"Resources"}):
        if old.get(part) != new.get(part):
            changes.append(Change(OTHER, f"{stack}/{part}", "changed"))
    return sorted(changes, key=lambda change: KINDS.index(change.kind))


def _compare_resource(stack: str, name: str, old: Template | None, new: Template | None) -> list[Change]:
    if old == new:
        return []
    resource = new or old or {}
    label = f"{stack}/{name} ({resource['Type']})"
    changes = []
    danger = _data_danger(old, new)
    if danger:
        changes.append(Change(DATA, label, danger))
    allowed = sorted(_permissions(new) - _permissions(old))
    changes += [Change(ACCESS, label, f"now allows {permission}") for permission in allowed]
    changes += [
        Change(ACCESS, label, f"no longer denies {permission}")
        for permission in sorted(_permissions(old, "Deny") - _permissions(new, "Deny"))
    ]
    changes += [Change(NETWORK, label, f"now allows traffic {rule}") for rule in sorted(_rules(new) - _rules(old))]
    if not changes:
        verb = "added" if old is None else "removed" if new is None else "changed"
        changes.append(Change(OTHER, label, verb + _changed_properties(old, new)))
    return changes


def _data_danger(old: Template | None, new: Template | None) -> str:
    """Return how the change endangers the data of a stateful resource, or an empty string."""
    if old is None or old["Type"] not in STATEFUL:
        return ""
    if new is None:
        retained = old.get("DeletionPolicy") in KEEPS
        return f"deleted {'from the stack, and retained by its policy' if retained else 'with its data'}"
    if old["Type"] != new["Type"]:
        return f"replaced by a {new['Type']}"
    fixed = [name for name in create_only(old["Type"]) if _at(old, name) != _at(new, name)]
    if fixed:
        return f"replaced, because {', '.join(fixed)} cannot be changed in place"
    for policy in ("DeletionPolicy", "UpdateReplacePolicy"):
        if old.get(policy) in KEEPS and new.get(policy, "Delete") == "Delete":
            return f"{policy} was {old[policy]} and is {new.get(policy, 'Delete')}"
    if _at(old, "DeletionProtection") is True and _at(new, "DeletionProtection") is not True:
        return "DeletionProtection is off"
    return ""


def create_only(kind: str) -> list[str]:
    """Return the properties whose change replaces a resource, from the CloudFormation schema of its type."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    return [path.removeprefix("/properties/") for path in schema.get("createOnlyProperties") or []]


def _at(resource: Template, path: str) -> Any:
    found: Any = resource.get("Properties", {})
    for part in path.split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _permissions(resource: Template | None, effect: str = "Allow") -> set[str]:
    """Return every permission that a resource's policies allow (or deny), as text."""
    if resource is None:
        return set()
    properties = resource.get("Properties", {})
    found = set()
    for statement in _statements({name: properties[name] for name in POLICIES if name in properties}):
        if isinstance(statement, str):
            found |= {f"all of {statement}"} if effect == "Allow" else set()
            continue
        if statement["Effect"] != effect:
            continue
        who = [f"{kind} {item}" for kind, names in _principals(statement) for item in _texts(names)] or [""]
        when = f" if {json.dumps(statement['Condition'], sort_keys=True)}" if "Condition" in statement else ""
        for name in ("Action", "NotAction"):
            for action in _texts(statement.get(name, [])):
                for target in _texts(statement.get("Resource", statement.get("NotResource", ""))):
                    found |= {
                        f"{name if name != 'Action' else ''}{action} on {target} {item}{when}".strip() for item in who
                    }
    if resource["Type"] == "AWS::Lambda::Permission" and effect == "Allow":
        found.add(f"{properties.get('Action')} to {json.dumps(properties.get('Principal'), sort_keys=True)}")
    return found


def _statements(value: Any) -> Iterator[Any]:
    """Yield the statements of a policy document or of inline policies, and the ARNs of managed policies."""
    if isinstance(value, Mapping):
        if "Effect" in value:
            yield value
        for name, item in value.items():
            if name == "ManagedPolicyArns":
                yield from _texts(item)
            elif "Effect" not in value:
                yield from _statements(item)
    elif isinstance(value, list):
        for item in value:
            yield from _statements(item)


def _principals(statement: Template) -> list[tuple[str, Any]]:
    principal = statement.get("Principal", {})
    return list(principal.items()) if isinstance(principal, Mapping) else [("anyone", principal)]


def _texts(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item if isinstance(item, str) else json.dumps(item, sort_keys=True) for item in items]


def _rules(resource: Template | None) -> set[str]:
    """Return every rule of a security group, as text."""
    if resource is None:
        return set()
    properties = resource.get("Properties", {})
    listed = []
    if resource["Type"] == "AWS::EC2::SecurityGroup":
        listed = [("in", rule) for rule in properties.get("SecurityGroupIngress", [])]
        listed += [("out", rule) for rule in properties.get("SecurityGroupEgress", [])]
    elif resource["Type"] in ("AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"):
        listed = [("in" if resource["Type"].endswith("Ingress") else "out", properties)]
    bare = ((way, {name: item for name, item in rule.items() if name != "Description"}) for way, rule in listed)
    return {f"{way} {json.dumps(rule, sort_keys=True)}" for way, rule in bare}


def _changed_properties(old: Template | None, new: Template | None) -> str:
    if old is None or new is None:
        return ""
    before, after = old.get("Properties", {}), new.get("Properties", {})
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return f": {', '.join(names)}" if names else ""


def synthesized(env: str, assembly: Path) -> dict[str, dict[str, Any]]:
    """Return the normalised templates of an environment in a cloud assembly, by stack."""
    found = sorted(assembly.glob(f"Barflow-{env}-*.template.json"))
    if not found:
        raise SystemExit(f"error: {assembly} has no templates of {env}. Run `make synth ENV={env}`, then try again.")
    return {path.name.split(".")[0]: normalised(json.loads(path.read_text())) for path in found}


def committed(env: str, base: str) -> dict[str, dict[str, Any]]:
    """Return the templates of the baseline in a git revision, by stack."""
    listed = _git("ls-tree", "--name-only", base, f"{SNAPSHOTS / env}/").splitlines()
    return {Path(name).stem: json.loads(_git("show", f"{base}:{name}")) for name in listed}


def acknowledged(base: str) -> list[dict[str, str]]:
    """Return the acknowledgements of the work tree that the base does not have."""
    path = ROOT / ACKNOWLEDGED
    mine = tomllib.loads(path.read_text()).get("acknowledged", []) if path.exists() else []
    committed_text = _git("show", f"{base}:{ACKNOWLEDGED}", missing="")
    theirs = tomllib.loads(committed_text).get("acknowledged", [])
    for entry in mine:
        if entry.get("kind") not in KINDS or not entry.get("resource") or not entry.get("reason", "").strip():
            raise SystemExit(f"error: {ACKNOWLEDGED}: each entry needs kind ({', '.join(KINDS)}), resource and reason")
    return [entry for entry in mine if entry not in theirs]


def _git(*arguments: str, missing: str | None = None) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    if missing is not None:
        return missing
    raise SystemExit(f"error: git {arguments[0]}: {done.stderr.strip()}")


def unacknowledged(changes: list[Change], entries: list[dict[str, str]]) -> list[Change]:
    """Return the changes that need an acknowledgement and have none."""
    return [
        change
        for change in changes
        if change.kind in MUST_BE_ACKNOWLEDGED
        and not any(item["kind"] == change.kind and change.resource.startswith(item["resource"]) for item in entries)
    ]


def review(env: str, assembly: Path, base: str) -> int:
    """Print the changes by kind. Return the exit code."""
    old, new = committed(env, base), synthesized(env, assembly)
    changes = [
        change for stack in sorted({*old, *new}) for change in compare(stack, old.get(stack, {}), new.get(stack, {}))
    ]
    if not changes:
        print(f"{env}: no changes")
        return 0
    for kind in KINDS:
        found = [change for change in changes if change.kind == kind]
        if found:
            print(f"{kind}: {len(found)}")
            print("".join(f"  {change.resource}: {change.what}\n" for change in found), end="")
    missing = unacknowledged(changes, acknowledged(base))
    if missing:
        print(
            f"error: {len(missing)} changes of {' and '.join(MUST_BE_ACKNOWLEDGED)} are not acknowledged. "
            f"Undo them, or add each with a reason to {ACKNOWLEDGED}.",
            file=sys.stderr,
        )
    return 1 if missing else 0


def update(env: str, assembly: Path) -> None:
    """Write the synthesized templates as the baseline."""
    folder = ROOT / SNAPSHOTS / env
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for stack, template in synthesized(env, assembly).items():
        (folder / f"{stack}.json").write_text(json.dumps(template, indent=1, sort_keys=True) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("env", help="dev, staging or prod")
    parser.add_argument("--assembly", type=Path, default=ROOT / "cdk.out", help="the cloud assembly (default: cdk.out)")
    parser.add_argument("--base", default="HEAD", help="the git revision of the baseline (default: HEAD)")
    parser.add_argument("--update", action="store_true", help="write the templates as the new baseline")
    options = parser.parse_args(argv)
    if options.update:
        update(options.env, options.assembly)
        return 0
    return review(options.env, options.assembly, options.base)


if __name__ == "__main__":
    raise SystemExit(main())
