"""What the network and secrets stacks give to every other stack, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from config.environment import Environment
from stacks.network import Groups, NetworkStack
from stacks.secrets import Keys, SecretsStack


@dataclass(frozen=True)
class Platform:
    """The settings of an environment, its keys and secrets, and its network.

    ``balancer_group`` is the security group of the load balancer, if there is one.
    """

    environment: Environment
    keys: Keys
    secrets: SecretsStack
    vpc: ec2.IVpc
    groups: Groups
    glue_subnet: ec2.ISubnet
    balancer_group: ec2.SecurityGroup | None

    @classmethod
    def build(cls, scope: Construct, environment: Environment) -> Platform:
        """Build the secrets and network stacks, and return what they give."""
        secrets = SecretsStack(scope, environment)
        network = NetworkStack(scope, environment, keys=secrets.keys)
        return cls(
            environment=environment,
            keys=secrets.keys,
            secrets=secrets,
            vpc=network.vpc,
            groups=network.groups,
            glue_subnet=network.glue_subnet,
            balancer_group=network.balancer_group,
        )
