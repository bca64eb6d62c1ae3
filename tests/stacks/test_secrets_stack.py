"""Every secret is encrypted, has a known name, and has no value in any template."""

from __future__ import annotations

import json
import re

from cryptography.fernet import Fernet
from deployments import Deployment, Synthesize, changed
from hypothesis import given
from hypothesis import strategies as st

from config.environment import EmrConfig
from config.environments import dev

GENERATED = (
    *("barflow/dev/airflow/fernet", "barflow/dev/airflow/jwt", "barflow/dev/airflow/login"),
    "barflow/dev/dashboard",
)
SET_BY_OPERATOR = (
    *("barflow/dev/twelvedata", "barflow/dev/mongodb", "barflow/dev/slack"),
    *("barflow/dev/airflow/connections/barflow_ssh", "barflow/dev/airflow/connections/slack_api_default"),
)


def test_the_secrets_have_the_names_that_operators_rely_on(dev_deployment: Deployment) -> None:
    names = {item["Name"] for item in dev_deployment.resources("Secrets", "AWS::SecretsManager::Secret")}
    assert names == {*GENERATED, *SET_BY_OPERATOR, "barflow/dev/airflow/connections/aws_default"}


def test_every_secret_is_encrypted_with_the_key_for_secrets(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        for part in ("Secrets", "Database"):
            secrets = deployment.resources(part, "AWS::SecretsManager::Secret")
            assert secrets
            assert all("SecretsKey" in json.dumps(secret["KmsKeyId"]) for secret in secrets)


def test_both_keys_rotate(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        keys = deployment.resources("Secrets", "AWS::KMS::Key")
        assert [key["EnableKeyRotation"] for key in keys] == [True, True]


def test_everyone_but_the_account_uses_a_key_only_under_a_condition(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        for key in deployment.resources("Secrets", "AWS::KMS::Key"):
            root, *others = key["KeyPolicy"]["Statement"]
            assert ":root" in json.dumps(root["Principal"])
            assert all(statement["Condition"] for statement in others)
            # EventBridge sends a key no source, so that no condition could hold.
            assert "events.amazonaws.com" not in json.dumps(others)


def test_spot_instances_use_the_key_of_disks_where_a_cluster_has_them(
    dev_deployment: Deployment, synthesize: Synthesize
) -> None:
    def sids(deployment: Deployment) -> set[str]:
        keys = deployment.resources("Secrets", "AWS::KMS::Key")
        return {item.get("Sid", "") for key in keys for item in key["KeyPolicy"]["Statement"]}

    of_spot = {"DisksOfSpotInstances", "GrantsOfSpotInstances"}
    assert sids(dev_deployment) >= of_spot
    assert not sids(synthesize(changed(dev(), emr=EmrConfig()))) & of_spot


def test_no_template_has_the_value_of_a_secret_except_the_region_of_airflows_connection(
    deployments: list[Deployment],
) -> None:
    for deployment in deployments:
        with_value = []
        for part in deployment.templates:
            for secret in deployment.resources(part, "AWS::SecretsManager::Secret"):
                if "SecretString" in secret:
                    with_value.append(secret["Name"])
                    value = json.dumps(secret["SecretString"])
                    assert not re.search("password|token|login|key|secret", value, re.IGNORECASE)
        assert with_value == [f"barflow/{deployment.environment.name}/airflow/connections/aws_default"]


def test_airflows_connection_to_aws_is_json_with_only_the_region(dev_deployment: Deployment) -> None:
    secrets = {item["Name"]: item for item in dev_deployment.resources("Secrets", "AWS::SecretsManager::Secret")}
    separator, parts = secrets["barflow/dev/airflow/connections/aws_default"]["SecretString"]["Fn::Join"]
    text = separator.join("eu-west-1" if part == {"Ref": "AWS::Region"} else part for part in parts)
    assert json.loads(text) == {"conn_type": "aws", "extra": {"region_name": "eu-west-1"}}


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", min_size=43, max_size=43))
def test_43_letters_and_digits_with_an_equals_sign_are_a_fernet_key(generated: str) -> None:
    Fernet(generated + "=")


def test_the_fernet_secret_is_generated_as_43_letters_and_digits(dev_deployment: Deployment) -> None:
    secrets = {item["Name"]: item for item in dev_deployment.resources("Secrets", "AWS::SecretsManager::Secret")}
    generator = secrets["barflow/dev/airflow/fernet"]["GenerateSecretString"]
    assert generator == {"ExcludePunctuation": True, "PasswordLength": 43}
