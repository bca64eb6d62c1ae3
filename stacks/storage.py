"""The buckets of the lake, of code and of logs, and the list of who reads, writes and deletes their objects.

``grant`` derives a role's object permissions from ACCESS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from barflow import contract
from config import versions
from stacks import outputs
from stacks.base import BarflowStack, acknowledge
from stacks.bundles import PACKAGES, RELEASE, Bundle
from stacks.constructs.balancer import ACCESS_LOGS
from stacks.constructs.bucket import secure_bucket
from stacks.constructs.grants import allow_objects
from stacks.constructs.release import Release
from stacks.platform import Platform

# "crawler" is the lake's crawler and the evaluation of its rules, "sandbox" the visual job. The last three are
# functions that a deployment runs: they publish programs, create EMR's certificate, and set the graph of the visual
# job, for which Glue writes a script.
User = Literal["emr", "glue", "sandbox", "crawler", "warehouse_crawler", "host", "publisher", "certificate", "graph"]


@dataclass(frozen=True, kw_only=True)
class Access:
    """The users that read, write and delete the objects under a prefix of a bucket."""

    bucket: Literal["lake", "code", "logs"]
    prefix: str
    content: str
    reads: tuple[User, ...] = ()
    writes: tuple[User, ...] = ()
    deletes: tuple[User, ...] = ()


BARS, HISTORY, ACTIONS = "bars_5min", "bars_5min_history", "corporate_actions"
STAGED, MANIFESTS, QUERIES = "_staged", "manifests", "queries"
RELEASES, CERTIFICATES, VISUAL, DRIVERS = "releases", "certificates", "visual", "drivers"
ACCESS = (
    Access(
        bucket="lake",
        prefix=BARS,
        content="the archive, Parquet",
        reads=("emr", "glue", "sandbox", "crawler", "host"),
        writes=("emr",),
    ),
    Access(
        bucket="lake",
        prefix=HISTORY,
        content="superseded versions of bars, Parquet",
        reads=("emr", "crawler", "host"),
        writes=("emr",),
    ),
    Access(
        bucket="lake",
        prefix=ACTIONS,
        content="splits and dividends, Parquet",
        reads=("emr", "glue", "crawler", "host"),
        writes=("emr",),
    ),
    Access(
        bucket="lake",
        prefix=STAGED,
        content="partitions that are not published yet",
        reads=("emr",),
        writes=("emr",),
        deletes=("emr",),
    ),
    Access(
        bucket="lake",
        prefix=MANIFESTS,
        content="the published partitions of each run",
        reads=("emr", "glue", "host"),
        writes=("emr", "host"),
        deletes=("host",),
    ),
    Access(bucket="lake", prefix=QUERIES, content="query results of Athena", reads=("host",), writes=("host",)),
    Access(
        bucket="code",
        prefix=RELEASES,
        content="published programs",
        reads=("emr", "glue", "sandbox", "host"),
        writes=("publisher",),
    ),
    Access(
        bucket="code",
        prefix=CERTIFICATES,
        content="the certificate of EMR's nodes",
        reads=("emr",),
        writes=("certificate",),
    ),
    Access(bucket="code", prefix=VISUAL, content="the script of the visual job", reads=("sandbox",), writes=("graph",)),
    Access(
        bucket="code",
        prefix=DRIVERS,
        content="the JDBC driver of the warehouse's crawler, and what that crawler writes beside it",
        reads=("warehouse_crawler",),
        writes=("warehouse_crawler",),
        deletes=("warehouse_crawler",),
    ),
    Access(bucket="logs", prefix="emr", content="logs of clusters", reads=("host",), writes=("emr",)),
    Access(
        bucket="logs",
        prefix="glue",
        content="temporary files and event logs",
        reads=("glue", "sandbox"),
        writes=("glue", "sandbox"),
        deletes=("glue", "sandbox"),
    ),
    Access(bucket="logs", prefix="airflow", content="logs of tasks", reads=("host",), writes=("host",)),
)


class StorageStack(BarflowStack):
    """The buckets ``lake``, ``code`` and ``logs``, and the published programs in ``release`` and ``packages``."""

    def __init__(self, scope: Construct, platform: Platform) -> None:
        """Create the buckets, and publish the programs."""
        environment, keys = platform.environment, platform.keys
        super().__init__(scope, environment, description="lake, code and logs", stateful=True)
        self._data_key = keys.data
        retention = environment.retention
        self.logs = secure_bucket(
            self,
            "Logs",
            key=None,
            access_logs=None,
            versioned=False,
            rules=[s3.LifecycleRule(id="old-logs", expiration=cdk.Duration.days(retention.logs_days))],
        )
        acknowledge(
            self.logs,
            "it receives the access logs; a log of its own accesses would never end",
            "AwsSolutions-S1",
            "NIST.800.53.R5-S3BucketLoggingEnabled",
        )
        acknowledge(
            self.logs,
            "S3 delivers access logs only to a bucket that S3 encrypts with its own key",
            "NIST.800.53.R5-S3DefaultEncryptionKMS",
        )
        acknowledge(
            self.logs, "a log object is written once and never changes", "NIST.800.53.R5-S3BucketVersioningEnabled"
        )
        if environment.balancer.certificate_arn:
            self._allow_balancer_logs()
        old_versions = s3.LifecycleRule(
            id="old-versions",
            noncurrent_version_expiration=cdk.Duration.days(retention.old_versions_days),
            expired_object_delete_marker=True,
        )
        self.lake = secure_bucket(
            self,
            "Lake",
            key=keys.data,
            access_logs=self.logs,
            versioned=True,
            rules=[
                old_versions,
                s3.LifecycleRule(
                    id="archive",
                    prefix=f"{BARS}/",
                    transitions=[
                        _to(s3.StorageClass.INFREQUENT_ACCESS, retention.archive_infrequent_days),
                        # With instant retrieval Athena and Spark read it like any other object.
                        _to(s3.StorageClass.GLACIER_INSTANT_RETRIEVAL, retention.archive_glacier_days),
                    ],
                ),
                _expire("query-answers", QUERIES, retention.queries_days),
                _expire("staged", STAGED, 7),
            ],
        )
        self.code = secure_bucket(
            self, "Code", key=keys.data, access_logs=self.logs, versioned=True, rules=[old_versions]
        )

        def published(name: str, bundle: Bundle) -> Release:
            return Release(
                self,
                name,
                bundle=bundle,
                bucket=self.code,
                prefix=RELEASES,
                platform=platform,
            )

        self.release, self.packages = published("Release", RELEASE), published("Packages", PACKAGES)
        self.contract = contract.Storage(
            code_bucket=self.code.bucket_name,
            logs_bucket=self.logs.bucket_name,
            code_uri=self.release.uri(),
        )
        self.output(outputs.LAKE_BUCKET, self.lake.bucket_name)
        self.output(outputs.CODE_BUCKET, self.code.bucket_name)
        self.output(outputs.LOGS_BUCKET, self.logs.bucket_name)
        self.output(outputs.CODE_URI, self.release.uri())
        self.output(outputs.JDBC_DRIVER, self.jdbc_driver_uri)
        self.output(outputs.JDBC_DRIVER_SHA256, versions.JDBC_DRIVER_SHA256)

    def _allow_balancer_logs(self) -> None:
        """Allow load balancers of this account to write their access logs.

        https://docs.aws.amazon.com/elasticloadbalancing/latest/application/enable-access-logging.html
        """
        self.logs.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("logdelivery.elasticloadbalancing.amazonaws.com")],
                actions=["s3:PutObject"],
                resources=[self.logs.arn_for_objects(f"{ACCESS_LOGS}/AWSLogs/{self.account}/*")],
                conditions={
                    "ArnLike": {
                        "aws:SourceArn": self.format_arn(
                            service="elasticloadbalancing", resource="loadbalancer", resource_name="*"
                        )
                    }
                },
            )
        )

    @property
    def lake_uri(self) -> str:
        """The URI of the lake, for BARFLOW_LAKE_URI."""
        return f"s3://{self.lake.bucket_name}"

    @property
    def jdbc_driver_uri(self) -> str:
        """The URI of PostgreSQL's JDBC driver, which an operator stores there."""
        return f"s3://{self.code.bucket_name}/{DRIVERS}/postgresql-{versions.JDBC_DRIVER}.jar"

    def logs_uri(self, prefix: str) -> str:
        """Return the URI of a prefix of the bucket of logs, with a slash at its end."""
        return f"s3://{self.logs.bucket_name}/{prefix}/"

    def grant(self, role: iam.IRole, user: User) -> None:
        """Allow the role to read and write what ACCESS lists for the user."""
        buckets: dict[str, s3.Bucket] = {"lake": self.lake, "code": self.code, "logs": self.logs}
        for name, bucket in buckets.items():
            reads = [item.prefix for item in ACCESS if item.bucket == name and user in item.reads]
            writes = [item.prefix for item in ACCESS if item.bucket == name and user in item.writes]
            deletes = [item.prefix for item in ACCESS if item.bucket == name and user in item.deletes]
            if reads or writes:
                allow_objects(role, bucket, self._data_key, reads=reads, writes=writes, deletes=deletes)


def _to(storage_class: s3.StorageClass, days: int) -> s3.Transition:
    return s3.Transition(storage_class=storage_class, transition_after=cdk.Duration.days(days))


def _expire(rule_id: str, prefix: str, days: int) -> s3.LifecycleRule:
    return s3.LifecycleRule(id=rule_id, prefix=f"{prefix}/", expiration=cdk.Duration.days(days))
