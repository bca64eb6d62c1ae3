"""The VPC, its NAT gateways, and the security groups.

All security groups are here, so every rule between two of them is in one file.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from config.environment import Environment
from stacks import outputs
from stacks.base import BarflowStack, acknowledge
from stacks.constructs.logs import encrypted_log_group
from stacks.secrets import Keys

POSTGRESQL = 5432
MONGODB = ec2.Port.tcp_range(27015, 27017)  # Atlas clusters listen on all three
AIRFLOW, DASHBOARD = 8080, 8050  # the pages of the host
# What Glue's jobs and crawlers call. With an endpoint for each, and the one for S3, they need no way to the Internet.
# https://docs.aws.amazon.com/glue/latest/dg/vpc-interface-endpoints.html
GLUE_CALLS = frozenset({"glue", "kms", "logs", "monitoring", "secretsmanager"})
# What AWS publishes in S3 for Amazon Linux 2023, EMR and the SSM agent. {0} is the region, {1} AWS's domain.
# https://docs.aws.amazon.com/emr/latest/ManagementGuide/private-subnet-iampolicy.html
# https://docs.aws.amazon.com/systems-manager/latest/userguide/ssm-agent-minimum-s3-permissions.html
PUBLISHED_BY_AWS = (
    "al2023-repos-{0}-de612dc2",
    "repo.{0}.emr.{1}",
    "{0}.elasticmapreduce",
    "amazon-ssm-{0}",
    "aws-ssm-{0}",
)


@dataclass(frozen=True)
class Groups:
    """The security groups. EMR requires three: the primary node's, the core and task nodes', and service access."""

    database: ec2.SecurityGroup
    functions: ec2.SecurityGroup
    emr_primary: ec2.SecurityGroup
    emr_core: ec2.SecurityGroup
    emr_service: ec2.SecurityGroup
    glue: ec2.SecurityGroup
    host: ec2.SecurityGroup


class NetworkStack(BarflowStack):
    """The ``vpc`` with NAT gateways, a gateway endpoint for S3 and flow logs, and the security ``groups``.

    ``glue_subnet`` is where Glue's jobs and crawlers run: without a route to the Internet if endpoints serve all their
    calls.
    """

    def __init__(self, scope: Construct, environment: Environment, *, keys: Keys) -> None:
        """Create the network. ``keys.data`` encrypts the flow logs."""
        super().__init__(scope, environment, description="network and security groups")
        config = environment.network
        addresses = [
            ec2.CfnEIP(self, f"NatAddress{number}", domain="vpc") for number in range(1, config.nat_gateways + 1)
        ]
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(config.cidr),
            max_azs=config.zones,
            nat_gateways=config.nat_gateways,
            nat_gateway_provider=ec2.NatProvider.gateway(
                eip_allocation_ids=[address.attr_allocation_id for address in addresses]
            ),
            restrict_default_security_group=True,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=26, map_public_ip_on_launch=False
                ),
                ec2.SubnetConfiguration(name="private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
                ec2.SubnetConfiguration(name="isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=26),
            ],
            gateway_endpoints={"S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)},
            flow_logs={
                "FlowLogs": ec2.FlowLogOptions(
                    destination=ec2.FlowLogDestination.to_cloud_watch_logs(
                        encrypted_log_group(
                            self,
                            "FlowLog",
                            key=keys.data,
                            days=config.flow_log_days,
                            removal_policy=self.data_removal_policy,
                        )
                    )
                )
            },
        )
        self._limit_s3()
        without_internet = set(config.interface_endpoints) >= GLUE_CALLS
        self.glue_subnet = (self.vpc.isolated_subnets if without_internet else self.vpc.private_subnets)[0]
        self.groups = self._groups()
        self._rules(self.groups)
        self.balancer_group = self._balancer_group() if environment.balancer.certificate_arn else None
        for port, page, cidrs, name in (
            (AIRFLOW, "Airflow's page", config.airflow_ui_cidrs, environment.balancer.airflow_name),
            (DASHBOARD, "The analysts' page", config.dashboard_cidrs, environment.balancer.page_name),
        ):
            if self.balancer_group and name:
                self.balancer_group.connections.allow_to(self.groups.host, ec2.Port.tcp(port), page)
            else:
                self._open(self.groups.host, port, page, cidrs)
        self._endpoints(config.interface_endpoints)
        self.output(outputs.VPC_ID, self.vpc.vpc_id)
        self.output(outputs.NAT_ADDRESSES, cdk.Fn.join(",", [address.ref for address in addresses]))
        for subnet in self.vpc.public_subnets:
            acknowledge(
                subnet,
                "a public subnet has this route by definition; it is for NAT gateways and public pages",
                "NIST.800.53.R5-VPCNoUnrestrictedRouteToIGW",
            )

    def _limit_s3(self) -> None:
        """Limit the endpoint of S3 to this environment's buckets and to what AWS publishes.

        The names of the buckets begin with those of the environment's stacks. Packages are read without credentials.
        """
        endpoint = self.vpc.node.find_child("S3")
        assert isinstance(endpoint, ec2.GatewayVpcEndpoint)
        own = f"arn:{self.partition}:s3:::barflow-{self.environment_config.name}-*"
        published = [name.format(self.region, self.url_suffix) for name in PUBLISHED_BY_AWS]
        anyone = [iam.AnyPrincipal()]
        endpoint.add_to_policy(
            iam.PolicyStatement(
                principals=anyone,
                actions=["s3:*"],
                resources=[own],
                conditions={"StringEquals": {f"aws:{of}Account": self.account for of in ("Principal", "Resource")}},
            )
        )
        endpoint.add_to_policy(
            iam.PolicyStatement(
                principals=anyone,
                actions=["s3:GetObject"],
                resources=[f"arn:{self.partition}:s3:::{name}/*" for name in published],
            )
        )

    def _groups(self) -> Groups:
        purposes = {
            "database": "the warehouse",
            "functions": "ingest and migrations",
            "emr_primary": "EMR primary node",
            "emr_core": "EMR core and task nodes",
            "emr_service": "EMR service access",
            "glue": "Glue jobs and crawlers",
            "host": "the Airflow host",
        }
        assert list(purposes) == [item.name for item in fields(Groups)]
        return Groups(
            **{
                name: ec2.SecurityGroup(
                    self,
                    name.title().replace("_", "") + "Group",
                    vpc=self.vpc,
                    description=f"Barflow {self.environment_config.name}: {purpose}",
                    allow_all_outbound=False,
                )
                for name, purpose in purposes.items()
            }
        )

    def _rules(self, groups: Groups) -> None:
        for group in (groups.functions, groups.glue, groups.host):
            group.connections.allow_to(groups.database, ec2.Port.tcp(POSTGRESQL), "the warehouse")
        for group in (groups.functions, groups.emr_primary, groups.emr_core, groups.glue, groups.host):
            group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS, Twelve Data, Slack, packages")
        for group in (groups.functions, groups.emr_primary, groups.emr_core, groups.host):
            group.add_egress_rule(ec2.Peer.any_ipv4(), MONGODB, "MongoDB")
        groups.glue.connections.allow_internally(ec2.Port.all_tcp(), "Glue's workers among themselves")
        # EMR adds these rules if they are missing. Here, the template shows them.
        nodes = (groups.emr_primary, groups.emr_core)
        for one in nodes:
            for other in nodes:
                for port in (ec2.Port.all_tcp(), ec2.Port.all_udp(), ec2.Port.all_icmp()):
                    one.connections.allow_from(other, port, "EMR's nodes among themselves")
                    if one is other:  # allow_from leaves out the egress rule of a group to itself
                        one.add_egress_rule(one, port, "EMR's nodes among themselves")
            one.connections.allow_from(groups.emr_service, ec2.Port.tcp(8443), "EMR's service to the nodes")
        groups.emr_service.connections.allow_from(groups.emr_primary, ec2.Port.tcp(9443), "primary to EMR's service")

    def _balancer_group(self) -> ec2.SecurityGroup:
        """Return the group of the load balancer. Its rules admit each network only to its own page."""
        config, balancer = self.environment_config.network, self.environment_config.balancer
        group = ec2.SecurityGroup(
            self,
            "BalancerGroup",
            vpc=self.vpc,
            description=f"Barflow {self.environment_config.name}: the load balancer",
            allow_all_outbound=False,
        )
        pages = ((balancer.page_name, config.dashboard_cidrs), (balancer.airflow_name, config.airflow_ui_cidrs))
        for cidr in dict.fromkeys(cidr for name, cidrs in pages if name for cidr in cidrs):
            group.add_ingress_rule(ec2.Peer.ipv4(cidr), ec2.Port.tcp(443), "The pages")
            group.add_ingress_rule(ec2.Peer.ipv4(cidr), ec2.Port.tcp(80), "A redirect to HTTPS")
        if balancer.oidc:
            group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "The provider of the login")
        return group

    def _open(self, host: ec2.SecurityGroup, port: int, page: str, cidrs: tuple[str, ...]) -> None:
        for cidr in cidrs:
            host.add_ingress_rule(ec2.Peer.ipv4(cidr), ec2.Port.tcp(port), page)

    def _endpoints(self, services: tuple[str, ...]) -> None:
        if not services:
            return
        group = ec2.SecurityGroup(
            self, "EndpointsGroup", vpc=self.vpc, description="Interface endpoints", allow_all_outbound=False
        )
        for name in ("functions", "emr_primary", "emr_core", "glue", "host"):
            group.add_ingress_rule(getattr(self.groups, name), ec2.Port.tcp(443), "AWS without NAT")
        for service in services:
            self.vpc.add_interface_endpoint(
                f"Endpoint{service.title()}",
                service=ec2.InterfaceVpcEndpointAwsService(service),
                security_groups=[group],
                open=False,
            )
