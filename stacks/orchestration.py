"""Airflow's host, its permissions, and the runtime contract.

The instance can be replaced at any time: Airflow's metadata is in the database server, logs and programs are in S3. A
deployment that changes the programs or the contract creates a new instance, and waits for its signal.
"""

from __future__ import annotations

import hashlib
import json
from ipaddress import ip_network

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from barflow import contract
from barflow import metric_names as metrics
from config.environment import HOST_ROOT_GB, Environment
from stacks import outputs
from stacks.alerts import AlertsStack
from stacks.base import BarflowStack, acknowledge
from stacks.catalog import CatalogStack
from stacks.constructs.balancer import Balancer, Target
from stacks.constructs.grants import allow, allow_reading_channel_secrets, allow_reading_secrets
from stacks.constructs.logs import encrypted_log_group
from stacks.database import DatabaseStack
from stacks.ingestion import IngestionStack
from stacks.network import AIRFLOW, DASHBOARD
from stacks.platform import Platform
from stacks.processing import ProcessingStack
from stacks.secrets import DASHBOARD as DASHBOARD_TOKEN
from stacks.secrets import FERNET, JWT, LOGIN, USERS, SecretsStack
from stacks.storage import StorageStack

# What the SSM agent needs for Session Manager and Run Command. AWS's AmazonSSMManagedInstanceCore also allows to read
# every parameter of the account.
# https://docs.aws.amazon.com/systems-manager/latest/userguide/getting-started-create-iam-instance-profile.html
AGENT = [
    "ssm:UpdateInstanceInformation",
    *(f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")),
    *(
        f"ec2messages:{action}"
        for action in ("AcknowledgeMessage", "DeleteMessage", "FailMessage", "GetEndpoint", "GetMessages", "SendReply")
    ),
]
DATA_DEVICE, ROOT_DEVICE = "/dev/xvdb", "/dev/xvda"
START_MINUTES = 20
BOOTSTRAP = "orchestration/host/bootstrap.sh"
RELEASE_FOLDER = "/opt/barflow/release/"  # on the host


class OrchestrationStack(BarflowStack):
    """The ``instance`` with its ``role``, and the whole runtime ``contract``."""

    def __init__(
        self,
        scope: Construct,
        platform: Platform,
        *,
        storage: StorageStack,
        database: DatabaseStack,
        ingestion: IngestionStack,
        processing: ProcessingStack,
        catalog: CatalogStack,
        alerts: AlertsStack,
        settings: contract.PipelineSettings,
    ) -> None:
        """Create the instance, and write the contract to its SSM parameter."""
        environment, secrets = platform.environment, platform.secrets
        super().__init__(scope, environment, description="Airflow's host and the runtime contract")
        self._platform, self._storage = platform, storage
        self.log = encrypted_log_group(
            self,
            "HostLog",
            key=platform.keys.data,
            days=environment.retention.logs_days,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        self.contract = contract.RuntimeContract(
            env=environment.name,
            region=self.region,
            settings=settings,
            storage=storage.contract,
            warehouse=database.contract,
            ingestion=ingestion.contract,
            emr=processing.contract,
            glue=catalog.contract,
            airflow=contract.Airflow(
                connections_prefix=environment.airflow_connections_prefix,
                fernet_secret=secrets.name(FERNET),
                jwt_secret=secrets.name(JWT),
                login_secret=secrets.name(LOGIN),
                process_schedule=environment.process.schedule,
                quality_schedule=environment.quality.schedule,
                listen=_listen(environment.network.airflow_ui_cidrs),
                port=AIRFLOW,
                users_secret=secrets.name(USERS) if secrets.airflow_users else None,
                url=_url(environment.balancer.airflow_name),
                proxies=self._proxies(environment.balancer.airflow_name),
            ),
            dashboard=contract.Dashboard(
                token_secret=secrets.name(DASHBOARD_TOKEN),
                listen=_listen(environment.network.dashboard_cidrs),
                port=DASHBOARD,
                url=_url(environment.balancer.page_name),
                proxies=self._proxies(environment.balancer.page_name),
            ),
        )
        parameter = self._parameter()
        self.role = self._role(parameter, ingestion, database)
        allow_reading_secrets(self.role, platform.keys.secrets, *self._secrets(secrets, database))
        secrets.allow_lineage(self.role)
        allow_reading_channel_secrets(self.role, platform.environment)
        storage.grant(self.role, "host")
        alerts.allow_publish(self.role)
        runs = self._runs()
        processing.allow_run(runs)
        catalog.allow_run(runs)
        self.instance = self._instance(environment)
        self.instance.node.add_dependency(parameter)
        ssm.StringParameter(
            self,
            "HostId",
            parameter_name=contract.host_parameter_name(environment.name),
            description="Instance id of Airflow's host",
            string_value=self.instance.instance_id,
        )
        self._balance()
        self.output(outputs.HOST_ID, self.instance.instance_id)
        self.output(outputs.HOST_LOG, self.log.log_group_name)
        self.output(outputs.RUNTIME_CONTRACT, contract.parameter_name(environment.name))

    def _parameter(self) -> ssm.StringParameter:
        """Return the contract's parameter. It is larger than the standard tier allows."""
        return ssm.StringParameter(
            self,
            "Runtime",
            parameter_name=contract.parameter_name(self.environment_config.name),
            description="Runtime contract of this deployment: barflow.contract.RuntimeContract",
            string_value=self.to_json_string(self.contract.model_dump(mode="json")),
            tier=ssm.ParameterTier.ADVANCED,
        )

    def _secrets(self, secrets: SecretsStack, database: DatabaseStack) -> list[secretsmanager.ISecret]:
        return [
            secrets.twelvedata, secrets.mongodb, secrets.slack, secrets.ssh_connection, secrets.slack_connection,
            secrets.aws_connection, secrets.fernet, secrets.jwt, secrets.login, secrets.dashboard,
            database.airflow_secret, database.reader_secret,
            *([secrets.airflow_users] if secrets.airflow_users else []),
        ]  # fmt: skip

    def _role(self, parameter: ssm.StringParameter, ingestion: IngestionStack, database: DatabaseStack) -> iam.Role:
        role = iam.Role(self, "HostRole", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
        allow(role, AGENT, ["*"])
        self.log.grant_write(role)
        allow(role, ["ssm:GetParameter"], [parameter.parameter_arn])
        allow(role, ["rds:DescribeDBInstances"], [database.instance.instance_arn])
        # A metric has no ARN. The condition limits the namespace.
        own = {"StringEquals": {"cloudwatch:namespace": metrics.NAMESPACE}}
        allow(role, ["cloudwatch:PutMetricData"], ["*"], own)
        if name := ingestion.function_name:
            self.add_stack_dependency(ingestion)
            function = self.format_arn(
                service="lambda", resource="function", resource_name=name, arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME
            )
            allow(role, ["lambda:InvokeFunction"], [function])
        stack = f"stack/{self.stack_name}/*"
        allow(role, ["cloudformation:SignalResource"], [self.format_arn(service="cloudformation", resource=stack)])
        acknowledge(
            role,
            "the channels of the SSM agent have no ARN; metrics have none either, and a condition limits them",
            "AwsSolutions-IAM5[Resource::*]",
        )
        acknowledge(
            role,
            "the ARN of this stack ends in an id that AWS creates",
            f"AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:cloudformation:<AWS::Region>:<AWS::AccountId>:{stack}]",
        )
        return role

    def _runs(self) -> iam.ManagedPolicy:
        """Return the host's policy for process runs. Its inline policy has no space for it: IAM's limit is 10,240."""
        policy = iam.ManagedPolicy(
            self,
            "HostRuns",
            description=f"Barflow {self.environment_config.name}: clusters, jobs, crawlers and queries of a run",
            roles=[self.role],
        )
        acknowledge(
            policy,
            "new clusters and crawlers' metrics have no ARN; a condition limits the clusters",
            "AwsSolutions-IAM5[Resource::*]",
        )
        acknowledge(
            policy,
            "these ARNs end in an id that AWS creates: clusters with this tag, service-linked roles",
            "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:elasticmapreduce:<AWS::Region>:<AWS::AccountId>:cluster/*]",
            "AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:iam::<AWS::AccountId>:role/aws-service-role/*]",
        )
        return policy

    def _instance(self, environment: Environment) -> ec2.Instance:
        config = environment.host
        instance = ec2.Instance(
            self,
            "Host",
            vpc=self._platform.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            instance_type=ec2.InstanceType(config.instance_type),
            machine_image=ec2.MachineImage.latest_amazon_linux2023(cpu_type=ec2.AmazonLinuxCpuType.ARM_64),
            security_group=self._platform.groups.host,
            role=self.role,
            http_tokens=ec2.HttpTokens.REQUIRED,
            http_put_response_hop_limit=1,
            detailed_monitoring=config.detailed_monitoring,
            disable_api_termination=False,
            block_devices=[self._disk(ROOT_DEVICE, HOST_ROOT_GB), self._disk(DATA_DEVICE, config.data_volume_gb)],
            user_data=ec2.UserData.for_linux(),
            resource_signal_timeout=cdk.Duration.minutes(START_MINUTES),
        )
        self._boot(instance)
        acknowledge(
            instance,
            "it has no data to lose, and a deployment replaces it",
            "AwsSolutions-EC29",
            "NIST.800.53.R5-EC2InTerminationProtected",
        )
        acknowledge(
            instance,
            "gp3 has the throughput that a t4g can use",
            "NIST.800.53.R5-EC2EBSOptimizedInstance",
        )
        acknowledge(instance, "its disks contain nothing to restore", "NIST.800.53.R5-EC2EBSInBackupPlan")
        if not config.detailed_monitoring:
            acknowledge(
                instance,
                "the alarms use the status checks, which are free every minute, and Barflow's own metrics",
                "AwsSolutions-EC28",
                "NIST.800.53.R5-EC2InstanceDetailedMonitoringEnabled",
            )
        return instance

    def _balance(self) -> None:
        """Create the load balancer, if there is a certificate, for the pages that have a name."""
        platform, config = self._platform, self.environment_config
        if platform.balancer_group is None:
            return
        pages = (
            (config.balancer.page_name, DASHBOARD, config.network.dashboard_cidrs, "/"),
            (config.balancer.airflow_name, AIRFLOW, config.network.airflow_ui_cidrs, "/api/v2/version"),
        )
        targets = tuple(
            Target(name=name, port=port, networks=networks, health_path=path)
            for name, port, networks, path in pages
            if name
        )
        made = Balancer(
            self,
            "Balancer",
            platform=platform,
            group=platform.balancer_group,
            instance_id=self.instance.instance_id,
            targets=targets,
            logs_bucket=self._storage.logs.bucket_name,
            public=self._balancer_is_public(),
        )
        self.output(outputs.BALANCER_NAME, made.load_balancer.load_balancer_dns_name)

    def _balancer_is_public(self) -> bool:
        network, balancer = self.environment_config.network, self.environment_config.balancer
        pages = ((balancer.page_name, network.dashboard_cidrs), (balancer.airflow_name, network.airflow_ui_cidrs))
        return any(ip_network(cidr).is_global for name, cidrs in pages if name for cidr in cidrs)

    def _proxies(self, name: str | None) -> tuple[str, ...] | None:
        """Return the networks of the load balancer's subnets, whose forwarded headers a page with a name uses."""
        if name is None:
            return None
        vpc = self._platform.vpc
        subnets = vpc.public_subnets if self._balancer_is_public() else vpc.private_subnets
        return tuple(subnet.ipv4_cidr_block for subnet in subnets)

    def _disk(self, device: str, size_gb: int) -> ec2.BlockDevice:
        volume = ec2.BlockDeviceVolume.ebs(
            size_gb, encrypted=True, kms_key=self._platform.keys.data, volume_type=ec2.EbsDeviceVolumeType.GP3
        )
        return ec2.BlockDevice(device_name=device, volume=volume)

    def _boot(self, instance: ec2.Instance) -> None:
        """Set the script that fetches and runs the published setup, and signals its result to CloudFormation."""
        release = self._storage.release
        release.key(BOOTSTRAP)  # raises KeyError if it is not published
        resource = instance.node.default_child
        assert isinstance(resource, ec2.CfnInstance)
        # Other programs or another contract need a new instance, because a running one has read the old ones.
        # The logical id is set first, because the script signals for it.
        content = json.dumps([release.prefix, self.resolve(self.contract.model_dump(mode="json"))], sort_keys=True)
        logical_id = f"Host{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        resource.override_logical_id(logical_id)
        signal = f"/opt/aws/bin/cfn-signal --stack {self.stack_name} --resource {logical_id} --region {self.region}"
        instance.user_data.add_commands(
            "set -euo pipefail",
            f"trap 'code=$?; {signal} --exit-code $code' EXIT",
            "dnf install -y --quiet aws-cfn-bootstrap",
            f"aws s3 cp --quiet --recursive {release.uri()} {RELEASE_FOLDER}",
            f"export BARFLOW_ENV={self.environment_config.name} AWS_DEFAULT_REGION={self.region}",
            f"export BARFLOW_HOST_LOG={self.log.log_group_name}",
            f"bash {RELEASE_FOLDER}{BOOTSTRAP}",
        )


def _url(name: str | None) -> str | None:
    """Return the public URL of a page, or None without a load balancer."""
    return f"https://{name}" if name else None


def _listen(visitors: tuple[str, ...]) -> str:
    """Return the address that a page listens on: without visitors only the host's own, for forwarded ports."""
    return "0.0.0.0" if visitors else "127.0.0.1"  # noqa: S104
