"""Two KMS keys, and one secret per credential.

An operator sets the values from outside after deployment (the runbook has the commands). Secrets Manager generates the
others. No template contains a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from config.environment import Environment
from stacks import outputs
from stacks.base import BarflowStack, acknowledge
from stacks.constructs.grants import allow
from stacks.outputs import Output

TWELVEDATA, MONGODB, SLACK, WEBHOOK, DASHBOARD = "twelvedata", "mongodb", "slack", "webhook", "dashboard"
APPRISE = "apprise"
LINEAGE = "lineage"
FERNET, JWT, LOGIN = "airflow/fernet", "airflow/jwt", "airflow/login"
USERS = "airflow/users"
USERS_CONTENT = "users of Airflow's page, as JSON: each name with its password and role"
# Why a secret has no automatic rotation.
ISSUED_OUTSIDE = "its issuer outside AWS renews the value; the runbook describes how to set the new one"
ENCRYPTS_STORED_DATA = (
    "stored data is encrypted with it: the runbook describes Airflow's own rotation of the fernet key"
)
SIGNS_OUT = "a new value signs everyone out: the runbook describes how to set it by hand"


@dataclass(frozen=True)
class Keys:
    """The encryption keys: ``data`` for buckets, disks, the database and logs, ``secrets`` for the secrets only.

    Permission to read a bucket therefore never decrypts a secret. Both keys are imported by ARN, so a grant goes into
    the role's policy and not into the key's policy in this stack.
    """

    data: kms.IKey
    secrets: kms.IKey


class SecretsStack(BarflowStack):
    """The keys and secrets of an environment."""

    def __init__(self, scope: Construct, environment: Environment) -> None:
        """Create the keys and the secrets."""
        super().__init__(scope, environment, description="keys and secrets", stateful=True)
        data_key = self._key("DataKey", "Barflow's buckets, disks, database and logs")
        secrets_key = self._key("SecretsKey", "Barflow's secrets")
        self._allow_services(data_key)
        self.keys = Keys(
            data=kms.Key.from_key_arn(self, "DataKeyArn", data_key.key_arn),
            secrets=kms.Key.from_key_arn(self, "SecretsKeyArn", secrets_key.key_arn),
        )
        connections = environment.airflow_connections_prefix

        self.twelvedata = self._set_by_operator(
            "TwelveData", self.name(TWELVEDATA), "Twelve Data API key", outputs.TWELVEDATA_SECRET
        )
        self.mongodb = self._set_by_operator(
            "MongoDb", self.name(MONGODB), "MongoDB URI, with user and password", outputs.MONGODB_SECRET
        )
        self.slack = self._set_by_operator("Slack", self.name(SLACK), "Slack bot token", outputs.SLACK_SECRET)
        # Other stacks use its name, not an export, which could not be removed together with the channel.
        if environment.webhooks.urls:
            self._set_by_operator("Webhook", self.name(WEBHOOK), "secret that signs webhooks", outputs.WEBHOOK_SECRET)
        if environment.apprise:
            content = "URLs of apprise, as JSON: each name of the environment's apprise with its URL"
            self._set_by_operator("Apprise", self.name(APPRISE), content, outputs.APPRISE_SECRET)
        self.ssh_connection = self._set_by_operator(
            "AirflowSsh",
            f"{connections}/barflow_ssh",
            "Airflow connection: SSH to the host",
            outputs.SSH_CONNECTION_SECRET,
        )
        self.slack_connection = self._set_by_operator(
            "AirflowSlack",
            f"{connections}/slack_api_default",
            "Airflow connection: Slack",
            outputs.SLACK_CONNECTION_SECRET,
        )
        # It contains only the region. The permissions are those of the host's role.
        self.aws_connection = self._secret(
            "AirflowAws",
            f"{connections}/aws_default",
            "Airflow connection: AWS, with the host's role",
            "it contains only the region's name",
            secret_string_value=cdk.SecretValue.unsafe_plain_text(
                self.to_json_string({"conn_type": "aws", "extra": {"region_name": self.region}})
            ),
        )
        self.fernet = self._generated("AirflowFernet", self.name(FERNET), "Airflow's fernet key without its '='", 43)
        self.jwt = self._generated("AirflowJwt", self.name(JWT), "key that signs the tokens of Airflow's processes", 64)
        self.login = self._generated("AirflowLogin", self.name(LOGIN), "password for Airflow's page", 32)
        self.dashboard = self._generated("Dashboard", self.name(DASHBOARD), "token for the analysts' page", 48)
        # Airflow's own login for one user serves its page on the host alone.
        self.airflow_users = (
            self._set_by_operator("AirflowUsers", self.name(USERS), USERS_CONTENT, outputs.AIRFLOW_USERS_SECRET)
            if environment.network.airflow_ui_cidrs
            else None
        )
        lineage = environment.lineage
        self.lineage = (
            self._set_by_operator(
                "Lineage", self.name(LINEAGE), "API key of the OpenLineage backend", outputs.LINEAGE_SECRET
            )
            if lineage.url and lineage.api_key
            else None
        )
        self.output(outputs.AIRFLOW_LOGIN_SECRET, self.name(LOGIN))
        self.output(outputs.DASHBOARD_SECRET, self.name(DASHBOARD))

    def allow_lineage(self, role: iam.IRole) -> None:
        """Allow a role that reads other secrets, too, to read the key of the lineage's backend, if it has one.

        By its name: an export of it could not be removed when the backend changes. The marks are AWS's random suffix.
        """
        if self.lineage:
            name = f"{self.name(LINEAGE)}-??????"
            arn = self.format_arn(
                service="secretsmanager",
                resource="secret",
                resource_name=name,
                arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
            )
            allow(role, ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"], [arn])

    def name(self, secret: str) -> str:
        """Return the name in Secrets Manager of a secret of this environment, such as MONGODB."""
        return f"barflow/{self.environment_config.name}/{secret}"

    def _key(self, name: str, description: str) -> kms.Key:
        return kms.Key(
            self,
            name,
            description=f"{description} ({self.environment_config.name})",
            enable_key_rotation=True,
            removal_policy=self.data_removal_policy,
            pending_window=cdk.Duration.days(30),
        )

    def _allow_services(self, key: kms.Key) -> None:
        """Allow services to use the key: CloudWatch Logs, and those that publish to encrypted topics."""
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="LogGroupsOfThisAccount",
                principals=[iam.ServicePrincipal(f"logs.{self.region}.{self.url_suffix}")],
                actions=["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*"],
                resources=["*"],
                conditions={
                    "ArnLike": {
                        "kms:EncryptionContext:aws:logs:arn": self.format_arn(
                            service="logs",
                            resource="log-group",
                            resource_name="*",
                            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                        )
                    }
                },
            )
        )
        own = {"StringEquals": {"aws:SourceAccount": self.account}}
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsOfThisAccount",
                principals=[iam.ServicePrincipal(f"{name}.amazonaws.com") for name in ("cloudwatch", "budgets", "sns")],
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                resources=["*"],
                conditions=own,
            )
        )
        if self.environment_config.emr.spot_percent:
            self._allow_spot(key)

    def _allow_spot(self, key: kms.Key) -> None:
        """Allow EC2's role for Spot instances to use encrypted disks.

        It is in a condition, because a principal of a policy has to exist already.
        """
        role = "role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
        spot = f"arn:{self.partition}:iam::{self.account}:{role}"
        is_spot = {"kms:CallerAccount": self.account, "aws:PrincipalArn": spot}
        disks = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
        for sid, actions, more in (
            ("DisksOfSpotInstances", disks, {}),
            ("GrantsOfSpotInstances", ["kms:CreateGrant"], {"Bool": {"kms:GrantIsForAWSResource": "true"}}),
        ):
            key.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=sid,
                    principals=[iam.AnyPrincipal()],
                    actions=actions,
                    resources=["*"],
                    conditions={"StringEquals": is_spot, **more},
                )
            )

    def _secret(
        self, construct_id: str, name: str, content: str, no_rotation: str, **value: object
    ) -> secretsmanager.Secret:
        secret = secretsmanager.Secret(
            self,
            construct_id,
            secret_name=name,
            description=f"Barflow {self.environment_config.name}: {content}",
            encryption_key=self.keys.secrets,
            removal_policy=self.data_removal_policy,
            **value,  # type: ignore[arg-type]
        )
        acknowledge(secret, no_rotation, "AwsSolutions-SMG4", "NIST.800.53.R5-SecretsManagerRotationEnabled")
        return secret

    def _set_by_operator(self, construct_id: str, name: str, content: str, output: Output) -> secretsmanager.Secret:
        """Return a secret whose value an operator sets. Until then it has a random value that nothing accepts."""
        self.output(output, name)
        return self._secret(construct_id, name, content, ISSUED_OUTSIDE)

    def _generated(self, construct_id: str, name: str, content: str, length: int) -> secretsmanager.Secret:
        return self._secret(
            construct_id,
            name,
            content,
            ENCRYPTS_STORED_DATA if "Fernet" in construct_id else SIGNS_OUT,
            generate_secret_string=secretsmanager.SecretStringGenerator(
                password_length=length, exclude_punctuation=True
            ),
        )
