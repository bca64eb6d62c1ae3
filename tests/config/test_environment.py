"""Is every wrong setting of an environment refused by a message that names the field and what is allowed?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from config import versions
from config.environment import (
    AlarmConfig,
    DatabaseConfig,
    EmrConfig,
    Environment,
    GlueConfig,
    HostConfig,
    IngestConfig,
    NetworkConfig,
    PlanConfig,
    RetentionConfig,
)
from config.environments import ENVIRONMENTS, environment
from config.schedule import ProcessConfig
from config.validation import ConfigError

ROOT = Path(__file__).parents[2]
WRONG: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (NetworkConfig, {"cidr": "10.0.0.0/30"}, r"network\.cidr is '10\.0\.0\.0/30': .* from /16 to /22"),
    (NetworkConfig, {"cidr": "8.8.0.0/16"}, r"network\.cidr is '8\.8\.0\.0/16': allowed is a private network"),
    (NetworkConfig, {"cidr": "10.0.0.1/16"}, r"network\.cidr is .*an IPv4 network such as 10\.20\.0\.0/16"),
    (NetworkConfig, {"cidr": "fd00::/16"}, r"network\.cidr is .*an IPv4 network"),
    (NetworkConfig, {"zones": 1}, r"network\.zones is 1: allowed is 2, 3"),
    (NetworkConfig, {"nat_gateways": 3}, r"network\.nat_gateways is 3: allowed is 1, 2"),
    (NetworkConfig, {"nat_gateways": 0}, r"network\.nat_gateways is 0: allowed is 1, 2"),
    (
        NetworkConfig,
        {"airflow_ui_cidrs": ("0.0.0.0/0",)},
        r"network\.airflow_ui_cidrs is '0\.0\.0\.0/0': it would open",
    ),
    (NetworkConfig, {"airflow_ui_cidrs": ("0.0.0.0/1",)}, r"network\.airflow_ui_cidrs is .*open Airflow's page"),
    (NetworkConfig, {"airflow_ui_cidrs": ("office",)}, r"network\.airflow_ui_cidrs is 'office': allowed is an IPv4"),
    (NetworkConfig, {"airflow_ui_cidrs": ("10.1.0.0/16",) * 2}, r"airflow_ui_cidrs is '10\.1\.0\.0/16': each .* once"),
    (NetworkConfig, {"dashboard_cidrs": ("0.0.0.0/0",)}, r"network\.dashboard_cidrs is .*open the analysts' page"),
    (NetworkConfig, {"interface_endpoints": ("ftp",)}, r"network\.interface_endpoints is 'ftp': allowed is athena, "),
    (NetworkConfig, {"flow_log_days": 8}, r"network\.flow_log_days is 8: allowed is 1, 3, 5, 7, 14"),
    (
        DatabaseConfig,
        {"instance_class": "db.m5.large"},
        r"database\.instance_class is .*Graviton class such as db\.t4g",
    ),
    (DatabaseConfig, {"instance_class": "t4g.small"}, r"database\.instance_class is 't4g\.small'"),
    (DatabaseConfig, {"engine_version": "16.4"}, r"database\.engine_version .* is '16': allowed is 17, 18"),
    (DatabaseConfig, {"storage_gb": 10}, r"database\.storage_gb is 10: .* from 20 to 65536 GB"),
    (
        DatabaseConfig,
        {"storage_gb": 50, "max_storage_gb": 40},
        r"database\.max_storage_gb is 40: .* not below storage_gb",
    ),
    (DatabaseConfig, {"backup_days": 0}, r"database\.backup_days is 0: .* from 1 to 35 days"),
    (DatabaseConfig, {"insights_days": 8}, r"database\.insights_days is 8: allowed is 7, 31, 62"),
    (DatabaseConfig, {"rotation_days": 0}, r"database\.rotation_days is 0"),
    (EmrConfig, {"primary_instance": "m5.xlarge"}, r"emr\.primary_instance is 'm5\.xlarge': .* such as m7g\.large"),
    (EmrConfig, {"core_instance": "m5.xlarge"}, r"emr\.core_instance is 'm5\.xlarge'"),
    (EmrConfig, {"core_count": 0}, r"emr\.core_count is 0: .* from 1 to 100 instances"),
    (EmrConfig, {"task_count": -1}, r"emr\.task_count is -1"),
    (
        EmrConfig,
        {"spot_percent": 101},
        r"emr\.spot_percent is 101: .* from 0 to 100 percent of the core and task nodes",
    ),
    (EmrConfig, {"volume_gb": 1}, r"emr\.volume_gb is 1"),
    (EmrConfig, {"idle_minutes": 0}, r"emr\.idle_minutes is 0: .* minutes"),
    (EmrConfig, {"step_timeout_minutes": 1}, r"emr\.step_timeout_minutes is 1"),
    (GlueConfig, {"worker_type": "G.025X"}, r"glue\.worker_type is 'G\.025X': allowed is G\.1X, G\.2X"),
    (GlueConfig, {"max_workers": 1}, r"glue\.max_workers is 1: .* from 2 to 100 workers"),
    (GlueConfig, {"timeout_minutes": 0}, r"glue\.timeout_minutes is 0"),
    (HostConfig, {"instance_type": "m5.large"}, r"host\.instance_type is 'm5\.large'"),
    (HostConfig, {"data_volume_gb": 1}, r"host\.data_volume_gb is 1"),
    (PlanConfig, {"credits_per_minute": 0}, r"plan\.credits_per_minute is 0"),
    (PlanConfig, {"credits_per_day": 0}, r"plan\.credits_per_day is 0: .*None for no daily cap"),
    (PlanConfig, {"url": "http://api.twelvedata.com"}, r"plan\.url is 'http:.*allowed is an https:// address"),
    (IngestConfig, {"runner": "cron"}, r"ingest\.runner is 'cron': allowed is lambda, host"),
    (IngestConfig, {"every_minutes": 7}, r"ingest\.every_minutes is 7: allowed is 5, 10, 15, 30"),
    (IngestConfig, {"history_sessions": 0}, r"ingest\.history_sessions is 0"),
    (IngestConfig, {"revision_sessions": 21}, r"ingest\.revision_sessions is 21"),
    (IngestConfig, {"memory_mb": 128}, r"ingest\.memory_mb is 128: .* from 256 to 10240 MB"),
    (IngestConfig, {"timeout_seconds": 901}, r"ingest\.timeout_seconds is 901"),
    (ProcessConfig, {"schedule": ()}, r"process\.schedule is \(\): allowed is at least one cron expression, as '45 16"),
    (ProcessConfig, {"schedule": ("@daily",)}, r"process\.schedule is '@daily': it has 1 fields\. Allowed are minute"),
    (ProcessConfig, {"schedule": ("60 16 * * MON-FRI",)}, r"process\.schedule is .*'60' is not within 0 to 59"),
    (ProcessConfig, {"schedule": ("5 16-10 * * *",)}, r"process\.schedule is .*'16-10' is not within 0 to 23"),
    (ProcessConfig, {"schedule": ("*/0 16 * * *",)}, r"process\.schedule is .*'\*/0' is not within"),
    (ProcessConfig, {"schedule": ("5 16 * * BUSY",)}, r"process\.schedule is .*'BUSY' is no number and none of SUN"),
    (ProcessConfig, {"schedule": ("5; 16 * * *",)}, r"process\.schedule is .*'5;' is no value, range or step"),
    (RetentionConfig, {"logs_days": 100}, r"retention\.logs_days is 100: allowed is 1, 3, 5"),
    (RetentionConfig, {"staging_days": 29}, r"retention\.staging_days is 29"),
    (RetentionConfig, {"queries_days": 0}, r"retention\.queries_days is 0"),
    (RetentionConfig, {"old_versions_days": 0}, r"retention\.old_versions_days is 0"),
    (RetentionConfig, {"archive_infrequent_days": 29}, r"retention\.archive_infrequent_days is 29: .*S3 asks for 30"),
    (RetentionConfig, {"archive_glacier_days": 100}, r"retention\.archive_glacier_days is 100: .* from 120"),
    (AlarmConfig, {"emails": ("nobody",)}, r"alarms\.emails is 'nobody': .*such as data@example\.com"),
    (AlarmConfig, {"emails": ("a@b.co",) * 2}, r"alarms\.emails is 'a@b\.co': each may be given once"),
    (AlarmConfig, {"slack_channel": "barflow"}, r"alarms\.slack_channel is 'barflow': .*such as #barflow"),
    (AlarmConfig, {"undelivered_minutes": 1}, r"alarms\.undelivered_minutes is 1: .* minutes of an alert's waiting"),
    (AlarmConfig, {"stale_minutes": 5}, r"alarms\.stale_minutes is 5: .* minutes of an open session"),
    (AlarmConfig, {"undelivered_minutes": 0}, r"alarms\.undelivered_minutes is 0: .* from 5 to 1440 minutes"),
    (AlarmConfig, {"rejected_percent": 0}, r"alarms\.rejected_percent is 0"),
    (AlarmConfig, {"database_free_gb": 0}, r"alarms\.database_free_gb is 0"),
    (AlarmConfig, {"database_cpu_percent": 101}, r"alarms\.database_cpu_percent is 101"),
    (AlarmConfig, {"database_connections": 0}, r"alarms\.database_connections is 0"),
    (AlarmConfig, {"budget_usd": 0}, r"alarms\.budget_usd is 0: .* dollars a month"),
    (Environment, {"name": "Dev"}, r"name is 'Dev': .*lower case letters and digits"),
    (Environment, {"name": "dev", "account": "123456789012"}, r"account and region: give both, or neither"),
    (Environment, {"name": "dev", "account": "12", "region": "us-east-1"}, r"account is '12': .*12 digits"),
    (Environment, {"name": "dev", "account": "1" * 12, "region": "mars"}, r"region is 'mars': .*as us-east-1"),
    (Environment, {"name": "dev", "bots": ("Big Bot",)}, r"bots is 'Big Bot': .*lower case letters"),
    (Environment, {"name": "dev", "symbols": ()}, r"symbols is \(\): allowed is at least one"),
    (Environment, {"name": "dev", "symbols": ("aapl",)}, r"symbols is 'aapl': .*upper case letters"),
    (Environment, {"name": "dev", "symbols": ("AAPL", "AAPL")}, r"symbols is 'AAPL': each may be given once"),
]


@pytest.mark.parametrize(("kind", "given", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_setting_is_refused_by_name(kind: Callable[..., Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**given)


def test_every_field_that_can_be_wrong_is_tried_above() -> None:
    free = {"multi_az", "deletion_protection", "allow_data_deletion", "airflow_connections_prefix"}
    for kind in {kind for kind, _, _ in WRONG}:
        assert is_dataclass(kind)
        tried = {name for other, given, _ in WRONG if other is kind for name in given}
        sections = {item.name for item in fields(kind) if str(item.type).endswith("Config")}
        assert {item.name for item in fields(kind)} - free - sections == tried, kind.__name__


def test_more_symbols_than_the_plan_pays_for_are_refused_with_the_sums() -> None:
    with pytest.raises(ConfigError, match=r"symbols is '11 symbols': every 5 minutes they cost \d+ credits a day"):
        Environment(name="dev", symbols=tuple(f"S{number}" for number in range(11)))
    larger = PlanConfig(credits_per_minute=55, credits_per_day=None)
    assert len(Environment(name="dev", symbols=tuple(f"S{number}" for number in range(50)), plan=larger).symbols) == 50


@pytest.mark.parametrize(
    ("schedule", "runs"),
    [
        (("45 16 * * MON-FRI",), 1),
        (("5 10-15 * * 1-5", "45 16 * * mon-fri"), 7),
        (("*/30 10,12-13 * * *",), 6),
        (("0 9 * * SAT",), 1),
    ],
)
def test_a_schedule_comes_to_its_runs_on_a_trading_day(schedule: tuple[str, ...], runs: int) -> None:
    assert ProcessConfig(schedule=schedule).runs_per_session == runs


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_environments_of_the_project_are_right(name: str) -> None:
    assert environment(name).name == name


def test_environments_do_not_share_a_network() -> None:
    networks = {environment(name).network.cidr for name in ENVIRONMENTS}
    assert len(networks) == len(ENVIRONMENTS)


def test_an_unknown_environment_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no environment 'qa': give one of dev, staging, prod, as -c env=dev"):
        environment("qa")


def test_a_wrong_environment_is_named_with_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENTS, "dev", lambda: Environment(name="dev", network=NetworkConfig(zones=9)))
    with pytest.raises(ConfigError, match=r"environment dev: network\.zones is 9"):
        environment("dev")


def test_settings_are_given_by_name_and_do_not_change() -> None:
    with pytest.raises(TypeError):
        NetworkConfig("10.20.0.0/16")  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        environment("dev").network.zones = 3  # type: ignore[misc]


def test_the_versions_that_are_installed_are_those_of_the_matrix() -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "requirements-airflow.in").read_text().splitlines() if "==" in line
    )
    providers = {f"apache-airflow-providers-{name}": version for name, version in versions.AIRFLOW_PROVIDERS.items()}
    assert pinned == {"apache-airflow": versions.AIRFLOW, **providers}
    assert metadata.version("pyspark") == versions.SPARK
    assert f"python{versions.SPARK_PYTHON}" in (ROOT / "Makefile").read_text()
