"""CloudFormation resource types that moto lacks: secrets, subscriptions, RDS attributes and a record of all others.

moto creates the resources of the types that it has. This module creates secrets and subscriptions in moto's services.
For any other type it keeps a record, so that a reference to the resource has a value and its stack deploys.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from contextlib import suppress
from typing import Any

from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.rds.models import DBInstance, MasterUserSecret, rds_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

from emulators.aws.patches import Function, wrap

NAME_PROPERTIES = (
    "Name",
    "DatabaseInput",
    "ConnectionInput",
    "FunctionName",
    "AlarmName",
    "DashboardName",
    "TopicName",
    "Budget",
)
NAMES_INSIDE = ("Name", "BudgetName")
# The type and name of each recorded resource.
RECORDED: set[tuple[str, str]] = set()
SUBSCRIPTION_ATTRIBUTES = {"RawMessageDelivery", "FilterPolicy", "RedrivePolicy"}


class RecordedResource(CloudFormationModel):
    """A resource of which the emulator knows only the name; its attributes are derived from the name."""

    def __init__(self, physical_id: str, arn: str) -> None:
        self.physical_resource_id, self.arn = physical_id, arn

    def get_cfn_attribute(self, name: str) -> str:
        """Return an attribute for Fn::GetAtt."""
        return self.arn if name.endswith("Arn") else f"{self.physical_resource_id}.{name.lower()}"

    @staticmethod
    def cloudformation_name_type() -> str:
        """Return no property: the name comes from NAME_PROPERTIES."""
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        """Return a type that no template uses."""
        return "Local::Recorded"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> RecordedResource:
        """Record a resource with its given name, or its logical one."""
        properties = cloudformation_json["Properties"]
        given = next((properties[key] for key in NAME_PROPERTIES if properties.get(key)), resource_name)
        name = (
            next((given[key] for key in NAMES_INSIDE if key in given), resource_name)
            if isinstance(given, dict)
            else given
        )
        kind = kwargs["ResourceType"]
        RECORDED.add((kind, str(name)))
        return cls(str(name), _arn(kind, str(name), account_id, region_name))

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: RecordedResource,
        new_resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
    ) -> RecordedResource:
        """Keep the record."""
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        """Remove the record."""
        RECORDED.discard((cloudformation_json["Type"], resource_name))

    def is_created(self) -> bool:
        """Return True: a record is complete at once."""
        return True


def _arn(kind: str, name: str, account: str, region: str) -> str:
    """Return the ARN of a resource of this type. An alarm's is one that policies compare."""
    if kind == "AWS::CloudWatch::Alarm":
        return f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}"
    service, resource = kind.lower().split("::")[-2:]
    return f"arn:aws:{service}:{region}:{account}:{resource}/{name}"


class Secret(RecordedResource):
    """A secret in moto's Secrets Manager."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Secret:
        """Create a secret with its given or generated value."""
        properties = cloudformation_json["Properties"]
        backend = secretsmanager_backends[account_id][region_name]
        value = properties.get("SecretString")
        if value is None:
            value = _generate(backend, properties.get("GenerateSecretString", {}))
        description, key = properties.get("Description"), properties.get("KmsKeyId")
        name = properties.get("Name", resource_name)
        created = backend.create_secret(name, value, None, description, None, key, None, [], False)
        arn = json.loads(created)["ARN"]
        return cls(arn, arn)

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        """Delete a secret at once, without a recovery window."""
        secretsmanager_backends[account_id][region_name].delete_secret(resource_name, None, True)


class SecretAttachment(RecordedResource):
    """The attachment of a database to the secret of one of its users."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> SecretAttachment:
        """Write the database's address into the secret."""
        properties = cloudformation_json["Properties"]
        backend = secretsmanager_backends[account_id][region_name]
        database = rds_backends[account_id][region_name].databases[properties["TargetId"]]
        value = json.loads(backend.get_secret_value(properties["SecretId"], "", "")["SecretString"])
        value |= {"engine": "postgres", "host": database.address, "port": database.port, "dbname": database.db_name}
        backend.put_secret_value(properties["SecretId"], json.dumps(value), None, None, ["AWSCURRENT"])
        return cls(properties["SecretId"], properties["SecretId"])


class Subscription(RecordedResource):
    """A subscription of moto's SNS."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Subscription:
        """Subscribe the endpoint and set the subscription's attributes."""
        properties, backend = cloudformation_json["Properties"], sns_backends[account_id][region_name]
        subscription = backend.subscribe(properties["TopicArn"], properties["Endpoint"], properties["Protocol"])
        for name in SUBSCRIPTION_ATTRIBUTES & properties.keys():
            backend.set_subscription_attributes(subscription.arn, name, _as_attribute(properties[name]))
        return cls(subscription.arn, subscription.arn)

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        """Unsubscribe the endpoint."""
        sns_backends[account_id][region_name].unsubscribe(resource_name)


