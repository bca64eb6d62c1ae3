"""The Glue job that aggregates bars and loads the warehouse: glue/aggregate_bars.py, as published."""

from __future__ import annotations

from pathlib import PurePath

import aws_cdk as cdk
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from constructs import Construct

from barflow.contract import PipelineSettings
from config import versions
from stacks.base import BarflowStack
from stacks.bundles import GLUE_PACKAGES, LIBRARY
from stacks.constructs.glue_role import LOG_PREFIX, glue_role, job_log_groups
from stacks.constructs.grants import allow, allow_reading_secrets
from stacks.database import DatabaseStack
from stacks.platform import Platform
from stacks.storage import StorageStack

SCRIPT = "glue/aggregate_bars.py"


class AggregateJob(Construct):
    """The ``job``, the ``workflow`` that starts it, and its ``role``.

    The role reads the archive and the published programs, and loads the warehouse. A caller with permission to
    start the job itself can replace its arguments, and so run its own code as this role. The workflow fixes them.
    """

    def __init__(
        self,
        stack: BarflowStack,
        construct_id: str,
        *,
        platform: Platform,
        storage: StorageStack,
        database: DatabaseStack,
        security: glue.SecurityConfiguration,
        settings: PipelineSettings,
    ) -> None:
        """Create the job. ``security`` encrypts its logs and temporary files."""
        super().__init__(stack, construct_id)
        environment = platform.environment
        self._storage, self._platform = storage, platform
        network = self._network()
        self.role = self._role(stack, database, network)
        logs = job_log_groups(self, self.role, security=security, platform=platform)
        sql = sorted(path for path in storage.release.paths if PurePath(path).match("glue/*.sql"))
        self.job = glue.PySparkEtlJob(
            self,
            "Job",
            description="Aggregates the published partitions and loads the warehouse",
            role=self.role.without_policy_updates(),  # it has its permissions; CDK would add broader ones
            glue_version=glue.GlueVersion[f"V{versions.GLUE.replace('.', '_')}"],
            script=self._code(SCRIPT),
            extra_files=[self._code(path) for path in sql],
            extra_python_files=[self._code(LIBRARY)],
            worker_configuration=glue.WorkerConfiguration(
                worker_type=glue.WorkerType[environment.glue.worker_type.replace(".", "_")],
                number_of_workers=environment.glue.max_workers,
            ),
            timeout=cdk.Duration.minutes(environment.glue.timeout_minutes),
            max_concurrent_runs=1,
            max_retries=0,  # Airflow retries
            enable_metrics=True,
            enable_observability_metrics=True,
            continuous_logging=glue.ContinuousLoggingProps(enabled=False),  # Glue 5 always logs continuously
            security_configuration=security,
            connections=[network],
            default_arguments={
                "--enable-auto-scaling": "true",
                LOG_PREFIX: logs,
                "--additional-python-modules": storage.packages.uri(GLUE_PACKAGES),
                "--python-modules-installer-option": "--no-index",
                "--TempDir": f"{storage.logs_uri('glue')}temporary/",
                "--lake": settings.lake_uri,
                "--warehouse": settings.warehouse_dsn,
                **_lineage_arguments(settings),
            },
        )
        self.workflow = self._workflow(stack)

    def _workflow(self, stack: BarflowStack) -> str:
        """Create the workflow, and allow the job to read the properties of its runs. Return its name."""
        workflow = glue.CfnWorkflow(
            self,
            "Workflow",
            description=f"Barflow {self._platform.environment.name}: starts the job that loads the warehouse",
            max_concurrent_runs=1,
        )
        glue.CfnTrigger(
            self,
            "Start",
            type="ON_DEMAND",
            workflow_name=workflow.ref,
            actions=[glue.CfnTrigger.ActionProperty(job_name=self.job.job_name)],
        )
        arn = stack.format_arn(service="glue", resource="workflow", resource_name=workflow.ref)
        allow(self.role, ["glue:GetWorkflowRunProperties"], [arn])
        return workflow.ref

    def _network(self) -> glue.Connection:
        """Return the network connection that places the job in the VPC.

        The database user comes from the job's arguments.
        """
        return glue.Connection(
            self,
            "Network",
            type=glue.ConnectionType.NETWORK,
            description=f"Barflow {self._platform.environment.name}: the VPC",
            network=glue.ConnectionNetwork.subnet(self._platform.glue_subnet),
            security_groups=[self._platform.groups.glue],
        )

    def _role(self, stack: BarflowStack, database: DatabaseStack, network: glue.Connection) -> iam.Role:
        role = glue_role(stack, "Loader", key=self._platform.keys.data)
        self._storage.grant(role, "glue")
        allow_reading_secrets(role, self._platform.keys.secrets, database.loader_secret)
        self._platform.secrets.allow_lineage(role)
        catalog = stack.format_arn(service="glue", resource="catalog")
        connection = stack.format_arn(service="glue", resource="connection", resource_name=network.connection_name)
        allow(role, ["glue:GetConnection"], [catalog, connection])
        return role

    def _code(self, path: str) -> glue.Code:
        return glue.Code.from_bucket(self._storage.code, self._storage.release.key(path))


def _lineage_arguments(settings: PipelineSettings) -> dict[str, str]:
    """Return the job's arguments for its lineage, none without a backend."""
    if not settings.openlineage_url:
        return {}
    key = settings.openlineage_api_key
    return {
        "--environment": settings.env,
        "--openlineage-url": settings.openlineage_url,
        **({"--openlineage-reference": key} if key else {}),
    }
