"""Which secrets are there, and who encrypts what? Two keys, and a secret for each thing that must not be seen.

Values from outside are put in after deployment (the runbook has the commands); Secrets Manager generates the others.
No template holds a value.
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
from stacks.outputs import Output

TWELVEDATA, MONGODB, SLACK, DASHBOARD = "twelvedata", "mongodb", "slack", "dashboard"
FERNET, JWT, LOGIN = "airflow/fernet", "airflow/jwt", "airflow/login"
FROM_OUTSIDE = "its value comes from outside AWS: whoever issued it renews it, and the runbook puts the new one in"
SEALS = "it seals what is stored already: to change it, Airflow's own fernet rotation must run, as the runbook says"
SESSIONS = "a new value signs everyone out and is made by hand, as the runbook says"


@dataclass(frozen=True)
class Keys:
    """``data`` encrypts buckets, disks, databases and logs; ``secrets`` the secrets alone: reading a bucket must not
    bring with it the means to read a secret.

    Both by ARN, so that a grant goes into the policy of the role that asks for it and not back into this stack.
    """

    data: kms.IKey
    secrets: kms.IKey


class SecretsStack(BarflowStack):
    """The keys and secrets of one environment."""

    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(scope, environment, description="keys and secrets", stateful=True)
        data_key = self._key("DataKey", "Barflow's buckets, disks, database and logs")
        secrets_key = self._key("SecretsKey", "Barflow's secrets")
        self._let_services_encrypt(data_key)
        self.keys = Keys(
            data=kms.Key.from_key_arn(self, "DataKeyArn", data_key.key_arn),
            secrets=kms.Key.from_key_arn(self, "SecretsKeyArn", secrets_key.key_arn),
        )
        connections = environment.airflow_connections_prefix

        self.twelvedata = self._put_in(
            "TwelveData", self.name(TWELVEDATA), "Twelve Data API key", outputs.TWELVEDATA_SECRET
        )
        self.mongodb = self._put_in(
            "MongoDb", self.name(MONGODB), "MongoDB URI, with user and password", outputs.MONGODB_SECRET
        )
        self.slack = self._put_in("Slack", self.name(SLACK), "Slack bot token", outputs.SLACK_SECRET)
        self.ssh_connection = self._put_in(
            "AirflowSsh",
            f"{connections}/barflow_ssh",
            "Airflow connection: SSH to the host",
            outputs.SSH_CONNECTION_SECRET,
        )
        self.slack_connection = self._put_in(
            "AirflowSlack",
            f"{connections}/slack_api_default",
            "Airflow connection: Slack",
            outputs.SLACK_CONNECTION_SECRET,
        )
        # Names the region and no more: its rights are the host's role.
        self.aws_connection = self._secret(
            "AirflowAws",
            f"{connections}/aws_default",
            "Airflow connection: AWS, by the host's role",
            "it holds the region's name, nothing secret",
            secret_string_value=cdk.SecretValue.unsafe_plain_text(
                self.to_json_string({"conn_type": "aws", "extra": {"region_name": self.region}})
            ),
        )
        self.fernet = self._generated("AirflowFernet", self.name(FERNET), "Airflow's fernet key, less '='", 43)
        self.jwt = self._generated("AirflowJwt", self.name(JWT), "what Airflow's processes sign with", 64)
        self.login = self._generated("AirflowLogin", self.name(LOGIN), "password of Airflow's page", 32)
        self.dashboard = self._generated("Dashboard", self.name(DASHBOARD), "token of the analysts' page", 48)
        self.output(outputs.AIRFLOW_LOGIN_SECRET, self.name(LOGIN))
        self.output(outputs.DASHBOARD_SECRET, self.name(DASHBOARD))

    def name(self, secret: str) -> str:
        """The name, in Secrets Manager, of one of the secrets of this environment, such as MONGODB."""
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

    def _let_services_encrypt(self, key: kms.Key) -> None:
        """Services that write on their own behalf: log groups of this account, and alarms into the topic."""
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
        for sid, services, conditions in (
            ("AlarmsOfThisAccount", ("cloudwatch", "budgets", "sns"), own),
            # EventBridge gives a key no source, so no condition on the source can hold.
            ("Events", ("events",), None),
        ):
            key.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=sid,
                    principals=[iam.ServicePrincipal(f"{name}.amazonaws.com") for name in services],
                    actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                    resources=["*"],
                    conditions=conditions,
                )
            )

    def _secret(
        self, construct_id: str, name: str, holds: str, unrotated: str, **value: object
    ) -> secretsmanager.Secret:
        secret = secretsmanager.Secret(
            self,
            construct_id,
            secret_name=name,
            description=f"Barflow {self.environment_config.name}: {holds}",
            encryption_key=self.keys.secrets,
            removal_policy=self.data_removal_policy,
            **value,  # type: ignore[arg-type]
        )
        acknowledge(secret, unrotated, "AwsSolutions-SMG4", "NIST.800.53.R5-SecretsManagerRotationEnabled")
        return secret

    def _put_in(self, construct_id: str, name: str, holds: str, output: Output) -> secretsmanager.Secret:
        """A secret whose value an operator puts in; until then it holds a random one that nothing accepts."""
        self.output(output, name)
        return self._secret(construct_id, name, holds, FROM_OUTSIDE)

    def _generated(self, construct_id: str, name: str, holds: str, length: int) -> secretsmanager.Secret:
        return self._secret(
            construct_id,
            name,
            holds,
            SEALS if "Fernet" in construct_id else SESSIONS,
            generate_secret_string=secretsmanager.SecretStringGenerator(
                password_length=length, exclude_punctuation=True
            ),
        )
