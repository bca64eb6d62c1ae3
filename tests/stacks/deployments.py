"""What is a deployment to a test of the stacks? An environment with its stacks, their templates and their contract."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from barflow.contract import RuntimeContract
from config.environment import Environment

ROOT = Path(__file__).parents[2]
Template = Mapping[str, Any]


@dataclass
class Deployment:
    """An environment's stacks by their part's name, and their templates."""

    environment: Environment
    stacks: Mapping[str, Any]
    assembly: Path

    @cached_property
    def templates(self) -> dict[str, Template]:
        return {
            part: json.loads((self.assembly / f"{stack.stack_name}.template.json").read_text())
            for part, stack in self.stacks.items()
        }

    def resources(self, part: str, kind: str) -> list[Mapping[str, Any]]:
        """The properties of a stack's resources of a kind, such as ``AWS::Lambda::Function``."""
        found = self.templates[part]["Resources"].values()
        return [resource.get("Properties", {}) for resource in found if resource["Type"] == kind]

    def only(self, part: str, kind: str) -> Mapping[str, Any]:
        (found,) = self.resources(part, kind)
        return found

    @cached_property
    def findings(self) -> set[tuple[str, str]]:
        """What cdk-nag found and nobody answered: (rule, construct)."""
        report = json.loads((self.assembly / "validation-report.json").read_text())
        return {
            (violation["ruleName"], construct["constructPath"])
            for plugin in report["pluginReports"]
            for violation in plugin["violations"]
            for construct in violation["violatingConstructs"]
        }

    @property
    def contract(self) -> RuntimeContract:
        """The runtime contract as the stack of the host gives it, tokens and all, in a region that has a name."""
        found: RuntimeContract = self.stacks["Orchestration"].contract
        return found.model_copy(update={"region": "us-east-1"})


Synthesize = Callable[..., Deployment]


def changed(environment: Environment, **settings: Any) -> Environment:
    """Return the environment with other values of these settings."""
    return Environment(**dict(environment) | settings)
