"""The warehouse is private, encrypted, backed up and migrated, in each environment."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from deployments import Deployment

from barflow.warehouse.users import AIRFLOW, LOADER, READER, SANDBOX


def instance(deployment: Deployment) -> Any:
    return deployment.only("Database", "AWS::RDS::DBInstance")


def test_it_is_reachable_only_from_the_vpc(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert instance(deployment)["PubliclyAccessible"] is False
        subnets = deployment.only("Database", "AWS::RDS::DBSubnetGroup")["SubnetIds"]
        assert len(subnets) == deployment.environment.network.zones
        assert all("isolated" in json.dumps(subnet) for subnet in subnets)
        (group,) = instance(deployment)["VPCSecurityGroups"]
        assert "DatabaseGroup" in json.dumps(group)


def test_it_requires_tls_and_runs_in_utc(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        parameters = deployment.only("Database", "AWS::RDS::DBParameterGroup")["Parameters"]
        assert parameters["rds.force_ssl"] == "1"
        assert parameters["timezone"] == "UTC"


def test_storage_and_insights_are_encrypted_with_the_key_for_data(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        found = instance(deployment)
        assert found["StorageEncrypted"] is True
        assert found["EnablePerformanceInsights"] is True
        for key in ("KmsKeyId", "PerformanceInsightsKMSKeyId"):
            assert "DataKey" in json.dumps(found[key])


def test_its_size_backups_and_standby_are_those_of_the_environment(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        found, config = instance(deployment), deployment.environment.database
        assert found["DBInstanceClass"] == config.instance_class
        assert found["EngineVersion"] == config.engine_version
        assert int(found["AllocatedStorage"]) == config.storage_gb
        assert found["MaxAllocatedStorage"] == config.max_storage_gb
        assert found["BackupRetentionPeriod"] == config.backup_days
        assert found["MultiAZ"] is config.multi_az
        assert found["PerformanceInsightsRetentionPeriod"] == config.insights_days


def test_production_has_a_standby_deletion_protection_and_long_backups(prod_deployment: Deployment) -> None:
    found = instance(prod_deployment)
    assert found["MultiAZ"] is True
    assert found["DeletionProtection"] is True
    assert found["BackupRetentionPeriod"] >= 30


def test_rds_generates_and_rotates_the_owners_password(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        found = instance(deployment)
        assert found["ManageMasterUserPassword"] is True
        assert "MasterUserPassword" not in found
        assert "SecretsKey" in json.dumps(found["MasterUserSecret"])


def test_each_user_has_a_generated_password_and_only_airflows_is_not_rotated(dev_deployment: Deployment) -> None:
    secrets = dev_deployment.resources("Database", "AWS::SecretsManager::Secret")
    made = {json.loads(item["GenerateSecretString"]["SecretStringTemplate"])["username"]: item for item in secrets}
    assert set(made) == {LOADER, READER, SANDBOX, AIRFLOW}
    for secret in secrets:
        template = json.loads(secret["GenerateSecretString"]["SecretStringTemplate"])
        assert template["ssl"] is True, "else AWS's rotation function tries again without TLS"
    assert {name: item["Name"] for name, item in made.items()} == {
        name: f"barflow/dev/database/{name}" for name in made
    }
    schedules = dev_deployment.resources("Database", "AWS::SecretsManager::RotationSchedule")
    rotated = json.dumps([schedule["SecretId"] for schedule in schedules])
    assert len(schedules) == 3
    assert "Loader" in rotated
    assert "Reader" in rotated
    assert "Sandbox" in rotated
    assert all(schedule["RotateImmediatelyOnUpdate"] is False for schedule in schedules)


def test_the_contract_names_the_secrets_of_all_users_but_the_sandboxs(dev_deployment: Deployment) -> None:
    made = {item["Name"] for item in dev_deployment.resources("Database", "AWS::SecretsManager::Secret")}
    contract = dev_deployment.stacks["Database"].contract
    assert {contract.reader_secret, contract.airflow_secret} == made - {
        f"barflow/dev/database/{user}" for user in (SANDBOX, LOADER)
    }


def needed_by(resources: Mapping[str, Any], key: str) -> set[str]:
    """Return the resources that CloudFormation creates before this one, directly or indirectly."""
    found: set[str] = set()
    waiting = [key]
    while waiting:
        resource = resources[waiting.pop()]
        named = set(re.findall(r'"(?:Ref|Fn::GetAtt)": \[?"(\w+)"', json.dumps(resource)))
        named |= set(resource.get("DependsOn", []))
        new = (named & set(resources)) - found
        found |= new
        waiting += new
    return found


def test_migrations_run_after_database_and_secrets_and_again_when_they_change(dev_deployment: Deployment) -> None:
    resources = dev_deployment.templates["Database"]["Resources"]
    (trigger,) = (key for key, item in resources.items() if item["Type"] == "Custom::Trigger")
    # A change of the function's code or settings creates another version, which runs the trigger.
    assert resources[resources[trigger]["Properties"]["HandlerArn"]["Ref"]]["Type"] == "AWS::Lambda::Version"
    kinds = Counter(resources[key]["Type"] for key in needed_by(resources, trigger))
    assert kinds["AWS::RDS::DBInstance"] == 1
    assert kinds["AWS::SecretsManager::SecretTargetAttachment"] == 4
    assert kinds["AWS::IAM::Policy"] == 1


def test_the_migration_function_has_its_settings_and_is_in_the_vpc(dev_deployment: Deployment) -> None:
    (function,) = (
        item
        for item in dev_deployment.resources("Database", "AWS::Lambda::Function")
        if item["Handler"] == "handler.handler"
    )
    assert set(function["Environment"]["Variables"]) == {
        *("DATABASE_HOST", "DATABASE_PORT", "DATABASE_NAME", "ADMIN_SECRET", "USER_SECRETS"),
    }
    assert function["Architectures"] == ["arm64"]
    assert function["Runtime"] == "python3.13"
    assert "FunctionsGroup" in json.dumps(function["VpcConfig"])


def test_the_template_names_the_major_version_that_rds_upgrades_within(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        instance = deployment.only("Database", "AWS::RDS::DBInstance")
        assert (instance["EngineVersion"], instance["AutoMinorVersionUpgrade"]) == ("18", True)


def test_passwords_rotate_only_after_the_migrations_created_their_users(dev_deployment: Deployment) -> None:
    resources = dev_deployment.templates["Database"]["Resources"]
    (migrations,) = [name for name, item in resources.items() if item["Type"] == "Custom::Trigger"]
    schedules = [item for item in resources.values() if item["Type"] == "AWS::SecretsManager::RotationSchedule"]
    assert len(schedules) == 3
    assert all(migrations in item["DependsOn"] for item in schedules)


def test_airflows_database_is_named_in_the_contract(dev_deployment: Deployment) -> None:
    assert dev_deployment.contract.warehouse.airflow_database == "airflow"