def _as_attribute(value: Any) -> str:
    """Return a value as the API call takes it: text, or JSON as text."""
    return value if isinstance(value, str) else json.dumps(value)


def _generate(backend: Any, rules: dict[str, Any]) -> str:
    """Return a secret's value by the rules of GenerateSecretString."""
    password: str = json.loads(
        backend.get_random_password(
            int(rules.get("PasswordLength", 32)),
            rules.get("ExcludeCharacters", ""),
            False,
            str(rules.get("ExcludePunctuation", False)).lower() == "true",
            False,
            False,
            False,
            True,
        )
    )["RandomPassword"]
    if "GenerateStringKey" not in rules:
        return password
    return json.dumps(json.loads(rules["SecretStringTemplate"]) | {rules["GenerateStringKey"]: password})


class AppliedPolicy(RecordedResource):
    """A resource policy, applied to moto's topics or queues. ``targets`` names the property that lists them."""

    targets: str

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> AppliedPolicy:
        """Apply the policy."""
        policy = cls(resource_name, resource_name)
        policy._apply(cloudformation_json["Properties"], account_id, region_name)
        return policy

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: RecordedResource,
        new_resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
    ) -> RecordedResource:
        """Apply the policy instead of the former one."""
        assert isinstance(original_resource, AppliedPolicy)
        original_resource._apply(cloudformation_json["Properties"], account_id, region_name)
        return original_resource

    def delete(self, account_id: str, region_name: str) -> None:
        """Remove the policy from its topics or queues, those that still exist."""
        for name in self.names:
            with suppress(Exception):
                self._set(name, "", account_id, region_name)

    def _apply(self, properties: dict[str, Any], account_id: str, region_name: str) -> None:
        self.names = properties[self.targets]
        for name in self.names:
            self._set(name, json.dumps(properties["PolicyDocument"]), account_id, region_name)

    @staticmethod
    @abstractmethod
    def _set(name: str, document: str, account_id: str, region_name: str) -> None:
        """Give a topic or queue this policy, or without a document the default one."""


class TopicPolicy(AppliedPolicy):
    """The policy of topics. It replaces the default policy, which allows the account's owner."""

    targets = "Topics"

    @staticmethod
    def _set(name: str, document: str, account_id: str, region_name: str) -> None:
        backend = sns_backends[account_id][region_name]
        topic = backend.get_topic(name)
        topic.policy = document or json.dumps(topic._create_default_topic_policy(region_name, account_id, topic.name))


class QueuePolicy(AppliedPolicy):
    """The policy of queues."""

    targets = "Queues"

    @staticmethod
    def _set(name: str, document: str, account_id: str, region_name: str) -> None:
        sqs_backends[account_id][region_name].get_queue(name.rsplit("/", 1)[-1]).policy = document


TYPES: dict[str, type[CloudFormationModel]] = {
    "AWS::SNS::TopicPolicy": TopicPolicy,
    "AWS::SQS::QueuePolicy": QueuePolicy,
    "AWS::SecretsManager::Secret": Secret,
    "AWS::SecretsManager::SecretTargetAttachment": SecretAttachment,
    "AWS::SNS::Subscription": Subscription,
}


@wrap(parsing, "resource_class_from_type")
def _class_of(original: Function, resource_type: str) -> type[CloudFormationModel]:
    """Return the class of a resource type, or RecordedResource if there is none."""
    if resource_type in TYPES:
        return TYPES[resource_type]
    if resource_type.startswith("Custom::"):  # moto's own needs Docker to run the function behind it
        return RecordedResource
    return original(resource_type) or RecordedResource


@wrap(DBInstance, "create_from_cloudformation_json")
def _create_instance(
    original: Function, cls: type[DBInstance], name: str, body: Any, *where: str, **more: Any
) -> DBInstance:
    """Create an instance with the name of its parameter group and the managed secret of its owner."""
    properties = body["Properties"]
    group = properties.get("DBParameterGroupName")
    properties["DBParameterGroupName"] = getattr(group, "name", group)
    instance: DBInstance = original(cls, name, body, *where, **more)
    instance.deletion_protection = properties.get("DeletionProtection", False)
    instance.master_user_secret = MasterUserSecret(instance, properties["MasterUserSecret"]["KmsKeyId"])
    return instance


@wrap(DBInstance, "get_cfn_attribute")
def _instance_attribute(original: Function, instance: DBInstance, name: str) -> Any:
    """Return an attribute for Fn::GetAtt, the managed secret's too."""
    return instance.master_user_secret.secret_arn if name == "MasterUserSecret.SecretArn" else original(instance, name)


@wrap(DBInstance, "has_cfn_attr")
def _has_attribute(_original: Function, cls: type[DBInstance], name: str) -> bool:
    """Return True: get_cfn_attribute raises for an attribute that does not exist."""
    return True
