"""The CDK application: the stacks of the environment that the context names."""

from __future__ import annotations

import sys

import aws_cdk as cdk
import cdk_nag

from config.environment import Environment
from config.environments import environment
from config.validation import ConfigError
from stacks.alerts import AlertsStack
from stacks.catalog import CatalogStack
from stacks.constructs.logs import keep_provider_logs
from stacks.database import DatabaseStack
from stacks.ingestion import IngestionStack
from stacks.observability import ObservabilityStack
from stacks.orchestration import OrchestrationStack
from stacks.platform import Platform
from stacks.processing import ProcessingStack
from stacks.settings import pipeline_settings
from stacks.storage import StorageStack


def build(app: cdk.App, config: Environment) -> None:
    """Build the stacks of an environment. cdk-nag checks them during synthesis: a finding without a reason fails it."""
    cdk.Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app), cdk_nag.NIST80053R5Checks(app))
    platform = Platform.build(app, config)
    storage = StorageStack(app, platform)
    database = DatabaseStack(app, platform)
    alerts = AlertsStack(app, platform)
    settings = pipeline_settings(platform, storage=storage, database=database, alerts=alerts)
    ingestion = IngestionStack(app, platform, alerts=alerts, settings=settings)
    processing = ProcessingStack(app, platform, storage=storage)
    catalog = CatalogStack(app, platform, storage=storage, database=database, settings=settings)
    orchestration = OrchestrationStack(
        app, platform, settings=settings, storage=storage, database=database, alerts=alerts, ingestion=ingestion,
        processing=processing, catalog=catalog,
    )  # fmt: skip
    ObservabilityStack(
        app, platform, database=database, alerts=alerts, ingestion=ingestion, catalog=catalog,
        orchestration=orchestration,
    )  # fmt: skip
    keep_provider_logs(app, key=platform.keys.data, days=config.retention.logs_days)


if __name__ == "__main__":
    app = cdk.App()
    try:
        build(app, environment(app.node.try_get_context("env") or "dev"))
    except ConfigError as error:
        sys.exit(f"error: {error}")
    app.synth()
