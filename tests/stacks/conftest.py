"""Which templates do the tests of the stacks look at? An environment's, synthesized once, assets left unbuilt."""

from __future__ import annotations

import json
from contextlib import suppress

import aws_cdk as cdk
import pytest
from deployments import ROOT, Deployment, Synthesize

import app
from config.environment import Environment
from config.environments import dev, prod, staging
from stacks.base import BarflowStack


@pytest.fixture(scope="session")
def synthesize(tmp_path_factory: pytest.TempPathFactory) -> Synthesize:
    """Makes the templates of an environment, judged by cdk-nag; further context, such as a flag, by keyword."""
    context = json.loads((ROOT / "cdk.json").read_text())["context"] | {"aws:cdk:bundling-stacks": []}

    def make(environment: Environment, **flags: str) -> Deployment:
        outdir = tmp_path_factory.mktemp(environment.name)
        made = cdk.App(context=context | flags, outdir=str(outdir))
        app.build(made, environment)
        stacks = {stack.part: stack for stack in made.node.children if isinstance(stack, BarflowStack)}
        with suppress(RuntimeError):  # a finding without an answer, which one test is about
            made.synth()
        return Deployment(environment, stacks, outdir)

    return make


@pytest.fixture(scope="session")
def dev_deployment(synthesize: Synthesize) -> Deployment:
    return synthesize(dev())


@pytest.fixture(scope="session")
def staging_deployment(synthesize: Synthesize) -> Deployment:
    return synthesize(staging())


@pytest.fixture(scope="session")
def prod_deployment(synthesize: Synthesize) -> Deployment:
    return synthesize(prod())


@pytest.fixture(scope="session")
def deployments(
    dev_deployment: Deployment, staging_deployment: Deployment, prod_deployment: Deployment
) -> list[Deployment]:
    """Every environment there is."""
    return [dev_deployment, staging_deployment, prod_deployment]
