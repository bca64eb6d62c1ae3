"""Security groups, routes and endpoints allow exactly the traffic that the pipeline needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from deployments import OFFICE, Deployment, as_list

from emulators.aws.iam_policies import Permission, is_allowed

CLIENTS = ("Functions", "EmrPrimary", "EmrCore", "Glue", "Host")
GROUPS = ("Database", "Functions", "EmrPrimary", "EmrCore", "EmrService", "Glue", "Host")


def group_of(reference: Any) -> str:
    """Return the name in GROUPS of the security group that a reference names."""
    text = json.dumps(reference)
    return next(name for name in (*GROUPS, "Endpoints") if f"{name}Group" in text)


def ingress(deployment: Deployment) -> set[tuple[str, str, str]]:
    """Return every ingress rule: (group, source group or CIDR, protocol and ports)."""
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


def test_only_the_clients_of_the_database_reach_it_on_its_port(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        into_database = {(source, port) for group, source, port in ingress(deployment) if group == "Database"}
        assert into_database == {(source, "tcp 5432-5432") for source in ("Functions", "Glue", "Host")}


def test_no_group_is_open_to_addresses_by_default(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert {source for _, source, _ in ingress(deployment)} <= set(GROUPS)


def test_airflows_page_is_open_only_to_the_configured_networks(opened: Deployment, dev_deployment: Deployment) -> None:
    by_address = {rule for rule in ingress(opened) if "/" in rule[1]}
    assert by_address == {("Host", cidr, "tcp 8080-8080") for cidr in OFFICE}
    assert not [rule for rule in ingress(dev_deployment) if rule[0] == "Host"]


def test_only_their_own_members_reach_glue_and_emr(dev_deployment: Deployment) -> None:
    into = {group: {source for to, source, _ in ingress(dev_deployment) if to == group} for group in GROUPS}
    assert into["Glue"] == {"Glue"}
    assert into["EmrPrimary"] == into["EmrCore"] == {"EmrPrimary", "EmrCore", "EmrService"}
    assert into["EmrService"] == {"EmrPrimary"}
    assert into["Functions"] == set()


def test_outgoing_traffic_is_limited_to_named_ports(dev_deployment: Deployment) -> None:
    for group in dev_deployment.resources("Network", "AWS::EC2::SecurityGroup"):
        for rule in group.get("SecurityGroupEgress", []):
            anywhere = rule["CidrIp"] == "0.0.0.0/0"
            assert not anywhere or ports(rule) in ("tcp 443-443", "tcp 27015-27017"), rule


@pytest.mark.parametrize(("name", "gateways"), [("dev", 1), ("prod", 2)])
def test_each_nat_gateway_has_an_address_that_is_in_the_output(
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


def test_isolated_subnets_have_no_route_out(prod_deployment: Deployment) -> None:
    routes = prod_deployment.resources("Network", "AWS::EC2::Route")
    assert routes
    assert not [route for route in routes if "isolated" in json.dumps(route["RouteTableId"])]


def test_no_subnet_assigns_public_addresses(dev_deployment: Deployment) -> None:
    assert not [item for item in dev_deployment.resources("Network", "AWS::EC2::Subnet") if item["MapPublicIpOnLaunch"]]


def test_s3_has_an_endpoint_and_other_services_only_when_configured(
    dev_deployment: Deployment, opened: Deployment
) -> None:
    def kinds(deployment: Deployment) -> list[str]:
        return sorted(item["VpcEndpointType"] for item in deployment.resources("Network", "AWS::EC2::VPCEndpoint"))

    assert kinds(dev_deployment) == ["Gateway"]
    assert kinds(opened) == ["Gateway", "Interface", "Interface"]
    into_endpoints = {(source, port) for group, source, port in ingress(opened) if group == "Endpoints"}
    assert into_endpoints == {(source, "tcp 443-443") for source in CLIENTS}


def allowed_through_s3(deployment: Deployment, action: str, arn: str, **context: str) -> bool:
    """Return whether the policy of S3's endpoint allows an action, under these condition keys of the request."""
    (endpoint,) = [
        item
        for item in deployment.resources("Network", "AWS::EC2::VPCEndpoint")
        if item["VpcEndpointType"] == "Gateway"
    ]
    values = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::URLSuffix": "amazonaws.com"}
    text = json.dumps(endpoint["PolicyDocument"])
    for name, value in (values | {"AWS::AccountId": "111111111111"}).items():
        text = text.replace(json.dumps({"Ref": name}), json.dumps(value))
    statements = json.loads(text)["Statement"]
    for statement in statements:
        resources = statement["Resource"]
        joined = [item["Fn::Join"][1] if isinstance(item, dict) else [item] for item in as_list(resources)]
        statement["Resource"] = ["".join(parts) for parts in joined]
    keys = {f"aws:{name}": (value,) for name, value in context.items()}
    return is_allowed(statements, Permission(action, arn, keys))


@pytest.mark.parametrize("bucket", ["theirs", "barflow-prod-storage-lake-1", "cdk-hnb659fds-assets-111111111111"])
def test_no_object_leaves_the_vpc_to_another_bucket(dev_deployment: Deployment, bucket: str) -> None:
    own = {"PrincipalAccount": "111111111111", "ResourceAccount": "111111111111"}
    for action in ("s3:PutObject", "s3:GetObject"):
        assert not allowed_through_s3(dev_deployment, action, f"arn:aws:s3:::{bucket}/x", **own)
    lake = "arn:aws:s3:::barflow-dev-storage-lake1-abc/bars_5min/x"
    assert allowed_through_s3(dev_deployment, "s3:PutObject", lake, **own)
    # A bucket of that name in another account, or the credentials of another account.
    for other in ("PrincipalAccount", "ResourceAccount"):
        assert not allowed_through_s3(dev_deployment, "s3:PutObject", lake, **own | {other: "222222222222"})


@pytest.mark.parametrize(
    "published",
    [
        "al2023-repos-us-east-1-de612dc2/core/x.rpm",
        "repo.us-east-1.emr.amazonaws.com/x",
        "us-east-1.elasticmapreduce/x.jar",
        "amazon-ssm-us-east-1/latest/x",
        "aws-ssm-us-east-1/x",
    ],
)
def test_what_aws_publishes_is_read_without_credentials_and_never_written(
    dev_deployment: Deployment, published: str
) -> None:
    assert allowed_through_s3(dev_deployment, "s3:GetObject", f"arn:aws:s3:::{published}")
    assert not allowed_through_s3(dev_deployment, "s3:PutObject", f"arn:aws:s3:::{published}")


def test_glue_has_no_route_to_the_internet_if_endpoints_serve_its_calls(
    customized: Deployment, dev_deployment: Deployment
) -> None:
    for deployment, kind in ((customized, "isolated"), (dev_deployment, "private")):
        for item in deployment.resources("Catalog", "AWS::Glue::Connection"):
            assert kind in json.dumps(item["ConnectionInput"]["PhysicalConnectionRequirements"]["SubnetId"])


def test_flow_logs_are_encrypted_and_kept_for_the_configured_days(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        flow = deployment.only("Network", "AWS::EC2::FlowLog")
        groups = deployment.templates["Network"]["Resources"]
        log = groups[flow["LogGroupName"]["Ref"]]["Properties"]
        assert flow["TrafficType"] == "ALL"
        assert log["RetentionInDays"] == deployment.environment.network.flow_log_days
        assert "DataKey" in json.dumps(log["KmsKeyId"])
