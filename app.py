"""The CDK application: reads the environment's name from the context and builds its stacks. Nothing else."""

from __future__ import annotations

import sys

import aws_cdk as cdk
import cdk_nag

from config.environment import Environment
from config.environments import environment
from config.validation import ConfigError
from stacks.database import DatabaseStack
from stacks.ingestion import IngestionStack
from stacks.network import NetworkStack
from stacks.secrets import SecretsStack
from stacks.settings import pipeline_settings
from stacks.storage import StorageStack


def build(app: cdk.App, config: Environment) -> list[cdk.Stack]:
    """All stacks of one environment, each given what it builds on."""
    secrets = SecretsStack(app, config)
    network = NetworkStack(app, config, keys=secrets.keys)
    storage = StorageStack(app, config, vpc=network.vpc, groups=network.groups, keys=secrets.keys)
    database = DatabaseStack(app, config, vpc=network.vpc, groups=network.groups, keys=secrets.keys)
    ingestion = IngestionStack(
        app,
        config,
        vpc=network.vpc,
        groups=network.groups,
        keys=secrets.keys,
        secrets=secrets,
        settings=pipeline_settings(config, secrets, storage, database),
    )
    return [secrets, network, storage, database, ingestion]


def main() -> None:
    app = cdk.App()
    try:
        build(app, environment(app.node.try_get_context("env") or "dev"))
    except ConfigError as error:
        sys.exit(f"error: {error}")
    cdk.Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app), cdk_nag.NIST80053R5Checks(app))
    app.synth()


if __name__ == "__main__":
    main()
