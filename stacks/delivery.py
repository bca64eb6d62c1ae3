"""The roles with which a GitHub workflow delivers one environment: a separate app, deployed once by hand.

    npx cdk deploy --app ".venv/bin/python -m stacks.delivery" -c env=dev -c repository=OWNER/NAME

A job can assume a role only from this repository and in one GitHub environment: ENV for the role that delivers, and
ENV-read for the role that only reads. GitHub's rules, such as an approval, protect a GitHub environment.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

import aws_cdk as cdk
import cdk_nag
from aws_cdk import aws_iam as iam
from constructs import Construct

from config.environment import Environment
from config.environments import environment
from config.validation import ConfigError
from stacks.base import BarflowStack, acknowledge
from stacks.constructs.grants import arn_in_finding

ISSUER, AUDIENCE = "token.actions.githubusercontent.com", "sts.amazonaws.com"
# In the subject of a token, newer repositories have the ids of owner and repository after their names.
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+|[A-Za-z0-9][A-Za-z0-9-]*@\d+/[A-Za-z0-9._-]+@\d+")
QUALIFIER = "hnb659fds"  # of CDK's bootstrap roles
READS, DELIVERS = "lookup", ("deploy", "file-publishing", "lookup")
ROLE_HOURS = {"deliver": 2, "read": 1}
# Calls of `barflow preflight`, allowed on every resource: they have no ARN, or the resource may not exist yet.
PREFLIGHT = (
    "access-analyzer:ValidatePolicy", "athena:GetWorkGroup", "budgets:ViewBudget", "ce:ListCostAllocationTags",
    "cloudformation:DescribeStacks", "cloudformation:ListStackResources", "cloudwatch:DescribeAlarms",
    "cloudwatch:ListDashboards", "ec2:DescribeAddresses", "ec2:DescribeAvailabilityZones",
    "ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeVpcs",
    "elasticmapreduce:DescribeSecurityConfiguration", "elasticmapreduce:ListSupportedInstanceTypes",
    "glue:GetDataQualityRuleset", "glue:GetDatabase", "glue:GetSecurityConfiguration", "iam:GetRole",
    "lambda:GetAccountSettings", "logs:DescribeLogGroups", "rds:DescribeOrderableDBInstanceOptions",
    "secretsmanager:DescribeSecret", "servicequotas:GetAWSDefaultServiceQuota", "servicequotas:GetServiceQuota",
    "sns:GetTopicAttributes", "sqs:GetQueueUrl", "ssm:DescribeParameters",
)  # fmt: skip


class DeliveryStack(BarflowStack):
    """The role that delivers an environment, and the role that reads it for a review and for drift."""

    def __init__(self, scope: Construct, environment: Environment, repository: str, *, provider: bool) -> None:
        """Create the roles for a repository (OWNER/NAME). With ``provider``, add the account's GitHub provider."""
        super().__init__(scope, environment, description="the roles of the delivery workflow")
        self._env, self._repository = environment.name, repository
        self._provider = self.format_arn(service="iam", region="", resource="oidc-provider", resource_name=ISSUER)
        if provider:
            made = iam.CfnOIDCProvider(self, "GitHub", url=f"https://{ISSUER}", client_id_list=[AUDIENCE])
            self._provider = made.attr_arn
        self._deliver()
        self._read()

    def _role(self, name: str, github_environment: str) -> iam.Role:
        """Return a role for the jobs of this repository in one GitHub environment, and output its ARN."""
        subject = f"repo:{self._repository}:environment:{github_environment}"
        claims = {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": subject}
        role = iam.Role(
            self,
            f"{name.title()}Role",
            description=f"Barflow {self._env}: what the delivery workflow may {name}",
            assumed_by=iam.WebIdentityPrincipal(self._provider, {"StringEquals": claims}),
            max_session_duration=cdk.Duration.hours(ROLE_HOURS[name]),
        )
        cdk.CfnOutput(self, f"{name.title()}RoleArn", value=role.role_arn, description=f"Role of {github_environment}")
        return role

    def _deliver(self) -> None:
        role = self._role("deliver", self._env)
        self._allow(role, ["sts:AssumeRole"], [self._bootstrap_role(kind) for kind in DELIVERS])
        self._allow(role, PREFLIGHT, ["*"])
        for actions, resources, conditions in (*self._looks(), *self._runs(), *self._tests()):
            self._allow(role, actions, resources, conditions)

    def _read(self) -> None:
        """Create the role for `cdk diff` and `cdk drift`. Drift reads each resource with the caller's own role."""
        role = self._role("read", f"{self._env}-read")
        self._allow(role, ["sts:AssumeRole"], [self._bootstrap_role(READS)])
        role.add_managed_policy(iam.ManagedPolicy.from_aws_managed_policy_name("ReadOnlyAccess"))
        role.add_to_policy(
            iam.PolicyStatement(
                sid="NoData",
                effect=iam.Effect.DENY,
                actions=[
                    "kms:Decrypt",
                    "s3:GetObject",
                    "s3:GetObjectVersion",
                    "secretsmanager:GetSecretValue",
                    "sqs:ReceiveMessage",
                ],
                resources=["*"],
            )
        )
        acknowledge(
            role,
            "drift reads every resource of the stacks, also of types that AWS adds; data and secrets are encrypted",
            "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/ReadOnlyAccess]",
        )

    def _looks(self) -> list[Statement]:
        """Return the permissions for what `barflow preflight` and `barflow verify` read by name."""
        return [
            (
                ["ssm:GetParameter"],
                [
                    self._arn("ssm", "parameter", f"barflow/{self._env}/runtime"),
                    self._arn("ssm", "parameter", f"cdk-bootstrap/{QUALIFIER}/version"),
                ],
                None,
            ),
            (["cloudwatch:GetMetricData", "ssm:CancelCommand", "ssm:GetCommandInvocation"], ["*"], None),
            (
                ["cloudwatch:GetDashboard"],
                [self.format_arn(service="cloudwatch", region="", resource="dashboard", resource_name=self._names)],
                None,
            ),
            (
                ["lambda:GetFunctionConfiguration"],
                [self._colon_arn("lambda", "function", name) for name in (self._names, f"barflow-{self._env}-*")],
                None,
            ),
            (
                ["logs:FilterLogEvents"],
                [self._colon_arn("logs", "log-group", name) for name in (self._names, f"/aws/lambda/{self._names}")],
                None,
            ),
            # `barflow run` looks for the JDBC driver of the warehouse's crawler.
            (["s3:ListBucket"], [f"arn:{self.partition}:s3:::barflow-{self._env}-storage-code*"], None),
            (["sns:ListSubscriptionsByTopic"], [self.format_arn(service="sns", resource=self._names)], None),
        ]

    def _runs(self) -> list[Statement]:
        """Return the permissions for what `barflow verify` runs: a tick, a process run, and commands on the host."""
        clusters = self._arn("elasticmapreduce", "cluster", "*")
        emr = {kind: {f"elasticmapreduce:{kind}Tag/barflow:env": self._env} for kind in ("Request", "Resource")}
        own = {"StringEquals": {"aws:ResourceTag/barflow:env": self._env}}
        on_cluster = ("AddJobFlowSteps", "DescribeCluster", "DescribeStep", "TerminateJobFlows")
        services = ["ec2.amazonaws.com", "elasticmapreduce.amazonaws.com"]
        emr_roles = self.format_arn(
            service="iam", region="", resource="role", resource_name=f"Barflow-{self._env}-Processing-*"
        )
        document = f"arn:{self.partition}:ssm:{self.region}::document/AWS-RunShellScript"
        return [
            (
                ["lambda:InvokeFunction"],
                [self._colon_arn("lambda", "function", f"barflow-{self._env}-ingest")],
                None,
            ),
            (["elasticmapreduce:ListClusters"], ["*"], None),
            (["elasticmapreduce:RunJobFlow"], ["*"], {"StringEquals": emr["Request"]}),
            (["elasticmapreduce:AddTags"], [clusters], {"StringEquals": emr["Request"]}),
            # RunJobFlow needs it for a cluster that has no tag yet.
            (["elasticmapreduce:PutAutoTerminationPolicy"], [clusters], None),
            ([f"elasticmapreduce:{action}" for action in on_cluster], [clusters], {"StringEquals": emr["Resource"]}),
            (["iam:PassRole"], [emr_roles], {"StringEquals": {"iam:PassedToService": services}}),
            (["glue:GetJobRun"], [self._arn("glue", "job", "*")], own),
            (["glue:GetWorkflowRun", "glue:StartWorkflowRun"], [self._arn("glue", "workflow", "*")], own),
            (["glue:StartCrawler"], [self._arn("glue", "crawler", "*")], own),
            (["ssm:SendCommand"], [document], None),
            (["ssm:SendCommand"], [self._arn("ec2", "instance", "*")], own),
        ]

    def _tests(self) -> list[Statement]:
        """Return the permissions for what `barflow verify` tests: an alarm's message in Slack, and the bots' queues."""
        alerts = f"barflow-{self._env}-alerts"
        slack = self._colon_arn("secretsmanager", "secret", f"barflow/{self._env}/slack-??????")
        keys = self._arn("kms", "key", "*")
        return [
            (["cloudwatch:SetAlarmState"], [self._colon_arn("cloudwatch", "alarm", self._names)], None),
            (["secretsmanager:GetSecretValue"], [slack], None),
            (["sns:Publish"], [self.format_arn(service="sns", resource=f"{alerts}.fifo")], None),
            (
                ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"],
                [self.format_arn(service="sqs", resource=f"{alerts}-*.fifo")],
                None,
            ),
            (["kms:Decrypt"], [keys], self._key_condition("secretsmanager", "sns", "sqs")),
            (["kms:GenerateDataKey"], [keys], self._key_condition("sns")),
        ]

    def _key_condition(self, *services: str) -> dict[str, object]:
        """Return the condition for the keys of this environment, used through these services only."""
        through = [f"{service}.{self.region}.{self.url_suffix}" for service in services]
        return {"StringEquals": {"kms:ViaService": through, "aws:ResourceTag/barflow:env": self._env}}

    @property
    def _names(self) -> str:
        """Return the pattern of the names that CloudFormation gives to resources of this environment's stacks."""
        return f"Barflow-{self._env}-*"

    def _arn(self, service: str, resource: str, name: str) -> str:
        return self.format_arn(service=service, resource=resource, resource_name=name)

    def _colon_arn(self, service: str, resource: str, name: str) -> str:
        return self.format_arn(
            service=service, resource=resource, resource_name=name, arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME
        )

    def _bootstrap_role(self, kind: str) -> str:
        name = f"cdk-{QUALIFIER}-{kind}-role-{self.account}-{self.region}"
        return self.format_arn(service="iam", region="", resource="role", resource_name=name)

    def _allow(
        self,
        role: iam.Role,
        actions: Sequence[str],
        resources: Sequence[str],
        conditions: Mapping[str, object] | None = None,
    ) -> None:
        role.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=conditions))
        acknowledge(
            role,
            "the name ends in an id of AWS, a tag limits the resources, or the call has no resource",
            *(f"AwsSolutions-IAM5[Resource::{arn_in_finding(self, arn)}]" for arn in resources if "*" in arn),
        )


Statement = tuple[Sequence[str], Sequence[str], Mapping[str, object] | None]


def build(app: cdk.App) -> DeliveryStack:
    """Build the stack that the context describes. Raise ConfigError for a wrong repository or environment."""
    repository = str(app.node.try_get_context("repository") or "")
    if not REPOSITORY.fullmatch(repository):
        raise ConfigError(f"-c repository={repository}: give the GitHub repository as OWNER/NAME, without a wildcard")
    cdk.Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app), cdk_nag.NIST80053R5Checks(app))
    config = environment(app.node.try_get_context("env") or "dev")
    provider = app.node.try_get_context("github_provider") != "exists"
    return DeliveryStack(app, config, repository, provider=provider)


if __name__ == "__main__":
    app = cdk.App()
    try:
        build(app)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    app.synth()
