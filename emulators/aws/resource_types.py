"""What moto's CloudFormation lacks for this project's stacks: secrets, subscriptions, attributes, a record of the rest.

A type that moto knows is made for real in it; secrets and subscriptions are made for real here; of any other type a
record is kept, so that a reference to it has a value and a stack that uses it deploys. ``extend()`` is called once, in
moto's process.
"""

from __future__ import annotations

import json
from typing import Any

from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.rds.models import DBInstance, MasterUserSecret
from moto.secretsmanager.models import secretsmanager_backends
from moto.sns.models import sns_backends

NAME_PROPERTIES = (
    "Name",
    "DatabaseInput",
    "ConnectionInput",
    "FunctionName",
    "AlarmName",
    "DashboardName",
    "TopicName",
)
SUBSCRIPTION_ATTRIBUTES = {"RawMessageDelivery", "FilterPolicy", "RedrivePolicy"}


class Recorded(CloudFormationModel):
    """A resource that exists by its name alone. Its attributes are made up of that name."""

    def __init__(self, physical_id: str, arn: str) -> None:
        self.physical_resource_id, self.arn = physical_id, arn

    def get_cfn_attribute(self, name: str) -> str:
        return self.arn if name.endswith("Arn") else f"{self.physical_resource_id}.{name.lower()}"

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "Local::Recorded"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Recorded:
        properties = cloudformation_json["Properties"]
        given = next((properties[key] for key in NAME_PROPERTIES if properties.get(key)), resource_name)
        name = given.get("Name", resource_name) if isinstance(given, dict) else given
        service, kind = kwargs["ResourceType"].lower().split("::")[-2:]
        arn = f"arn:aws:{service}:{region_name}:{account_id}:{kind}/{name}"
        return cls(str(name), arn)

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Recorded,
        new_resource_name: str,
        cloudformation_json: Any,
        account_id: str,
        region_name: str,
    ) -> Recorded:
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        """Nothing was made, so nothing is left."""

    def is_created(self) -> bool:
        return True


class Secret(Recorded):
    """A secret in moto's Secrets Manager, with its given or generated value."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Secret:
        properties = cloudformation_json["Properties"]
        backend = secretsmanager_backends[account_id][region_name]
        value = properties.get("SecretString")
        if value is None:
            value = _generated(backend, properties.get("GenerateSecretString", {}))
        description, key = properties.get("Description"), properties.get("KmsKeyId")
        name = properties.get("Name", resource_name)
        made = backend.create_secret(name, value, None, description, None, key, None, [], False)
        arn = json.loads(made)["ARN"]
        return cls(arn, arn)

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        secretsmanager_backends[account_id][region_name].delete_secret(resource_name, None, True)


class SecretAttachment(Recorded):
    """What writes the address of a database into the secret of its user."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> SecretAttachment:
        from moto.rds.models import rds_backends

        properties = cloudformation_json["Properties"]
        backend = secretsmanager_backends[account_id][region_name]
        database = rds_backends[account_id][region_name].databases[properties["TargetId"]]
        value = json.loads(backend.get_secret_value(properties["SecretId"], "", "")["SecretString"])
        value |= {"engine": "postgres", "host": database.address, "port": database.port}
        backend.put_secret_value(properties["SecretId"], json.dumps(value), None, None, ["AWSCURRENT"])
        return cls(properties["SecretId"], properties["SecretId"])


class Subscription(Recorded):
    """What a topic sends on, and to whom."""

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> Subscription:
        properties, backend = cloudformation_json["Properties"], sns_backends[account_id][region_name]
        made = backend.subscribe(properties["TopicArn"], properties["Endpoint"], properties["Protocol"])
        for name in SUBSCRIPTION_ATTRIBUTES & properties.keys():
            backend.set_subscription_attributes(made.arn, name, _as_attribute(properties[name]))
        return cls(made.arn, made.arn)

    @classmethod
    def delete_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> None:
        sns_backends[account_id][region_name].unsubscribe(resource_name)


def _as_attribute(value: Any) -> str:
    """As the call takes it: text, or JSON in text."""
    return value if isinstance(value, str) else json.dumps(value)


def _generated(backend: Any, rules: dict[str, Any]) -> str:
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


TYPES: dict[str, type[CloudFormationModel]] = {
    "AWS::SecretsManager::Secret": Secret,
    "AWS::SecretsManager::SecretTargetAttachment": SecretAttachment,
    "AWS::SNS::Subscription": Subscription,
}


def extend() -> None:
    """Registers the types above, and mends RDS: names of parameter groups, the owner's managed secret."""
    known = parsing.resource_class_from_type

    def class_or_record(resource_type: str) -> type[CloudFormationModel]:
        if resource_type in TYPES:
            return TYPES[resource_type]
        if resource_type.startswith("Custom::"):  # moto would want Docker to run its function
            return Recorded
        return known(resource_type) or Recorded

    parsing.resource_class_from_type = class_or_record
    create = DBInstance.create_from_cloudformation_json.__func__  # type: ignore[attr-defined]
    attribute = DBInstance.get_cfn_attribute

    def create_instance(cls: Any, name: str, body: Any, account_id: str, region_name: str, **kwargs: Any) -> DBInstance:
        group = body["Properties"].get("DBParameterGroupName")
        body["Properties"]["DBParameterGroupName"] = getattr(group, "name", group)
        made: DBInstance = create(cls, name, body, account_id, region_name, **kwargs)
        made.master_user_secret = MasterUserSecret(made, body["Properties"]["MasterUserSecret"]["KmsKeyId"])
        return made

    def get_attribute(self: DBInstance, name: str) -> Any:
        return self.master_user_secret.secret_arn if name == "MasterUserSecret.SecretArn" else attribute(self, name)

    DBInstance.create_from_cloudformation_json = classmethod(create_instance)
    DBInstance.get_cfn_attribute = get_attribute
    DBInstance.has_cfn_attr = classmethod(lambda cls, name: True)
