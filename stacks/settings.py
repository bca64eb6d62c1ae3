"""The pipeline's settings that a deployment decides, from its environment and stacks."""

from __future__ import annotations

from barflow.contract import PipelineSettings, secret_reference
from stacks.alerts import AlertsStack
from stacks.database import LOADER, DatabaseStack
from stacks.platform import Platform
from stacks.secrets import APPRISE, LINEAGE, MONGODB, SLACK, TWELVEDATA, WEBHOOK
from stacks.storage import StorageStack


def pipeline_settings(
    platform: Platform, *, storage: StorageStack, database: DatabaseStack, alerts: AlertsStack
) -> PipelineSettings:
    """Return the settings. Credentials are references to secrets; the warehouse's user is the loader."""
    environment, secrets = platform.environment, platform.secrets
    return PipelineSettings(
        env=environment.name,
        symbols=environment.symbols,
        twelvedata_url=environment.plan.url,
        twelvedata_api_key=secret_reference(secrets.name(TWELVEDATA)),
        credits_per_minute=environment.plan.credits_per_minute,
        credits_per_day=environment.plan.credits_per_day,
        tick_minutes=environment.ingest.every_minutes,
        mongodb_uri=secret_reference(secrets.name(MONGODB)),
        warehouse_dsn=secret_reference(f"{database.secret_name(LOADER)}#dsn"),
        lake_uri=storage.lake_uri,
        sns_topic_arn=alerts.topic.topic_arn,
        slack_token=secret_reference(secrets.name(SLACK)),
        slack_channel=environment.alarms.slack_channel,
        slack_digest_above=environment.alarms.slack_digest_above,
        apprise_url=" ".join(f"{name}={secret_reference(secrets.name(APPRISE))}#{name}" for name in environment.apprise)
        or None,
        webhook_url=environment.webhooks.urls,
        webhook_secret=secret_reference(secrets.name(WEBHOOK)) if environment.webhooks.urls else None,
        webhook_allow_private=environment.webhooks.allow_private,
        history_sessions=environment.ingest.history_sessions,
        revision_sessions=environment.ingest.revision_sessions,
        staging_days=environment.retention.staging_days,
        rejected_days=environment.retention.rejected_days,
        openlineage_url=environment.lineage.url,
        openlineage_api_key=secret_reference(secrets.name(LINEAGE)) if secrets.lineage else None,
    )
