"""The deployments that the tests of the stacks look at. Each environment is synthesized once per test process."""

from __future__ import annotations

from functools import cache

import pytest
from deployments import OFFICE, Deployment, Synthesize, changed, synthesized

from config.environment import AlarmConfig, Environment, IngestConfig, LineageConfig, NetworkConfig, WebhookConfig
from config.environments import dev, prod, staging
from config.pages import BalancerConfig, OidcConfig
from config.schedule import ProcessConfig

CERTIFICATE = "arn:aws:acm:us-east-1:111111111111:certificate/12345678-1234-1234-1234-123456789012"
OIDC = {
    **{name: f"https://idp.example.com/{name}" for name in ("issuer", "authorization_endpoint", "token_endpoint")},
    **{"user_info_endpoint": "https://idp.example.com/me", "client_id": "barflow", "client_secret": "barflow/dev/oidc"},
}


@pytest.fixture(scope="session")
def synthesize(tmp_path_factory: pytest.TempPathFactory) -> Synthesize:
    """Return the deployment of an environment. Context, such as a flag, is given by keyword."""

    @cache
    def once(environment: Environment, **context: str) -> Deployment:
        return synthesized(environment, tmp_path_factory.mktemp(environment.name), **context)

    return once


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
    """All environments of the project."""
    return [dev_deployment, staging_deployment, prod_deployment]


@pytest.fixture(scope="session")
def host_ingests(synthesize: Synthesize) -> Deployment:
    """The environment dev, with Airflow's host as the runner of ticks."""
    return synthesize(changed(dev(), ingest=IngestConfig(runner="host")))


@pytest.fixture(scope="session")
def two_bots(synthesize: Synthesize) -> Deployment:
    """The environment dev with the bots trend and mean-reversion."""
    return synthesize(changed(dev(), bots=("trend", "mean-reversion")))


@pytest.fixture(scope="session")
def opened(synthesize: Synthesize) -> Deployment:
    """The environment dev with Airflow's page open to OFFICE, and two services behind interface endpoints."""
    network = NetworkConfig(airflow_ui_cidrs=OFFICE, plain_http=True, interface_endpoints=("secretsmanager", "glue"))
    return synthesize(changed(dev(), network=network))


@pytest.fixture(scope="session")
def customized(synthesize: Synthesize) -> Deployment:
    """The environment dev with settings that no environment of the project has, each for tests of its own."""
    return synthesize(
        changed(
            dev(),
            bots=(),
            network=NetworkConfig(
                airflow_ui_cidrs=("203.0.114.0/24",),
                dashboard_cidrs=("10.1.0.0/16",),
                plain_http=True,
                interface_endpoints=("glue", "kms", "logs", "monitoring", "secretsmanager"),
            ),
            balancer=BalancerConfig(
                certificate_arn=CERTIFICATE, airflow_name="airflow.example.com", oidc=OidcConfig(**OIDC)
            ),
            process=ProcessConfig(schedule=("5 10-16 * * MON-FRI",)),
            lineage=LineageConfig(url="https://lineage.example.com", api_key=True),
            alarms=AlarmConfig(emails=("data@example.com",), budget_usd=90),
            webhooks=WebhookConfig(urls=("https://bot.example.com/alerts",), allow_private=True),
            apprise=("team", "oncall"),
        )
    )
