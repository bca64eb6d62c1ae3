"""A synthesized environment for tests: its stacks, their templates and the runtime contract."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from barflow.contract import RuntimeContract
from config.environment import Environment

ROOT = Path(__file__).parents[2]
OFFICE = ("203.0.113.0/24", "198.51.100.7/32")  # networks for documentation, which are not public
Template = Mapping[str, Any]


@dataclass
class Deployment:
    """An environment with its stacks by part, such as ``Network``, and the folder of its cloud assembly."""

    environment: Environment
    stacks: Mapping[str, Any]
    assembly: Path

    @cached_property
    def templates(self) -> dict[str, Template]:
        """The templates by part."""
        return {
            part: json.loads((self.assembly / f"{stack.stack_name}.template.json").read_text())
            for part, stack in self.stacks.items()
        }

    def resources(self, part: str, kind: str) -> list[Mapping[str, Any]]:
        """Return the properties of a stack's resources of a type, such as ``AWS::Lambda::Function``."""
        found = self.templates[part]["Resources"].values()
        return [resource.get("Properties", {}) for resource in found if resource["Type"] == kind]

    def only(self, part: str, kind: str) -> Mapping[str, Any]:
        """Return the properties of the only resource of a type."""
        (found,) = self.resources(part, kind)
        return found

    def logical_id(self, part: str, kind: str) -> str:
        """Return the logical id of the only resource of a type."""
        resources = self.templates[part]["Resources"]
        (found,) = (name for name, resource in resources.items() if resource["Type"] == kind)
        return str(found)

    @cached_property
    def findings(self) -> set[tuple[str, str]]:
        """The findings of cdk-nag without an acknowledgement: (rule, construct)."""
        report = json.loads((self.assembly / "validation-report.json").read_text())
        return {
            (violation["ruleName"], construct["constructPath"])
            for plugin in report["pluginReports"]
            for violation in plugin["violations"]
            for construct in violation["violatingConstructs"]
        }

    @property
    def contract(self) -> RuntimeContract:
        """The runtime contract with CDK's tokens, in a region that has a name."""
        found: RuntimeContract = self.stacks["Orchestration"].contract
        return found.model_copy(update={"region": "us-east-1"})


Synthesize = Callable[..., Deployment]


def synthesized(environment: Environment, folder: Path, **context: str) -> Deployment:
    """Synthesize an environment into a folder, without building assets."""
    # Each worker of a test run imports this file, and only one synthesizes: CDK starts Node when it is imported.
    import aws_cdk as cdk

    import app
    from stacks.base import BarflowStack

    base = json.loads((ROOT / "cdk.json").read_text())["context"] | {"aws:cdk:bundling-stacks": []}
    made = cdk.App(context=base | context, outdir=str(folder))
    app.build(made, environment)
    stacks = {stack.part: stack for stack in made.node.children if isinstance(stack, BarflowStack)}
    with suppress(RuntimeError):  # a finding of cdk-nag, which a test checks
        made.synth()
    return Deployment(environment, stacks, folder)


def schema_of(kind: str) -> Mapping[str, Any]:
    """Return CloudFormation's schema of a type of resource."""
    from cfnlint.schema import PROVIDER_SCHEMA_MANAGER  # it takes seconds to import

    return dict(PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema)


def changed(environment: Environment, **settings: Any) -> Environment:
    """Return the environment with other values of these settings."""
    return Environment(**dict(environment) | settings)


def text_of(value: Any) -> str:
    """Return a text of a template with ``<name>`` for each token."""
    if isinstance(value, str):
        return value
    ((function, inner),) = value.items()
    if function == "Fn::Join":
        return "".join(text_of(part) for part in inner[1])
    if function == "Fn::Base64":
        return text_of(inner)
    return f"<{inner if isinstance(inner, str) else inner[0]}>"


def as_list(value: Any) -> list[Any]:
    """Return the value of a property that is either a list or a single item, as a list."""
    return value if isinstance(value, list) else [value]
