"""The warehouse: RDS for PostgreSQL, one secret per user, and the migrations that each deployment runs."""

from __future__ import annotations

import json
import string

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from barflow import contract
from config.environment import Environment
from stacks import outputs
from stacks.base import BarflowStack, acknowledge, data_may_be_deleted
from stacks.bundles import MIGRATE
from stacks.constructs.grants import allow_reading_secrets
from stacks.constructs.logs import encrypted_log_group
from stacks.constructs.python_function import PythonFunction
from stacks.network import POSTGRESQL
from stacks.platform import Platform

DATABASE = "barflow"
OWNER = "barflow_owner"
# Characters that no renewed password has. Some punctuation stays, because AWS's function asks for one mark at least.
UNSAFE = "".join(sorted(set(string.punctuation) - set("-_")))
# AWS's function then verifies the server, and does not try again without TLS.
ROTATE_OVER_TLS = {"ssl": True}
# The names in barflow.warehouse.users.
LOADER, READER, SANDBOX, AIRFLOW = "barflow_loader", "barflow_reader", "barflow_sandbox", "airflow"


class DatabaseStack(BarflowStack):
    """The ``instance``, one secret per user, and the names of the functions that rotate them in ``rotations``."""

    def __init__(self, scope: Construct, platform: Platform) -> None:
        """Create the instance and the secrets. The migrations run on deployment."""
        super().__init__(scope, platform.environment, description="warehouse", stateful=True)
        self._platform = platform
        self.rotations: list[str] = []
        self._schedules: list[secretsmanager.RotationSchedule] = []
        self.instance = self._instance(platform.environment)
        owner = self.instance.secret
        assert owner is not None, "RDS manages the owner's password"
        self.owner_secret: secretsmanager.ISecret = owner
        self.loader_secret = self._user("Loader", LOADER, DATABASE)
        self.reader_secret = self._user("Reader", READER, DATABASE)
        self.sandbox_secret = self._user("Sandbox", SANDBOX, DATABASE)
        self.airflow_secret = self._user("Airflow", AIRFLOW, AIRFLOW, rotated=False)
        users = [self.loader_secret, self.reader_secret, self.sandbox_secret, self.airflow_secret]
        self._migrate_on_deployment(users)
        self.contract = contract.Warehouse(
            instance_id=self.instance.instance_identifier,
            reader_secret=self.secret_name(READER),
            airflow_secret=self.secret_name(AIRFLOW),
            airflow_database=AIRFLOW,
            max_storage_gb=platform.environment.database.max_storage_gb,
        )
        self.output(outputs.DATABASE_ENDPOINT, self.instance.db_instance_endpoint_address)
        self.output(outputs.DATABASE_ID, self.contract.instance_id)
        self.output(outputs.DATABASE_ADMIN_SECRET, self.owner_secret.secret_arn)
        self.output(outputs.LOADER_SECRET, self.secret_name(LOADER))
        self.output(outputs.READER_SECRET, self.contract.reader_secret)

    def _instance(self, environment: Environment) -> rds.DatabaseInstance:
        config = environment.database
        major = config.engine_version.split(".")[0]
        engine = rds.DatabaseInstanceEngine.postgres(version=rds.PostgresEngineVersion.of(config.engine_version, major))
        deletable = data_may_be_deleted(self, environment)
        protected = config.deletion_protection and not deletable
        removal_policy = self.occupied_removal_policy if protected else self.data_removal_policy
        instance = rds.DatabaseInstance(
            self,
            "Warehouse",
            engine=engine,
            database_name=DATABASE,
            instance_type=ec2.InstanceType(config.instance_class.removeprefix("db.")),
            vpc=self._platform.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
            security_groups=[self._platform.groups.database],
            port=POSTGRESQL,
            publicly_accessible=False,
            credentials=rds.Credentials.from_username(OWNER, encryption_key=self._platform.keys.secrets),
            manage_master_user_password=True,
            parameter_group=rds.ParameterGroup(
                self,
                "Parameters",
                engine=engine,
                description=f"Barflow {environment.name}",
                removal_policy=removal_policy,  # RDS does not delete the group of an instance that stays
                parameters={
                    "rds.force_ssl": "1",
                    "timezone": "UTC",
                    # PostgreSQL 18 made it a list; the value means what 1 means to PostgreSQL 17.
                    "log_connections": "1" if major == "17" else "receipt,authentication,authorization",
                    "log_min_duration_statement": "2000",
                    # The lock of a dead program's load is released in a minute, not in two hours.
                    "tcp_keepalives_idle": "30",
                },
            ),
            storage_type=rds.StorageType.GP3,
            allocated_storage=config.storage_gb,
            max_allocated_storage=config.max_storage_gb,
            storage_encryption_key=self._platform.keys.data,
            multi_az=config.multi_az,
            backup_retention=cdk.Duration.days(config.backup_days),
            preferred_backup_window="07:00-07:30",
            preferred_maintenance_window="sun:08:00-sun:08:30",
            delete_automated_backups=deletable,
            copy_tags_to_snapshot=True,
            auto_minor_version_upgrade=True,
            enable_performance_insights=True,
            performance_insight_encryption_key=self._platform.keys.data,
            monitoring_interval=cdk.Duration.seconds(60),
            cloudwatch_logs_exports=["postgresql", "upgrade"],
            iam_authentication=False,
            deletion_protection=protected,
            removal_policy=removal_policy,
        )
        resource = instance.node.default_child
        assert isinstance(resource, rds.CfnDBInstance)
        resource.performance_insights_retention_period = config.insights_days
        _acknowledge_instance(instance, environment.database.multi_az, protected)
        return instance

    @property
    def jdbc_url(self) -> str:
        """Return the JDBC URL of the warehouse, without a user."""
        return f"jdbc:postgresql://{self.instance.db_instance_endpoint_address}:{POSTGRESQL}/{DATABASE}"

    def secret_name(self, user: str) -> str:
        """Return the name of the secret of a database user."""
        return f"barflow/{self.environment_config.name}/database/{user}"

    def _user(self, name: str, user: str, database: str, *, rotated: bool = True) -> secretsmanager.ISecret:
        """Return the secret of a user: a generated password, with host, port, database and user name."""
        secret = secretsmanager.Secret(
            self,
            f"{name}Secret",
            secret_name=self.secret_name(user),
            description=f"Barflow {self.environment_config.name}: {user} of the warehouse",
            encryption_key=self._platform.keys.secrets,
            removal_policy=self.data_removal_policy,
            generate_secret_string=secretsmanager.SecretStringGenerator(
                secret_string_template=json.dumps({"username": user, "dbname": database, **ROTATE_OVER_TLS}),
                generate_string_key="password",
                password_length=40,
                exclude_punctuation=True,
            ),
        )
        attached = secret.attach(self.instance)
        if rotated:
            self._rotate(attached, f"barflow-{self.environment_config.name}-rotate-{name.lower()}")
        else:
            acknowledge(
                secret,
                "Airflow reads it when it starts: the runbook describes how to renew it by hand, with a restart",
                "AwsSolutions-SMG4",
                "NIST.800.53.R5-SecretsManagerRotationEnabled",
            )
        return attached

    def _rotate(self, secret: secretsmanager.ISecret, function_name: str) -> None:
        """Renew the password with AWS's rotation function. Programs read the secret at each run."""
        self.rotations.append(function_name)
        # AWS's function would create its own log group, and keep it for ever.
        log = encrypted_log_group(
            self,
            f"{function_name.rsplit('-', 1)[1].title()}RotationLog",
            name=f"/aws/lambda/{function_name}",
            key=self._platform.keys.data,
            days=self.environment_config.retention.logs_days,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        schedule = secret.add_rotation_schedule(
            "Rotation",
            hosted_rotation=secretsmanager.HostedRotation.postgre_sql_single_user(
                function_name=function_name,
                vpc=self._platform.vpc,
                vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
                security_groups=[self._platform.groups.functions],
                exclude_characters=UNSAFE,
            ),
            automatically_after=cdk.Duration.days(self.environment_config.database.rotation_days),
            rotate_immediately_on_update=False,
        )
        schedule.node.add_dependency(log)
        self._schedules.append(schedule)

    def _migrate_on_deployment(self, users: list[secretsmanager.ISecret]) -> None:
        migrate = PythonFunction(
            self,
            "Migrate",
            bundle=MIGRATE,
            description="Migrates the warehouse's schema and creates its users, on deployment",
            platform=self._platform,
            memory_mb=512,
            timeout=cdk.Duration.minutes(10),
            environment={
                "DATABASE_HOST": self.instance.db_instance_endpoint_address,
                "DATABASE_PORT": str(POSTGRESQL),
                "DATABASE_NAME": DATABASE,
                "ADMIN_SECRET": self.owner_secret.secret_arn,
                "USER_SECRETS": self.to_json_string([secret.secret_arn for secret in users]),
            },
        )
        allow_reading_secrets(migrate.role, self._platform.keys.secrets, self.owner_secret, *users)
        migrations = migrate.run_on_deployment(self, "Migrations", after=[self.instance])
        for schedule in self._schedules:
            schedule.node.add_dependency(migrations)  # they create the users
        self.output(outputs.MIGRATE_FUNCTION, migrate.function.function_name)


def _acknowledge_instance(instance: rds.DatabaseInstance, multi_az: bool, protected: bool) -> None:
    acknowledge(
        instance,
        "security groups decide who reaches the port, and tools expect the default port of PostgreSQL",
        "AwsSolutions-RDS11",
    )
    acknowledge(
        instance,
        "RDS makes backups with point-in-time recovery, and the warehouse can be loaded again from the lake",
        "NIST.800.53.R5-RDSInBackupPlan",
    )
    acknowledge(
        instance,
        "AWS maintains the managed policy for RDS monitoring",
        "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole]",
    )
    if not multi_az:
        acknowledge(
            instance,
            "outside production an outage of some hours is acceptable; the warehouse can be loaded again from the lake",
            "AwsSolutions-RDS3",
            "NIST.800.53.R5-RDSMultiAZSupport",
        )
    if not protected:
        acknowledge(
            instance,
            "the environment may be deleted with its data",
            "AwsSolutions-RDS10",
            "NIST.800.53.R5-RDSInstanceDeletionProtectionEnabled",
        )
