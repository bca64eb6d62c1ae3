"""The CDK application: reads the environment's name from the context and builds its stacks. Nothing else."""

from __future__ import annotations

import sys

import aws_cdk as cdk
import cdk_nag

from config.environment import Environment
from config.environments import environment
from config.validation import ConfigError
from stacks.alerts import AlertsStack
from stacks.catalog import CatalogStack
from stacks.database import DatabaseStack
from stacks.ingestion import IngestionStack
from stacks.network import NetworkStack
from stacks.observability import ObservabilityStack
from stacks.orchestration import OrchestrationStack
from stacks.processing import ProcessingStack
from stacks.secrets import SecretsStack
from stacks.settings import pipeline_settings
from stacks.storage import StorageStack


def build(app: cdk.App, config: Environment) -> list[cdk.Stack]:
    """All stacks of one environment, each given what it builds on."""
    secrets = SecretsStack(app, config)
    network = NetworkStack(app, config, keys=secrets.keys)
    storage = StorageStack(app, config, vpc=network.vpc, groups=network.groups, keys=secrets.keys)
    database = DatabaseStack(app, config, vpc=network.vpc, groups=network.groups, keys=secrets.keys)
    alerts = AlertsStack(app, config, keys=secrets.keys)
    settings = pipeline_settings(config, secrets, storage, database, alerts)
    ingestion = IngestionStack(
        app,
        config,
        vpc=network.vpc,
        groups=network.groups,
        keys=secrets.keys,
        secrets=secrets,
        alerts=alerts,
        settings=settings,
    )
    processing = ProcessingStack(
        app,
        config,
        vpc=network.vpc,
        groups=network.groups,
        keys=secrets.keys,
        secrets=secrets,
        storage=storage,
    )
    catalog = CatalogStack(
        app,
        config,
        vpc=network.vpc,
        groups=network.groups,
        keys=secrets.keys,
        storage=storage,
        database=database,
        settings=settings,
    )
    orchestration = OrchestrationStack(
        app,
        config,
        vpc=network.vpc,
        groups=network.groups,
        keys=secrets.keys,
        secrets=secrets,
        storage=storage,
        database=database,
        ingestion=ingestion,
        processing=processing,
        catalog=catalog,
        alerts=alerts,
        settings=settings,
    )
    observability = ObservabilityStack(
        app,
        config,
        vpc=network.vpc,
        groups=network.groups,
        keys=secrets.keys,
        secrets=secrets,
        database=database,
        alerts=alerts,
        ingestion=ingestion,
        catalog=catalog,
        orchestration=orchestration,
    )
    return [secrets, network, storage, database, alerts, ingestion, processing, catalog, orchestration, observability]


def check(app: cdk.App) -> None:
    """Has every synthesis judged by AWS's own rules and those of NIST 800-53; a finding without an answer fails it."""
    cdk.Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app), cdk_nag.NIST80053R5Checks(app))


def main() -> None:
    app = cdk.App()
    check(app)
    try:
        build(app, environment(app.node.try_get_context("env") or "dev"))
    except ConfigError as error:
        sys.exit(f"error: {error}")
    app.synth()


if __name__ == "__main__":
    main()
