"""The visual job for Glue Studio: the graph of glue/visual_job.json. It is started by hand and writes only the sandbox.

AWS::Glue::Job has no property for a graph. So the stack creates the job, and a function sets its graph. An update of
the job by CloudFormation keeps the graph.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_glue as glue
from constructs import Construct

from config import versions
from stacks.base import BarflowStack
from stacks.bundles import VISUAL_JOB
from stacks.constructs.glue_role import GLUE, LOG_PREFIX, allow_catalog, glue_role, job_log_groups
from stacks.constructs.grants import allow, allow_reading_secrets
from stacks.constructs.jdbc_connection import jdbc_connection
from stacks.constructs.python_function import PythonFunction
from stacks.database import DatabaseStack
from stacks.platform import Platform
from stacks.storage import BARS, VISUAL, StorageStack

CALENDAR = "barflow/market/sessions_xnys.csv"


class VisualJob(Construct):
    """The ``job`` and its ``role``, which reads the archive and writes the warehouse's sandbox."""

    def __init__(
        self,
        stack: BarflowStack,
        construct_id: str,
        *,
        platform: Platform,
        storage: StorageStack,
        database: DatabaseStack,
        catalog: str,
        security: glue.SecurityConfiguration,
    ) -> None:
        """Create the job. ``catalog`` is the name of the Glue database."""
        super().__init__(stack, construct_id)
        environment, keys = platform.environment, platform.keys
        connection = jdbc_connection(
            stack, "SandboxConnection", purpose="its sandbox", platform=platform, database=database,
            user=database.sandbox_secret,
        )  # fmt: skip
        self.role = glue_role(stack, "Sandbox", key=keys.data)
        storage.grant(self.role, "sandbox")
        allow_reading_secrets(self.role, keys.secrets, database.sandbox_secret)
        allow_catalog(self.role, catalog, ["GetDatabase", "GetPartitions", "GetTable"], tables=[BARS])
        connects = stack.format_arn(service="glue", resource="connection", resource_name=connection.connection_name)
        allow(self.role, ["glue:GetConnection"], [stack.format_arn(service="glue", resource="catalog"), connects])
        self.job = glue.CfnJob(
            self,
            "Job",
            description="Visual job for Glue Studio. It writes only the schema sandbox. A release resets it",
            job_mode="VISUAL",
            role=self.role.role_arn,
            command=glue.CfnJob.JobCommandProperty(
                name="glueetl",
                python_version="3",
                script_location=f"s3://{storage.code.bucket_name}/{VISUAL}/visual_job.py",
            ),
            connections=glue.CfnJob.ConnectionsListProperty(connections=[connection.connection_name]),
            glue_version=versions.GLUE,
            worker_type=environment.glue.worker_type,
            number_of_workers=environment.glue.max_workers,
            timeout=environment.glue.timeout_minutes,
            execution_property=glue.CfnJob.ExecutionPropertyProperty(max_concurrent_runs=1),
            max_retries=0,
            security_configuration=security.security_configuration_name,
            default_arguments={
                "--job-language": "python",
                "--enable-auto-scaling": "true",
                "--enable-glue-datacatalog": "true",
                LOG_PREFIX: job_log_groups(self, self.role, security=security, platform=platform),
                "--conf": "spark.sql.session.timeZone=UTC",
                "--TempDir": f"{storage.logs_uri('glue')}temporary/",
            },
        )
        graph = PythonFunction(
            stack,
            "Graph",
            bundle=VISUAL_JOB,
            description="Sets the graph of the visual job, on deployment",
            platform=platform,
            memory_mb=256,
            timeout=cdk.Duration.minutes(1),
            environment={
                "JOB": self.job.ref,
                "DATABASE": catalog,
                "TABLE": BARS,
                "CONNECTION": connection.connection_name,
                "SESSIONS": storage.release.uri(CALENDAR),
            },
        )
        storage.grant(graph.role, "graph")
        job = stack.format_arn(service="glue", resource="job", resource_name=self.job.ref)
        allow(graph.role, ["glue:GetJob", "glue:UpdateJob"], [job])
        allow(graph.role, ["iam:PassRole"], [self.role.role_arn], {"StringEquals": {"iam:PassedToService": GLUE}})
        graph.run_on_deployment(self, "GiveGraph")
