"""Which templates do the tests of the stacks look at? An environment's, synthesized once, assets left unbuilt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

import app
from barflow.contract import Notify, RuntimeContract
from config.environment import Environment
from config.environments import dev
from stacks.base import BarflowStack
from stacks.settings import pipeline_settings

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

    @property
    def contract(self) -> RuntimeContract:
        """The runtime contract as the stacks give it, less what no test here asks for."""
        secrets, storage, database = (self.stacks[part] for part in ("Secrets", "Storage", "Database"))
        return RuntimeContract(
            env=self.environment.name,
            region="us-east-1",
            settings=pipeline_settings(self.environment, secrets, storage, database),
            storage=storage.contract,
            warehouse=database.contract,
            ingestion=self.stacks["Ingestion"].contract,
            emr=self.stacks["Processing"].contract,
            glue=self.stacks["Catalog"].contract,
            airflow=secrets.contract,
            notify=Notify(slack_secret="", slack_channel="", alerts_topic_arn=None),
        )


@pytest.fixture(scope="session")
def synthesize(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Environment], Deployment]:
    """Makes the templates of an environment."""
    context = json.loads((ROOT / "cdk.json").read_text())["context"]

    def make(environment: Environment) -> Deployment:
        outdir = tmp_path_factory.mktemp(environment.name)
        made = cdk.App(context={**context, "aws:cdk:bundling-stacks": []}, outdir=str(outdir))
        stacks = {stack.part: stack for stack in app.build(made, environment) if isinstance(stack, BarflowStack)}
        made.synth()
        return Deployment(environment, stacks, outdir)

    return make


@pytest.fixture(scope="session")
def dev_deployment(synthesize: Callable[[Environment], Deployment]) -> Deployment:
    return synthesize(dev())
