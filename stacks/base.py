"""What every stack has: its name, tags, outputs by key, and the two keys to deleting data."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct, IConstruct

from config.environment import Environment
from stacks.outputs import Output

DELETION_FLAG = "allow_data_deletion"


class BarflowStack(cdk.Stack):
    """A stack of one environment, named Barflow-ENV-NAME by its class, NAMEStack."""

    def __init__(self, scope: Construct, environment: Environment, *, description: str, stateful: bool = False) -> None:
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
            "a role's own policy lives and dies with it, and is attached to nothing else: narrower than a managed one",
            "NIST.800.53.R5-IAMNoInlinePolicy",
        )

    @property
    def availability_zones(self) -> list[str]:
        """The region's own, resolved on deployment: asking for them while synthesizing would be a look-up."""
        return [cdk.Fn.select(index, cdk.Fn.get_azs()) for index in range(3)]

    @property
    def data_removal_policy(self) -> cdk.RemovalPolicy:
        """DESTROY with both keys, else RETAIN."""
        if data_may_be_deleted(self, self.environment_config):
            return cdk.RemovalPolicy.DESTROY
        return cdk.RemovalPolicy.RETAIN

    def output(self, output: Output, value: str) -> None:
        """Creates the output under exactly its key."""
        if output.stack != self.part:
            raise ValueError(f"output {output.key} belongs to {output.stack}, not to {self.part}")
        made = cdk.CfnOutput(self._outputs, output.key, value=value, description=output.meaning)
        made.override_logical_id(output.key)


def data_may_be_deleted(scope: IConstruct, environment: Environment) -> bool:
    """Whether both keys are turned: the environment's policy, and -c allow_data_deletion=true."""
    flag = scope.node.try_get_context(DELETION_FLAG)
    return environment.allow_data_deletion and str(flag).lower() == "true"


def acknowledge(construct: IConstruct, reason: str, *rules: str) -> None:
    """Accepts findings of cdk-nag on one construct, for a reason. A wildcard's finding names the wildcard."""
    cdk.Validations.of(construct).acknowledge(*(cdk.Acknowledgment(id=rule, reason=reason) for rule in rules))
