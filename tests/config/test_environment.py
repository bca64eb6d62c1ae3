"""A wrong setting of an environment is rejected with a line that names the setting, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config import versions
from config.environment import (
    AlarmConfig,
    DatabaseConfig,
    EmrConfig,
    Environment,
    GlueConfig,
    HostConfig,
    IngestConfig,
    LineageConfig,
    NetworkConfig,
    PlanConfig,
    RetentionConfig,
    WebhookConfig,
)
from config.environments import ENVIRONMENTS, environment
from config.pages import BalancerConfig, OidcConfig
from config.schedule import ProcessConfig
from config.validation import Config, ConfigError

ROOT = Path(__file__).parents[2]
CERTIFICATE = "arn:aws:acm:us-east-1:111111111111:certificate/12345678-1234-1234-1234-123456789012"
OIDC = {
    "issuer": "https://idp.example.com",
    "authorization_endpoint": "https://idp.example.com/authorize",
    "token_endpoint": "https://idp.example.com/token",
    "user_info_endpoint": "https://idp.example.com/userinfo",
    "client_id": "barflow",
    "client_secret": "barflow/dev/oidc",
}
# (settings, what is given, the line of the error)
WRONG: list[tuple[type[Config], dict[str, Any], str]] = [
    (NetworkConfig, {"cidr": "10.0.0.0/30"}, r"network\.cidr is '10\.0\.0\.0/30': .* from /16 to /22"),
    (NetworkConfig, {"cidr": "8.8.0.0/16"}, r"network\.cidr is '8\.8\.0\.0/16': must be a private network"),
    (NetworkConfig, {"cidr": "10.0.0.1/16"}, r"network\.cidr is .*an IPv4 network such as 10\.20\.0\.0/16 .*host bits"),
    (NetworkConfig, {"cidr": "fd00::/16"}, r"network\.cidr is .*an IPv4 network"),
    (NetworkConfig, {"cidr": 10}, r"network\.cidr is 10: must be a valid string"),
    (NetworkConfig, {"zones": 1}, r"network\.zones is 1: must be 2 or 3"),
    (NetworkConfig, {"zone_names": ("us-east-1a",)}, r"network\.zone_names is .* must be empty or have .* names, 2"),
    (NetworkConfig, {"zone_names": ("a",)}, r"network\.zone_names is 'a': must be a zone of the region"),
    (NetworkConfig, {"nat_gateways": 3}, r"network\.nat_gateways is 3: must be .* from 1 to network\.zones, 2"),
    (
        NetworkConfig,
        {"nat_gateways": 0},
        r"network\.nat_gateways is 0: .* from 1 to 3 gateways, not above network\.zones",
    ),
    (
        NetworkConfig,
        {"airflow_ui_cidrs": ("0.0.0.0/0",)},
        r"network\.airflow_ui_cidrs is '0\.0\.0\.0/0': it would open",
    ),
    (NetworkConfig, {"airflow_ui_cidrs": ("0.0.0.0/1",)}, r"network\.airflow_ui_cidrs is .*/8 or narrower"),
    (NetworkConfig, {"airflow_ui_cidrs": ("office",)}, r"network\.airflow_ui_cidrs is 'office': must be an IPv4"),
    (
        NetworkConfig,
        {"airflow_ui_cidrs": ("10.1.0.0/16",) * 2},
        r"network\.airflow_ui_cidrs is .* 10\.1\.0\.0/16 is repeated",
    ),
    (NetworkConfig, {"dashboard_cidrs": ("0.0.0.0/0",)}, r"network\.dashboard_cidrs is '0\.0\.0\.0/0': it would open"),
    (NetworkConfig, {"interface_endpoints": ("ftp",)}, r"network\.interface_endpoints is 'ftp': must be 'athena', "),
    (NetworkConfig, {"plain_http": "yes"}, r"network\.plain_http is 'yes': must be true or false"),
    (BalancerConfig, {"certificate_arn": "arn:x"}, r"balancer\.certificate_arn is 'arn:x': must be the ARN of a cert"),
    (BalancerConfig, {"page_name": "Bars"}, r"balancer\.page_name is 'Bars': must be a host name such as bars"),
    (BalancerConfig, {"airflow_name": "a.example.com/"}, r"balancer\.airflow_name is .*: must be a host name such as"),
    (BalancerConfig, {"oidc": "cognito"}, r"balancer\.oidc is 'cognito'"),
    *(
        (
            OidcConfig,
            {**OIDC, name: "http://idp.example.com"},
            rf"balancer\.oidc\.{name} is .*: must be the https:// URL",
        )
        for name in ("issuer", "authorization_endpoint", "token_endpoint", "user_info_endpoint")
    ),
    (OidcConfig, {**OIDC, "client_id": "a b"}, r"balancer\.oidc\.client_id is 'a b': must be the id of the client"),
    (OidcConfig, {**OIDC, "client_secret": "s3cr&t"}, r"balancer\.oidc\.client_secret is .*: must be the name of the"),
    (NetworkConfig, {"flow_log_days": 8}, r"network\.flow_log_days is 8: must be 1, 3, 5, 7, 14"),
    (DatabaseConfig, {"instance_class": "db.m5.large"}, r"database\.instance_class is .* such as db\.t4g\.small"),
    (DatabaseConfig, {"instance_class": "t4g.small"}, r"database\.instance_class is 't4g\.small': .*Graviton"),
    (DatabaseConfig, {"engine_version": "16.4"}, r"database\.engine_version is '16\.4': .*PostgreSQL 17 or 18"),
    (DatabaseConfig, {"engine_version": "18.99"}, r"database\.engine_version is '18\.99': .*that RDS creates: 17\.5, "),
    (DatabaseConfig, {"engine_version": "17.1"}, r"database\.engine_version is '17\.1': .*that RDS creates: 17\.5, "),
    (DatabaseConfig, {"instance_class": "db.c7g.large"}, r"database\.instance_class is 'db\.c7g\.large': .*of RDS, of"),
    (DatabaseConfig, {"storage_gb": 10}, r"database\.storage_gb is 10: must be a whole number from 20 to 65,536 GB"),
    (DatabaseConfig, {"storage_gb": True}, r"database\.storage_gb is True: must be a whole number from 20 to"),
    (DatabaseConfig, {"storage_gb": "20"}, r"database\.storage_gb is '20': must be a whole number from 20 to"),
    (DatabaseConfig, {"storage_gb": 50, "max_storage_gb": 40}, r"database\.max_storage_gb is 40: .*storage_gb, 50"),
    (DatabaseConfig, {"max_storage_gb": 10}, r"database\.max_storage_gb is 10: .*not below database\.storage_gb"),
    (DatabaseConfig, {"multi_az": "yes"}, r"database\.multi_az is 'yes': must be a valid boolean"),
    (DatabaseConfig, {"deletion_protection": 1}, r"database\.deletion_protection is 1: must be a valid boolean"),
    (DatabaseConfig, {"backup_days": 0}, r"database\.backup_days is 0: .* from 1 to 35 days"),
    (DatabaseConfig, {"insights_days": 8}, r"database\.insights_days is 8: must be 7, a multiple of 31 up to 713"),
    (DatabaseConfig, {"insights_days": 744}, r"database\.insights_days is 744: .*or 731 days"),
    (DatabaseConfig, {"rotation_days": 0}, r"database\.rotation_days is 0: .* from 1 to 1,000 days"),
    (EmrConfig, {"primary_instance": "m5.xlarge"}, r"emr\.primary_instance is 'm5\.xlarge': .* such as m6g\.xlarge"),
    (EmrConfig, {"core_instance": "m5.xlarge"}, r"emr\.core_instance is 'm5\.xlarge': .* such as m6g\.xlarge"),
    (EmrConfig, {"core_instance": "m7g.large"}, r"emr\.core_instance is 'm7g\.large': .*m7g comes as xlarge, 2xlarge"),
    (EmrConfig, {"core_count": 0}, r"emr\.core_count is 0: .* from 1 to 100 instances"),
    (EmrConfig, {"task_count": -1}, r"emr\.task_count is -1: .* from 0 to 100 instances"),
    (
        EmrConfig,
        {"spot_percent": 101},
        r"emr\.spot_percent is 101: .* from 0 to 100 percent of the core and task nodes",
    ),
    (EmrConfig, {"volume_gb": 1}, r"emr\.volume_gb is 1: .* from 15 to 1,000 GB"),
    (EmrConfig, {"idle_minutes": 0}, r"emr\.idle_minutes is 0: .* minutes"),
    (EmrConfig, {"step_timeout_minutes": 1}, r"emr\.step_timeout_minutes is 1: .* from 5 to 1,440 minutes"),
    (GlueConfig, {"worker_type": "G.025X"}, r"glue\.worker_type is 'G\.025X': must be 'G\.1X', 'G\.2X'"),
    (GlueConfig, {"max_workers": 1}, r"glue\.max_workers is 1: .* from 2 to 100 workers"),
    (GlueConfig, {"timeout_minutes": 0}, r"glue\.timeout_minutes is 0: .* from 1 to 1,440 minutes"),
    (HostConfig, {"instance_type": "m5.large"}, r"host\.instance_type is 'm5\.large': .* such as t4g\.medium"),
    (HostConfig, {"data_volume_gb": 1}, r"host\.data_volume_gb is 1: .* from 8 to 1,000 GB"),
    (
        HostConfig,
        {"detailed_monitoring": 1},
        r"host\.detailed_monitoring is 1: must be a valid boolean",
    ),
    (PlanConfig, {"credits_per_minute": 0}, r"plan\.credits_per_minute is 0: .* credits"),
    (PlanConfig, {"credits_per_day": 0}, r"plan\.credits_per_day is 0: .*None for a plan without a daily cap"),
    (PlanConfig, {"url": "http://api.twelvedata.com"}, r"plan\.url is 'http:.*must be an https:// address"),
    (IngestConfig, {"runner": "cron"}, r"ingest\.runner is 'cron': must be 'lambda' or 'host'"),
    (IngestConfig, {"every_minutes": 7}, r"ingest\.every_minutes is 7: must be 5, 10, 15 or 30"),
    (IngestConfig, {"history_sessions": 0}, r"ingest\.history_sessions is 0: .* from 1 to 250 sessions"),
    (IngestConfig, {"revision_sessions": 21}, r"ingest\.revision_sessions is 21: .* from 1 to 20 sessions"),
    (IngestConfig, {"memory_mb": 128}, r"ingest\.memory_mb is 128: .* from 256 to 10,240 MB"),
    (IngestConfig, {"timeout_seconds": 901}, r"ingest\.timeout_seconds is 901: .* from 30 to 900 seconds"),
    (ProcessConfig, {"schedule": ()}, r"process\.schedule is \(\): must have at least one"),
    (RetentionConfig, {"logs_days": 100}, r"retention\.logs_days is 100: must be 1, 3, 5"),
    (RetentionConfig, {"rejected_days": 29}, r"retention\.rejected_days is 29: .* from 30 to 3,650 days"),
    (RetentionConfig, {"staging_days": 29}, r"retention\.staging_days is 29: .* from 30 to 3,650 days"),
    (RetentionConfig, {"queries_days": 0}, r"retention\.queries_days is 0: .* from 1 to 3,650 days"),
    (RetentionConfig, {"old_versions_days": 0}, r"retention\.old_versions_days is 0: .* from 1 to 3,650 days"),
    (RetentionConfig, {"archive_infrequent_days": 29}, r"retention\.archive_infrequent_days is 29: .*S3 requires 30"),
    (RetentionConfig, {"archive_glacier_days": 100}, r"retention\.archive_glacier_days is 100: .*at least 120 days"),
    (AlarmConfig, {"emails": ("nobody",)}, r"alarms\.emails is 'nobody': .*such as data@example\.com"),
    (AlarmConfig, {"emails": ("a@b.co",) * 2}, r"alarms\.emails is .* a@b\.co is repeated"),
    (AlarmConfig, {"slack_digest_above": -1}, r"alarms\.slack_digest_above is -1: .* from 0 to 1,000 alerts of a tick"),
    (AlarmConfig, {"slack_channel": "barflow"}, r"alarms\.slack_channel is 'barflow': .*such as #barflow"),
    (
        WebhookConfig,
        {"urls": ("http://bot.example.com/",)},
        r"webhooks\.urls is 'http://bot.example.com/': .*https addr",
    ),
    (WebhookConfig, {"urls": ("https://a.example/?token=1",)}, r"webhooks\.urls is .*without port, user or query"),
    (WebhookConfig, {"urls": tuple(f"https://{n}.example/" for n in range(6))}, r"webhooks\.urls is .*must be up to 5"),
    (WebhookConfig, {"urls": ("https://a.example/",) * 2}, r"webhooks\.urls is .* https://a.example/ is repeated"),
    (Environment, {"name": "dev", "apprise": ("Team",)}, r"apprise is 'Team': must be up to 10 names of lower case"),
    (Environment, {"name": "dev", "apprise": ("team", "team")}, r"apprise is .* team is repeated"),
    (WebhookConfig, {"allow_private": 1}, r"webhooks\.allow_private is 1: must be true or false"),
    (AlarmConfig, {"stale_minutes": 5}, r"alarms\.stale_minutes is 5: .* minutes of an open session"),
    (AlarmConfig, {"undelivered_minutes": 0}, r"alarms\.undelivered_minutes is 0: .* from 5 to 1,440 minutes that an"),
    (
        AlarmConfig,
        {"rejected_percent": 0},
        r"alarms\.rejected_percent is 0: must be a number from 0\.01 to 100 perc",
    ),
    (AlarmConfig, {"database_free_gb": 0}, r"alarms\.database_free_gb is 0: .* from 0\.5 to 65,536 GB"),
    (AlarmConfig, {"database_cpu_percent": 101}, r"alarms\.database_cpu_percent is 101: .* from 1 to 100 percent"),
    (AlarmConfig, {"database_connections": 0}, r"alarms\.database_connections is 0: .* from 1 to 5,000 connections"),
    (AlarmConfig, {"budget_usd": 0}, r"alarms\.budget_usd is 0: .* dollars a month"),
    (Environment, {}, r"name is missing: must be 2 to 12 lower case letters and digits, such as dev"),
    (Environment, {"name": "Dev"}, r"name is 'Dev': .*lower case letters and digits"),
    (Environment, {"name": "dev", "account": "123456789012"}, r"account and region: give both, or neither"),
    (Environment, {"name": "dev", "account": "12", "region": "us-east-1"}, r"account is '12': .*12 digits"),
    (Environment, {"name": "dev", "account": "1" * 12, "region": "mars"}, r"region is 'mars': .*such as us-east-1"),
    (Environment, {"name": "dev", "allow_data_deletion": "true"}, r"allow_data_deletion is 'true': .*a valid boolean"),
    (
        LineageConfig,
        {"url": "http://lineage.example.com"},
        r"lineage\.url is .*a host on port 443",
    ),
    (LineageConfig, {"url": "https://lineage.example.com:5000"}, r"lineage\.url is .*must be https://"),
    (LineageConfig, {"url": "https://user:key@lineage.example.com"}, r"lineage\.url is .*must be https://.* without"),
    (LineageConfig, {"url": "https://lineage.example.com:x"}, r"lineage\.url is .*must be https://"),
    (LineageConfig, {"url": "file:lineage.jsonl"}, r"lineage\.url is .*must be https://"),
    (LineageConfig, {"api_key": "k"}, r"lineage\.api_key is 'k': must be true or false"),
    (Environment, {"name": "dev", "reserve_concurrency": 1}, r"reserve_concurrency is 1: must be true or false: "),
    (Environment, {"name": "dev", "bots": ("Big Bot",)}, r"bots is 'Big Bot': .*lower case letters"),
    (Environment, {"name": "dev", "bots": ("trend",) * 2}, r"bots is .* trend is repeated"),
    (Environment, {"name": "dev", "symbols": ()}, r"symbols is \(\): must have at least one"),
    (Environment, {"name": "dev", "symbols": ("aapl",)}, r"symbols is 'aapl': .*upper case letters"),
    (Environment, {"name": "dev", "symbols": ("AAPL", "AAPL")}, r"symbols is .* AAPL is repeated"),
    (
        Environment,
        {"name": "dev", "networks": ()},
        r"networks is not a setting: the settings are name, account, .*network, ",
    ),
]


@pytest.mark.parametrize(
    ("kind", "given", "line"), WRONG, ids=lambda value: getattr(value, "__name__", str(value)[:40])
)
def test_a_wrong_setting_is_rejected_with_one_line(kind: type[Config], given: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}[^\n]*$"):
        kind(**given)


def test_every_setting_that_can_be_wrong_is_tested_above() -> None:
    free: set[str] = set()
    for kind in {kind for kind, _, _ in WRONG}:
        tested = {name for other, given, _ in WRONG if other is kind for name in given}
        sections = {name for name, field in kind.model_fields.items() if isinstance(field.default, Config)}
        assert set(kind.model_fields) - free - sections == tested - {"networks"}, kind.__name__


def test_each_problem_has_a_line_of_its_own() -> None:
    with pytest.raises(ConfigError) as caught:
        NetworkConfig(zones=4, cidr="10.0.0.0/8", airflow_ui_cidrs=("home", "office"))
    lines = str(caught.value).splitlines()
    names = ["cidr", "zones", "airflow_ui_cidrs", "airflow_ui_cidrs"]
    assert [line.split(" is ")[0] for line in lines] == [f"network.{name}" for name in names]


OFFICE, VPN = ("198.51.101.0/24",), ("10.1.0.0/16",)


@pytest.mark.parametrize(
    ("network", "balancer", "line"),
    [
        (
            {"airflow_ui_cidrs": OFFICE, "plain_http": True},
            {},
            r"network\.airflow_ui_cidrs has the public network 198\.51\.101\.0/24: must be private without TLS",
        ),
        (
            {"dashboard_cidrs": (*VPN, *OFFICE), "plain_http": True},
            {},
            r"network\.dashboard_cidrs has the public network 198\.51\.101\.0/24: must be private without TLS",
        ),
        ({"dashboard_cidrs": VPN}, {}, r"network\.dashboard_cidrs is set: must be empty without TLS.*plain text"),
        (
            {"airflow_ui_cidrs": OFFICE},
            {"certificate_arn": CERTIFICATE, "page_name": "bars.example.com"},
            r"network\.dashboard_cidrs has 0 networks: must have 1 to 4 .*\n"
            r"network\.airflow_ui_cidrs has the public network",
        ),
        (
            {"dashboard_cidrs": tuple(f"10.{number}.0.0/16" for number in range(5))},
            {"certificate_arn": CERTIFICATE, "page_name": "bars.example.com"},
            r"network\.dashboard_cidrs has 5 networks: must have 1 to 4",
        ),
        (
            {"dashboard_cidrs": VPN},
            {"page_name": "bars.example.com"},
            r"balancer\.page_name is .*certificate_arn must",
        ),
        ({}, {"certificate_arn": CERTIFICATE}, r"balancer\.certificate_arn is set: balancer\.page_name or"),
    ],
)
def test_a_page_without_tls_is_rejected_unless_a_setting_allows_it_for_private_networks(
    network: dict[str, Any], balancer: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        Environment(name="dev", network=NetworkConfig(**network), balancer=BalancerConfig(**balancer))


def test_a_page_is_open_to_public_networks_with_tls_and_to_private_ones_by_setting() -> None:
    balancer = BalancerConfig(certificate_arn=CERTIFICATE, page_name="bars.example.com", oidc=OidcConfig(**OIDC))
    Environment(name="dev", network=NetworkConfig(dashboard_cidrs=OFFICE), balancer=balancer)
    Environment(name="dev", network=NetworkConfig(dashboard_cidrs=VPN, plain_http=True))
    there = {"account": "111111111111", "region": "us-east-2"}
    with pytest.raises(ConfigError, match=r"must be a certificate in us-east-2"):
        Environment(name="dev", network=NetworkConfig(dashboard_cidrs=OFFICE), balancer=balancer, **there)


def test_a_section_has_the_name_that_its_errors_show() -> None:
    for name, field in Environment.model_fields.items():
        if isinstance(field.default, Config):
            assert field.default.model_config["title"] == name


def test_more_symbols_than_the_plan_has_credits_for_are_rejected_with_the_numbers() -> None:
    line = r"^symbols: 11 symbols every 5 minutes cost 880 credits a day, and plan\.credits_per_day is 800\. Use fewer"
    with pytest.raises(ConfigError, match=line):
        Environment(name="dev", symbols=tuple(f"S{number}" for number in range(11)))
    larger = PlanConfig(credits_per_minute=55, credits_per_day=None)
    assert len(Environment(name="dev", symbols=tuple(f"S{number}" for number in range(50)), plan=larger).symbols) == 50


def test_symbols_that_outlast_the_timeout_of_a_tick_are_rejected_with_the_numbers() -> None:
    symbols = tuple(f"S{number}" for number in range(33))
    plan = PlanConfig(credits_per_day=None)
    line = r"^ingest\.timeout_seconds is 240: 33 symbols at 8 credits a minute take 5 minutes, and splits"
    with pytest.raises(ConfigError, match=line):
        Environment(name="dev", symbols=symbols, plan=plan)
    for ingest in (IngestConfig(timeout_seconds=420), IngestConfig(runner="host")):
        assert Environment(name="dev", symbols=symbols, plan=plan, ingest=ingest)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_of_the_project_is_valid(name: str) -> None:
    assert environment(name).name == name


def test_environments_do_not_share_a_network() -> None:
    networks = {environment(name).network.cidr for name in ENVIRONMENTS}
    assert len(networks) == len(ENVIRONMENTS)


def test_an_unknown_environment_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"there is no environment 'qa': choose one of dev, staging, prod, as in -c env"
    ):
        environment("qa")


def test_every_line_of_a_wrong_environment_names_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Callable[[], Environment] = lambda: Environment(name="dev", network=NetworkConfig(zones=9, flow_log_days=2))  # type: ignore[arg-type]  # noqa: E731
    monkeypatch.setitem(ENVIRONMENTS, "dev", wrong)
    with pytest.raises(ConfigError) as caught:
        environment("dev")
    first, second = str(caught.value).splitlines()
    assert first == "environment dev: network.zones is 9: must be 2 or 3"
    assert second.startswith("environment dev: network.flow_log_days is 2: must be 1, 3, 5")


def test_settings_are_given_by_name_and_do_not_change() -> None:
    with pytest.raises(TypeError):
        NetworkConfig("10.20.0.0/16")  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        environment("dev").network.zones = 3  # type: ignore[misc]


def test_the_installed_versions_are_those_of_the_matrix() -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "requirements-airflow.in").read_text().splitlines() if "==" in line
    )
    providers = {f"apache-airflow-providers-{name}": version for name, version in versions.AIRFLOW_PROVIDERS.items()}
    assert pinned == {"apache-airflow": versions.AIRFLOW, **providers}
    assert metadata.version("pyspark") == versions.SPARK
    assert f"python{versions.SPARK_PYTHON}" in (ROOT / "Makefile").read_text()
