"""EMR's roles, security configuration and certificate.

There is no cluster here: The Airflow host creates a cluster for each run from this stack's contract, and terminates it.
"""

from __future__ import annotations

import hashlib
import json

import aws_cdk as cdk
from aws_cdk import aws_emr as emr
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from constructs import Construct

from barflow import contract
from config import versions
from config.cost import cluster_hour_dollars
from config.environment import Environment
from stacks import outputs
from stacks.base import BarflowStack, acknowledge
from stacks.bundles import CERTIFICATE, EMR_PACKAGES, LIBRARY
from stacks.constructs.grants import allow, allow_key, allow_reading_secrets, arn_in_finding
from stacks.constructs.python_function import PythonFunction
from stacks.platform import Platform
from stacks.storage import CERTIFICATES, StorageStack

# AWS's managed policy for EMR is limited to resources with this tag.
MANAGED = "for-use-with-amazon-emr-managed-policies"
ENVIRONMENT_TAG = "barflow:env"
CERTIFICATE_KEY = f"{CERTIFICATES}/emr.zip"
RENEWAL = cdk.Duration.days(30)  # lambda/certificate makes certificates that are valid for a year
EMR, EC2 = "elasticmapreduce.amazonaws.com", "ec2.amazonaws.com"


class ProcessingStack(BarflowStack):
    """The ``node_role`` and ``service_role`` of clusters. ``contract`` names everything that a cluster needs."""

    def __init__(
        self,
        scope: Construct,
        platform: Platform,
        *,
        storage: StorageStack,
    ) -> None:
        """Create the roles, the security configuration and the certificate."""
        environment = platform.environment
        super().__init__(scope, environment, description="EMR roles and security")
        self._platform, self._storage = platform, storage
        self._tags = {ENVIRONMENT_TAG: environment.name, MANAGED: "true"}
        self._tag_network()
        self.node_role, profile = self._nodes()
        self.service_role = self._service()
        self._create_certificate()
        self.contract = self._contract(environment, profile, self._security_configuration())
        self.output(outputs.EMR_SERVICE_ROLE, self.service_role.role_name)
        self.output(outputs.EMR_NODE_ROLE, self.node_role.role_name)

    def allow_run(self, role: iam.IRole | iam.ManagedPolicy) -> None:
        """Allow the role to create clusters with this environment's tag and these roles, and to run and end them."""
        cluster = self.format_arn(service="elasticmapreduce", resource="cluster", resource_name="*")
        requested, existing = (f"elasticmapreduce:{kind}Tag/{ENVIRONMENT_TAG}" for kind in ("Request", "Resource"))
        name = self.environment_config.name
        for actions, resources, conditions in (
            (["RunJobFlow"], ["*"], {"StringEquals": {requested: name}}),
            (["AddTags"], [cluster], {"StringEquals": {requested: name}}),
            (
                ["AddJobFlowSteps", "CancelSteps", "DescribeCluster", "DescribeStep", "ListSteps", "TerminateJobFlows"],
                [cluster],
                {"StringEquals": {existing: name}},
            ),
            # RunJobFlow needs it for a cluster that has no tag yet.
            (["PutAutoTerminationPolicy"], [cluster], None),
            (["ListClusters"], ["*"], None),
        ):
            allow(role, [f"elasticmapreduce:{action}" for action in actions], resources, conditions)
        for passed, service in ((self.service_role, EMR), (self.node_role, EC2)):
            allow(role, ["iam:PassRole"], [passed.role_arn], {"StringEquals": {"iam:PassedToService": service}})
        # The service-linked roles of EMR's clean-up and of Spot. They are created once in an account.
        linked = {"StringEquals": {"iam:AWSServiceName": [EMR, "spot.amazonaws.com"]}}
        allow(role, ["iam:CreateServiceLinkedRole"], [self._role_arn("aws-service-role/*")], linked)

    def _tag_network(self) -> None:
        """Tag the network that EMR's service role uses."""
        cdk.Tags.of(self._platform.vpc).add(MANAGED, "true", include_resource_types=["AWS::EC2::VPC"])
        groups = (self._platform.groups.emr_primary, self._platform.groups.emr_core, self._platform.groups.emr_service)
        for part in (*self._platform.vpc.private_subnets, *groups):
            cdk.Tags.of(part).add(
                MANAGED, "true", include_resource_types=["AWS::EC2::Subnet", "AWS::EC2::SecurityGroup"]
            )

    def _nodes(self) -> tuple[iam.Role, iam.InstanceProfile]:
        """Return the role and instance profile of the nodes: for their S3 prefixes and the MongoDB secret."""
        role = iam.Role(self, "NodeRole", assumed_by=iam.ServicePrincipal(EC2))
        self._storage.grant(role, "emr")
        allow_reading_secrets(role, self._platform.keys.secrets, self._platform.secrets.mongodb)
        self._platform.secrets.allow_lineage(role)
        # For instance store disks. The service role decrypts EBS disks.
        allow(role, ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"], [self._platform.keys.data.key_arn])
        published = f"arn:{self.partition}:s3:::{self.region}.elasticmapreduce/*"
        allow(role, ["s3:GetObject"], [published])
        acknowledge(
            role,
            "files that AWS publishes for the clusters of this region",
            f"AwsSolutions-IAM5[Resource::{arn_in_finding(self, published)}]",
        )
        return role, iam.InstanceProfile(self, "NodeProfile", role=role)

    def _service(self) -> iam.Role:
        """Return EMR's service role. AWS maintains its managed policy, which is limited to tagged resources."""
        principal = iam.ServicePrincipal(
            EMR,
            conditions={
                "StringEquals": {"aws:SourceAccount": self.account},
                "ArnLike": {"aws:SourceArn": f"arn:{self.partition}:elasticmapreduce:{self.region}:{self.account}:*"},
            },
        )
        policy = "service-role/AmazonEMRServicePolicy_v2"
        role = iam.Role(
            self,
            "ServiceRole",
            assumed_by=principal,
            managed_policies=[iam.ManagedPolicy.from_aws_managed_policy_name(policy)],
        )
        acknowledge(
            role,
            "AWS maintains this policy with EMR, and it is limited to tagged resources",
            f"AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{policy}]",
        )
        allow(
            role,
            ["iam:PassRole"],
            [self.node_role.role_arn],
            {"StringEquals": {"iam:PassedToService": EC2}},
        )
        key = self._platform.keys.data
        disks = ["Decrypt", "Encrypt", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo"]
        allow_key(role, key, [f"kms:{action}" for action in disks], service="ec2")
        allow(role, ["kms:DescribeKey"], [key.key_arn])  # EMR itself describes it
        for_aws_resources = {"Bool": {"kms:GrantIsForAWSResource": "true"}}
        allow_key(role, key, ["kms:CreateGrant"], service="ec2", conditions=for_aws_resources)
        return role

    def _create_certificate(self) -> None:
        """Create the certificate on deployment, and renew it each month, also when nothing is deployed."""
        function = PythonFunction(
            self,
            "Certificate",
            bundle=CERTIFICATE,
            description="Creates the certificate of EMR's nodes, on deployment and every month",
            platform=self._platform,
            memory_mb=256,
            timeout=cdk.Duration.minutes(1),
            environment={"CODE_BUCKET": self._storage.code.bucket_name, "CERTIFICATE_KEY": CERTIFICATE_KEY},
        )
        self._storage.grant(function.role, "certificate")
        function.run_on_deployment(self, "MakeCertificate")
        events.Rule(
            self,
            "RenewCertificate",
            description=f"Barflow {self.environment_config.name}: a new certificate for EMR's nodes, each month",
            schedule=events.Schedule.rate(RENEWAL),
            targets=[targets.LambdaFunction(function.function)],
        )

    def _security_configuration(self) -> str:
        """Create the security configuration, and return its name.

        Any change replaces it, so the name follows the content. It is not a reference to the resource: a reference of
        another stack would be an export, and CloudFormation replaces no resource whose export is in use.
        """
        key = self._platform.keys.data.key_arn
        certificate = f"s3://{self._storage.code.bucket_name}/{CERTIFICATE_KEY}"
        content = {
            "EncryptionConfiguration": {
                "EnableAtRestEncryption": True,
                "AtRestEncryptionConfiguration": {
                    "S3EncryptionConfiguration": {"EncryptionMode": "SSE-KMS", "AwsKmsKey": key},
                    "LocalDiskEncryptionConfiguration": {
                        "EncryptionKeyProviderType": "AwsKms",
                        "AwsKmsKey": key,
                        "EnableEbsEncryption": True,
                    },
                },
                "EnableInTransitEncryption": True,
                "InTransitEncryptionConfiguration": {
                    "TLSCertificateConfiguration": {"CertificateProviderType": "PEM", "S3Object": certificate}
                },
            },
            "InstanceMetadataServiceConfiguration": {
                "MinimumInstanceMetadataServiceVersion": 2,
                "HttpPutResponseHopLimit": 1,
            },
        }
        digest = hashlib.sha256(json.dumps(self.resolve(content), sort_keys=True).encode()).hexdigest()[:8]
        name = f"barflow-{self.environment_config.name}-{digest}"
        emr.CfnSecurityConfiguration(self, "Security", name=name, security_configuration=content)
        return name

    def _contract(self, environment: Environment, profile: iam.InstanceProfile, security: str) -> contract.Emr:
        shape = environment.emr
        release, packages = self._storage.release, self._storage.packages
        return contract.Emr(
            release=versions.EMR_RELEASE,
            service_role=self.service_role.role_name,
            instance_profile=profile.instance_profile_name,
            subnet_ids=tuple(subnet.subnet_id for subnet in self._platform.vpc.private_subnets),
            primary_security_group=self._platform.groups.emr_primary.security_group_id,
            core_security_group=self._platform.groups.emr_core.security_group_id,
            service_security_group=self._platform.groups.emr_service.security_group_id,
            security_configuration=security,
            log_uri=self._storage.logs_uri("emr"),
            bootstrap_uri=release.uri("spark/requirements.sh"),
            packages_uri=packages.uri(EMR_PACKAGES),
            step_uri=release.uri("spark/bars_to_parquet.py"),
            library_uri=release.uri(LIBRARY),
            primary_instance=shape.primary_instance,
            core_instance=shape.core_instance,
            core_count=shape.core_count,
            task_count=shape.task_count,
            spot_percent=shape.spot_percent,
            volume_gb=shape.volume_gb,
            idle_minutes=shape.idle_minutes,
            step_timeout_minutes=shape.step_timeout_minutes,
            spark_python=f"/usr/bin/python{versions.SPARK_PYTHON}",
            tags=self._tags,
            hour_dollars=round(cluster_hour_dollars(environment), 4),
        )

    def _role_arn(self, name: str) -> str:
        return self.format_arn(service="iam", region="", resource="role", resource_name=name)
