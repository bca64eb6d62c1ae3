"""The base of every stack: its name, its tags, its outputs, and the rule for deleting data."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct, IConstruct

from config.environment import Environment
from stacks.outputs import Output

DELETION_FLAG = "allow_data_deletion"


class BarflowStack(cdk.Stack):
    """A stack of one environment. The class NAMEStack has the stack name Barflow-ENV-NAME."""

    def __init__(self, scope: Construct, environment: Environment, *, description: str, stateful: bool = False) -> None:
        """Create the stack. A stateful one has termination protection, unless its data may be deleted."""
        self.part = type(self).__name__.removesuffix("Stack")
        self.environment_config = environment
        super().__init__(
            scope,
            f"Barflow-{environment.name}-{self.part}",
            env=cdk.Environment(account=environment.account, region=environment.region),
            description=f"Barflow {environment.name}: {description}",
            termination_protection=stateful and not data_may_be_deleted(scope, environment),
            tags={"barflow:env": environment.name, "barflow:stack": self.part},
        )
        self._outputs = Construct(self, "Outputs")
        acknowledge(
            self,
            "an inline policy belongs to one role and is deleted with it; a managed policy could be attached elsewhere",
            "NIST.800.53.R5-IAMNoInlinePolicy",
        )

    @property
    def availability_zones(self) -> list[str]:
        """The environment's zones, else the first three of the region, resolved on deployment without a lookup."""
        if names := self.environment_config.network.zone_names:
            return list(names)
        return [cdk.Fn.select(index, cdk.Fn.get_azs()) for index in range(3)]

    @property
    def data_removal_policy(self) -> cdk.RemovalPolicy:
        """DESTROY when the data may be deleted, else retain, but not after a failed first deployment.

        A resource that a rollback left behind would keep its name, and the next deployment could not create it.
        """
        if data_may_be_deleted(self, self.environment_config):
            return cdk.RemovalPolicy.DESTROY
        return cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE

    @property
    def occupied_removal_policy(self) -> cdk.RemovalPolicy:
        """The policy of what AWS refuses to delete: a bucket with objects, a database with deletion protection.

        A rollback of the first deployment would fail on it, so it retains it. Its name is generated, and the next
        deployment creates another one.
        """
        policy = self.data_removal_policy
        return policy if policy == cdk.RemovalPolicy.DESTROY else cdk.RemovalPolicy.RETAIN

    def output(self, output: Output, value: str) -> None:
        """Create the output under exactly its key. Raise ValueError for an output of another stack."""
        if output.stack != self.part:
            raise ValueError(f"output {output.key} belongs to {output.stack}, not to {self.part}")
        made = cdk.CfnOutput(self._outputs, output.key, value=value, description=output.meaning)
        made.override_logical_id(output.key)


def data_may_be_deleted(scope: IConstruct, environment: Environment) -> bool:
    """Return whether both the environment and the flag -c allow_data_deletion=true allow it."""
    flag = scope.node.try_get_context(DELETION_FLAG)
    return environment.allow_data_deletion and str(flag).lower() == "true"


def acknowledge(construct: IConstruct, reason: str, *rules: str) -> None:
    """Accept findings of cdk-nag on one construct, with a reason. The id of a wildcard finding names the wildcard."""
    cdk.Validations.of(construct).acknowledge(*(cdk.Acknowledgment(id=rule, reason=reason) for rule in rules))
