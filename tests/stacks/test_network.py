"""Who can reach whom? What the security groups, routes and endpoints of the templates let through, and nothing more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from deployments import Deployment, Synthesize, changed

from config.environment import NetworkConfig
from config.environments import dev

OFFICE = ("203.0.113.0/24", "198.51.100.7/32")
GROUPS = ("Database", "Functions", "EmrPrimary", "EmrCore", "EmrService", "Glue", "Host")


@pytest.fixture(scope="session")
def opened(synthesize: Synthesize) -> Deployment:
    """dev with Airflow's page open to an office, and two services reached without NAT."""
    network = NetworkConfig(airflow_ui_cidrs=OFFICE, interface_endpoints=("secretsmanager", "glue"))
    return synthesize(changed(dev(), network=network))


def group_of(reference: Any) -> str:
    """The security group that a reference means, by its part of GROUPS."""
    text = json.dumps(reference)
    return next(name for name in (*GROUPS, "Endpoints") if f"{name}Group" in text)


def openings(deployment: Deployment) -> set[tuple[str, str, str]]:
    """All that may come in: (to whom, from whom or from which CIDR, protocol and ports)."""
    found = set()
    for resource in deployment.templates["Network"]["Resources"].values():
        rules = resource.get("Properties", {})
        if resource["Type"] == "AWS::EC2::SecurityGroupIngress":
            found.add((group_of(rules["GroupId"]), group_of(rules["SourceSecurityGroupId"]), ports(rules)))
        if resource["Type"] == "AWS::EC2::SecurityGroup":
            name = group_of(next(key for key, value in deployment.templates["Network"]["Resources"].items()
                                 if value is resource))  # fmt: skip
            found |= {(name, rule["CidrIp"], ports(rule)) for rule in rules.get("SecurityGroupIngress", [])}
    return found


def ports(rule: Mapping[str, Any]) -> str:
    return f"{rule['IpProtocol']} {rule.get('FromPort')}-{rule.get('ToPort')}"


def test_those_who_need_the_database_reach_it_on_its_port_and_nobody_else(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        into_database = {(source, port) for group, source, port in openings(deployment) if group == "Database"}
        talkers = ("Functions", "EmrPrimary", "EmrCore", "Glue", "Host")
        assert into_database == {(source, "tcp 5432-5432") for source in talkers}


def test_nothing_is_open_to_an_address_by_default(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert {source for _, source, _ in openings(deployment)} <= set(GROUPS)


def test_airflows_page_is_open_to_the_configured_networks_alone(opened: Deployment, dev_deployment: Deployment) -> None:
    by_address = {rule for rule in openings(opened) if "/" in rule[1]}
    assert by_address == {("Host", cidr, "tcp 8080-8080") for cidr in OFFICE}
    assert not [rule for rule in openings(dev_deployment) if rule[0] == "Host"]


def test_glue_and_emr_talk_among_themselves_and_with_nobody_else(dev_deployment: Deployment) -> None:
    into = {group: {source for to, source, _ in openings(dev_deployment) if to == group} for group in GROUPS}
    assert into["Glue"] == {"Glue"}
    assert into["EmrPrimary"] == into["EmrCore"] == {"EmrPrimary", "EmrCore", "EmrService"}
    assert into["EmrService"] == {"EmrPrimary"}
    assert into["Functions"] == set()


def test_what_goes_out_goes_to_named_ports(dev_deployment: Deployment) -> None:
    for group in dev_deployment.resources("Network", "AWS::EC2::SecurityGroup"):
        for rule in group.get("SecurityGroupEgress", []):
            anywhere = rule["CidrIp"] == "0.0.0.0/0"
            assert not anywhere or ports(rule) in ("tcp 443-443", "tcp 27015-27017"), rule


@pytest.mark.parametrize(("name", "gateways"), [("dev", 1), ("prod", 2)])
def test_nat_has_the_configured_gateways_each_with_an_address_that_is_an_output(
    name: str, gateways: int, request: pytest.FixtureRequest
) -> None:
    deployment: Deployment = request.getfixturevalue(f"{name}_deployment")
    resources = deployment.templates["Network"]["Resources"]
    addresses = {key for key, resource in resources.items() if resource["Type"] == "AWS::EC2::EIP"}
    used = {item["AllocationId"]["Fn::GetAtt"][0] for item in deployment.resources("Network", "AWS::EC2::NatGateway")}
    assert used == addresses
    assert len(addresses) == gateways
    shown = json.dumps(deployment.templates["Network"]["Outputs"]["NatAddresses"]["Value"])
    assert all(address in shown for address in addresses)


def test_isolated_subnets_have_no_way_out(prod_deployment: Deployment) -> None:
    routes = prod_deployment.resources("Network", "AWS::EC2::Route")
    assert routes
    assert not [route for route in routes if "isolated" in json.dumps(route["RouteTableId"])]


def test_no_subnet_gives_public_addresses_by_itself(dev_deployment: Deployment) -> None:
    assert not [item for item in dev_deployment.resources("Network", "AWS::EC2::Subnet") if item["MapPublicIpOnLaunch"]]


def test_s3_is_reached_without_nat_and_other_services_only_where_configured(
    dev_deployment: Deployment, opened: Deployment
) -> None:
    def kinds(deployment: Deployment) -> list[str]:
        return sorted(item["VpcEndpointType"] for item in deployment.resources("Network", "AWS::EC2::VPCEndpoint"))

    assert kinds(dev_deployment) == ["Gateway"]
    assert kinds(opened) == ["Gateway", "Interface", "Interface"]
    into_endpoints = {(source, port) for group, source, port in openings(opened) if group == "Endpoints"}
    talkers = ("Functions", "EmrPrimary", "EmrCore", "Glue", "Host")
    assert into_endpoints == {(source, "tcp 443-443") for source in talkers}


def test_traffic_is_logged_encrypted_for_the_configured_days(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        flow = deployment.only("Network", "AWS::EC2::FlowLog")
        log = deployment.only("Network", "AWS::Logs::LogGroup")
        assert flow["TrafficType"] == "ALL"
        assert log["RetentionInDays"] == deployment.environment.network.flow_log_days
        assert "DataKey" in json.dumps(log["KmsKeyId"])
