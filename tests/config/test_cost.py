"""The estimate is the sum of its lines, and follows the settings of the environment."""

from __future__ import annotations

import pytest

from config.cost import Prices, estimate, list_prices
from config.environment import DatabaseConfig, Environment, HostConfig, IngestConfig, NetworkConfig
from config.environments import ENVIRONMENTS, environment
from config.pages import BalancerConfig
from config.schedule import QualityConfig
from config.validation import Config, ConfigError


def dev(**changes: Config) -> Environment:
    """Return the environment dev with other settings in these sections."""
    return Environment(**dict(environment("dev")) | changes)


def dollars(service: str, **changes: Config) -> float:
    """Return the dollars a month of a service in dev with these sections."""
    return next(line.dollars for line in estimate(dev(**changes)).lines if line.service == service)


def test_dev_with_daily_processing_stays_under_90_dollars_a_month() -> None:
    assert estimate(environment("dev")).total <= 90


def test_detailed_monitoring_of_the_host_bills_seven_metrics() -> None:
    on, off = (dollars("CloudWatch", host=HostConfig(detailed_monitoring=it)) for it in (True, False))
    assert on - off == pytest.approx(7 * list_prices().month.metric)


def test_an_evaluation_of_the_data_quality_costs_its_workers_for_three_minutes() -> None:
    daily = dollars("Glue Data Quality")
    assert daily == pytest.approx(23 * 2 * 3 / 60 * list_prices().hour.glue_dpu)
    weekly = dollars("Glue Data Quality", quality=QualityConfig(schedule=("15 18 * * FRI",), workers=4))
    assert weekly == pytest.approx(daily * 4 / 23 * 4 / 2)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_has_a_price_for_each_of_its_resources(name: str) -> None:
    found = estimate(environment(name))
    assert found.total == pytest.approx(sum(item.dollars for item in found.lines))
    assert all(item.dollars >= 0 and item.basis for item in found.lines)
    assert found.to_json()["usd_per_month"] == round(found.total, 2)


def test_a_nat_gateway_and_its_address_cost_their_list_price_for_730_hours() -> None:
    two = dollars("Network", network=NetworkConfig(nat_gateways=2))
    one = dollars("Network", network=NetworkConfig(nat_gateways=1))
    hour = list_prices().hour
    assert two - one == pytest.approx(730 * (hour.nat_gateway + hour.public_ipv4))


def test_an_interface_endpoint_costs_in_every_zone() -> None:
    with_one = dollars("Network", network=NetworkConfig(interface_endpoints=("sts",)))
    assert with_one - dollars("Network", network=NetworkConfig()) == pytest.approx(730 * 2 * 0.01)


def test_a_load_balancer_costs_its_hours_and_an_address_in_every_zone() -> None:
    network = NetworkConfig(dashboard_cidrs=("10.1.0.0/16",))
    certificate = "arn:aws:acm:us-east-1:111111111111:certificate/12345678-1234-1234-1234-123456789012"
    balancer = BalancerConfig(certificate_arn=certificate, page_name="bars.example.com")
    with_one = dollars("Network", network=network, balancer=balancer)
    assert with_one - dollars("Network", network=NetworkConfig()) == pytest.approx(730 * (0.0305 + 2 * 0.005))


def test_a_second_copy_of_the_database_doubles_it() -> None:
    alone, both = (dollars("RDS", database=DatabaseConfig(multi_az=two)) for two in (False, True))
    assert both == pytest.approx(2 * alone)


def test_hourly_processing_costs_seven_times_as_much_as_a_daily_run() -> None:
    daily, hourly = (estimate(environment("dev"), runs_per_session=runs) for runs in (1, 7))
    assert hourly.total - daily.total == pytest.approx(6 * 21 * daily.run_dollars)


def test_the_estimate_counts_the_runs_of_the_schedule() -> None:
    assert [estimate(environment(name)).runs_per_session for name in ("dev", "prod")] == [1, 7]


def test_ingestion_on_the_host_costs_nothing_extra() -> None:
    assert dollars("Lambda", ingest=IngestConfig(runner="host")) == 0


def test_more_symbols_never_cost_less() -> None:
    few, many = (estimate(environment("dev"), symbols=count) for count in (5, 500))
    assert all(a.dollars <= b.dollars for a, b in zip(few.lines, many.lines, strict=True))
    assert few.run_dollars < many.run_dollars


def test_an_instance_without_a_price_is_rejected_by_name() -> None:
    with pytest.raises(ConfigError, match=r"host\.instance_type is 'm8g\.medium': .*prices\.toml has no price"):
        estimate(dev(host=HostConfig(instance_type="m8g.medium")))


def test_at_least_one_symbol_and_one_run_are_estimated() -> None:
    with pytest.raises(ConfigError, match="symbols is 0: must be a whole number from 1"):
        estimate(environment("dev"), symbols=0)
    with pytest.raises(ConfigError, match="runs_per_session is 0: must be a whole number from 1"):
        estimate(environment("dev"), runs_per_session=0)


def test_a_missing_or_wrong_price_is_rejected_by_name() -> None:
    table = list_prices().model_dump()
    del table["month"]["secret"]
    table["hour"]["glue_dpu"] = "free"
    with pytest.raises(ConfigError) as caught:
        Prices(**table)
    assert str(caught.value).splitlines() == [
        "prices.hour.glue_dpu is 'free': must be a valid number",
        "prices.month.secret is missing: Field required",
    ]
