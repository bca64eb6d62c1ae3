"""Is the estimate what its parts add up to, and does it follow what an environment asks for?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from config.cost import estimate, prices
from config.environment import DatabaseConfig, HostConfig, IngestConfig, NetworkConfig
from config.environments import ENVIRONMENTS, environment
from config.validation import ConfigError


def line(name: str, service: str, **changes: object) -> float:
    found = estimate(replace(environment(name), **changes))
    return next(item.dollars for item in found.lines if item.service == service)


def test_dev_with_daily_processing_stays_under_90_dollars_a_month() -> None:
    assert estimate(environment("dev")).total < 90


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_has_a_price_for_each_of_its_parts(name: str) -> None:
    found = estimate(environment(name))
    assert found.total == pytest.approx(sum(item.dollars for item in found.lines))
    assert all(item.dollars >= 0 and item.basis for item in found.lines)
    assert found.to_json()["usd_per_month"] == round(found.total, 2)


def test_a_nat_gateway_and_its_address_cost_what_the_table_says_for_730_hours() -> None:
    two = line("dev", "Network", network=NetworkConfig(nat_gateways=2))
    one = line("dev", "Network", network=NetworkConfig(nat_gateways=1))
    hour = prices()["hour"]
    assert two - one == pytest.approx(730 * (hour["nat_gateway"] + hour["public_ipv4"]))


def test_an_interface_endpoint_costs_in_every_zone() -> None:
    with_one = line("dev", "Network", network=NetworkConfig(interface_endpoints=("sts",)))
    assert with_one - line("dev", "Network", network=NetworkConfig()) == pytest.approx(730 * 2 * 0.01)


def test_a_second_copy_of_the_database_doubles_it() -> None:
    alone, both = (line("dev", "RDS", database=DatabaseConfig(multi_az=two)) for two in (False, True))
    assert both == pytest.approx(2 * alone)


def test_hourly_processing_costs_seven_times_what_a_daily_run_does() -> None:
    daily, hourly = (estimate(environment("dev"), runs_per_session=runs) for runs in (1, 7))
    assert hourly.total - daily.total == pytest.approx(6 * 21 * daily.run_dollars)


def test_an_estimate_counts_the_runs_that_the_schedule_makes() -> None:
    assert [estimate(environment(name)).runs_per_session for name in ("dev", "prod")] == [1, 7]


def test_the_host_ingests_at_no_price_of_its_own() -> None:
    assert line("dev", "Lambda", ingest=IngestConfig(runner="host")) == 0


def test_more_symbols_never_cost_less() -> None:
    few, many = (estimate(environment("dev"), symbols=count) for count in (5, 500))
    assert all(a.dollars <= b.dollars for a, b in zip(few.lines, many.lines, strict=True))
    assert few.run_dollars < many.run_dollars


def test_an_instance_without_a_price_is_named() -> None:
    with pytest.raises(ConfigError, match=r"host\.instance_type is 'm8g\.medium': .*prices\.toml has no price"):
        estimate(replace(environment("dev"), host=HostConfig(instance_type="m8g.medium")))


def test_a_number_of_symbols_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        estimate(environment("dev"), symbols=0)
