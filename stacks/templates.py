"""The templates of a cloud assembly, with each reference resolved to an example of what AWS makes of it.

An example has the account, region and partition of the deployment, and the resource's fixed name or its logical id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Values = Mapping[str, Any]
# What Ref and Fn::GetAtt give, where that is an ARN: its service, and what follows the account.
ARNS = {
    ("AWS::Glue::Database", "Arn"): ("glue", "database/{name}"),
    ("AWS::IAM::ManagedPolicy", "Ref"): ("iam", "policy/{name}"),
    ("AWS::IAM::Role", "Arn"): ("iam", "role/{name}"),
    ("AWS::KMS::Key", "Arn"): ("kms", "key/{name}"),
    ("AWS::Lambda::Function", "Arn"): ("lambda", "function:{name}"),
    ("AWS::Lambda::Version", "Ref"): ("lambda", "function:{name}:1"),
    ("AWS::Logs::LogGroup", "Arn"): ("logs", "log-group:{name}:*"),
    ("AWS::RDS::DBInstance", "DBInstanceArn"): ("rds", "db:{name}"),
    ("AWS::RDS::DBInstance", "MasterUserSecret.SecretArn"): ("secretsmanager", "secret:rds-{name}"),
    ("AWS::S3::Bucket", "Arn"): ("s3", "{name}"),
    ("AWS::SNS::Topic", "Ref"): ("sns", "{name}"),
    ("AWS::SNS::Topic", "TopicArn"): ("sns", "{name}"),
    ("AWS::SQS::Queue", "Arn"): ("sqs", "{name}"),
    ("AWS::SecretsManager::Secret", "Ref"): ("secretsmanager", "secret:{name}-a1B2c3"),
    ("AWS::SecretsManager::SecretTargetAttachment", "Ref"): ("secretsmanager", "secret:{name}-a1B2c3"),
}
# ARNs without a region, and S3's without an account too.
GLOBAL = {"iam": "arn:{partition}:iam::{account}:", "s3": "arn:{partition}:s3:::"}
NAMES = {
    "AWS::Athena::WorkGroup": ("Name",),
    "AWS::Budgets::Budget": ("Budget", "BudgetName"),
    "AWS::CloudWatch::Alarm": ("AlarmName",),
    "AWS::CloudWatch::Dashboard": ("DashboardName",),
    "AWS::EMR::SecurityConfiguration": ("Name",),
    "AWS::Glue::DataQualityRuleset": ("Name",),
    "AWS::Glue::Database": ("DatabaseInput", "Name"),
    "AWS::Glue::SecurityConfiguration": ("Name",),
    "AWS::Lambda::Function": ("FunctionName",),
    "AWS::Logs::LogGroup": ("LogGroupName",),
    "AWS::SNS::Topic": ("TopicName",),
    "AWS::SQS::Queue": ("QueueName",),
    "AWS::SSM::Parameter": ("Name",),
    "AWS::SecretsManager::Secret": ("Name",),
}


@dataclass(frozen=True)
class Stack:
    """A stack of the assembly: its template, and the bootstrap version that it requires, with its SSM parameter."""

    name: str
    template: Values
    bootstrap_version: int
    bootstrap_parameter: str

    def resources(self, kind: str | None = None) -> Iterator[tuple[str, Values]]:
        """Yield the logical id and the body of each resource, or of those of one type."""
        for logical_id, body in self.template.get("Resources", {}).items():
            if kind in (None, body["Type"]):
                yield logical_id, body


def read_stacks(assembly: Path) -> list[Stack]:
    """Return the stacks of a cloud assembly. Raise OSError or KeyError for any other folder."""
    artifacts = json.loads((assembly / "manifest.json").read_text(encoding="utf-8"))["artifacts"]
    return [
        Stack(
            found["properties"].get("stackName", name),
            json.loads((assembly / found["properties"]["templateFile"]).read_text(encoding="utf-8")),
            int(found["properties"].get("requiresBootstrapStackVersion", 0)),
            found["properties"].get("bootstrapStackVersionSsmParameter", ""),
        )
        for name, found in artifacts.items()
        if found["type"] == "aws:cloudformation:stack"
    ]


@dataclass
class Resolver:
    """Resolve values of the templates for one account, region and partition."""

    stacks: list[Stack]
    account: str
    region: str
    partition: str
    _exports: dict[str, tuple[Stack, Any]] = field(init=False)

    def __post_init__(self) -> None:
        """Collect the exports of all stacks."""
        self._exports = {
            output["Export"]["Name"]: (stack, output["Value"])
            for stack in self.stacks
            for output in stack.template.get("Outputs", {}).values()
            if "Export" in output
        }

    def resolve(self, stack: Stack, value: Any) -> Any:
        """Return a value with every function of CloudFormation in it resolved.

        Raise ValueError for a function that is not supported.
        """
        if isinstance(value, list):
            return [self.resolve(stack, item) for item in value]
        if not isinstance(value, Mapping):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._call(stack, name, argument)
        return {key: self.resolve(stack, item) for key, item in value.items()}

    def name(self, stack: Stack, logical_id: str) -> str | None:
        """Return the fixed name of a resource, or None if CloudFormation or another resource's name decides it."""
        body = stack.template["Resources"][logical_id]
        found: Any = body.get("Properties", {})
        for key in NAMES.get(body["Type"], ()):
            found = found.get(key) if isinstance(found, Mapping) else None
        if not NAMES.get(body["Type"]) or found is None or not self.is_fixed(stack, found):
            return None
        return str(self.resolve(stack, found))

    def is_fixed(self, stack: Stack, value: Any) -> bool:
        """Return whether a value uses no resource whose name CloudFormation generates."""
        if isinstance(value, list):
            return all(self.is_fixed(stack, item) for item in value)
        if not isinstance(value, Mapping):
            return True
        target = value.get("Ref") or (value.get("Fn::GetAtt") or [None])[0]
        if target in stack.template.get("Resources", {}):
            return self.name(stack, target) is not None
        return all(self.is_fixed(stack, item) for item in value.values())

    def _call(self, stack: Stack, name: str, argument: Any) -> Any:
        if name == "Ref":
            return self._pseudo().get(argument) or self._made(stack, argument, "Ref")
        if name == "Fn::GetAtt":
            return self._made(stack, argument[0], argument[1])
        if name == "Fn::Join":
            return str(argument[0]).join(str(self.resolve(stack, part)) for part in argument[1])
        if name == "Fn::Sub" and isinstance(argument, str):
            return re.sub(r"\$\{(.+?)\}", lambda found: str(self._call(stack, "Ref", found[1])), argument)
        if name == "Fn::ImportValue":
            place, exported = self._exports[argument]
            return self.resolve(place, exported)
        raise ValueError(f"{stack.name} uses {name}, which stacks/templates.py does not resolve")

    def _pseudo(self) -> dict[str, str]:
        return {
            "AWS::AccountId": self.account,
            "AWS::Partition": self.partition,
            "AWS::Region": self.region,
            "AWS::StackName": "stack",
            "AWS::URLSuffix": "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com",
        }

    def _made(self, stack: Stack, logical_id: str, attribute: str) -> str:
        """Return an example of a resource's attribute."""
        body = stack.template.get("Resources", {}).get(logical_id)
        if body is None:  # a parameter
            return logical_id
        if body["Type"] == "AWS::SecretsManager::SecretTargetAttachment":
            return str(self.resolve(stack, body["Properties"]["SecretId"]))
        name = self.name(stack, logical_id) or logical_id.lower()
        if (body["Type"], attribute) not in ARNS:
            return name
        service, rest = ARNS[body["Type"], attribute]
        start = GLOBAL.get(service, "arn:{partition}:{service}:{region}:{account}:")
        places = {"partition": self.partition, "service": service, "region": self.region, "account": self.account}
        return start.format(**places) + rest.format(name=name)
