"""The Glue catalog, its crawlers, data quality rules and jobs, and Athena for queries of the archive."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_athena as athena
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from constructs import Construct

from barflow import contract
from barflow.market.bars import KNOWN_UNTIL, PRICES, glue_columns
from config import versions
from config.cost import dpu_hour_dollars
from stacks import outputs
from stacks.base import BarflowStack, acknowledge
from stacks.constructs.aggregate_job import AggregateJob
from stacks.constructs.glue_role import GLUE, allow_catalog, glue_role
from stacks.constructs.grants import allow, allow_reading_secrets, arn_in_finding
from stacks.constructs.jdbc_connection import jdbc_connection
from stacks.constructs.visual_job import VisualJob
from stacks.database import DATABASE, DatabaseStack
from stacks.platform import Platform
from stacks.storage import ACTIONS, BARS, HISTORY, QUERIES, StorageStack

WAREHOUSE_PREFIX = "warehouse_"  # of the tables that the warehouse's crawler adds
# A thousand symbols over ten years take less than 10 GB. A query that reads more lacks a filter.
QUERY_BYTES = 10 * 1024**3
READ_CATALOG = ("BatchGetPartition", "GetDatabase", "GetPartition", "GetPartitions", "GetTable", "GetTables")
WRITE_CATALOG = (
    "BatchCreatePartition", "BatchUpdatePartition", "CreatePartition", "CreateTable", "UpdatePartition", "UpdateTable",
)  # fmt: skip
TYPES = {
    "timestamp": glue.Schema.TIMESTAMP,
    "date": glue.Schema.DATE,
    "double": glue.Schema.DOUBLE,
    "bigint": glue.Schema.BIG_INT,
    "int": glue.Schema.INTEGER,
    "string": glue.Schema.STRING,
}

HISTORY_COLUMNS = (*glue_columns(), (KNOWN_UNTIL.name, KNOWN_UNTIL.spark))
# The columns of barflow.lake.actions.SCHEMA.
ACTION_COLUMNS = (
    ("kind", "string"), ("ex_date", "date"), ("ratio", "double"), ("amount", "double"), ("currency", "string"),
    ("source", "string"), ("known_from", "timestamp"), ("known_until", "timestamp"),
)  # fmt: skip


class CatalogStack(BarflowStack):
    """The Glue ``database``. ``contract`` names it with the job, the crawlers, the rules and the workgroup."""

    def __init__(
        self,
        scope: Construct,
        platform: Platform,
        *,
        storage: StorageStack,
        database: DatabaseStack,
        settings: contract.PipelineSettings,
    ) -> None:
        """Create the catalog, the crawlers, the rules, the jobs and the workgroup."""
        environment = platform.environment
        super().__init__(scope, environment, description="Glue catalog, job, crawlers and Athena")
        self._keys = platform.keys
        self._storage, self._warehouse = storage, database
        # It contains no data. If it were retained, its fixed name would prevent a new deployment.
        self.database = glue.Database(
            self, "Catalog", database_name=f"barflow_{environment.name}", removal_policy=cdk.RemovalPolicy.DESTROY
        )
        self.security = self._security_configuration()
        self.reader = self._reader()
        self._allow_evaluations()
        bars = self._bars_table(
            "Bars", BARS, "5-minute bars: prices in dollars, volume in shares, ts the bar's open in UTC", glue_columns()
        )
        history = self._bars_table(
            "History", HISTORY, "Superseded versions of the bars, known from known_from until known_until (UTC)",
            HISTORY_COLUMNS,
        )  # fmt: skip
        actions = self._actions_table()
        connection = jdbc_connection(
            self, "Warehouse", purpose="to read", platform=platform, database=database,
            user=database.reader_secret, driver=storage.jdbc_driver_uri,
        )  # fmt: skip
        job = AggregateJob(
            self, "Aggregate", platform=platform, storage=storage, database=database,
            security=self.security, settings=settings,
        )  # fmt: skip
        visual = VisualJob(
            self, "Visual", platform=platform, storage=storage, database=database,
            catalog=self.database.database_name, security=self.security,
        )  # fmt: skip
        self._ruleset_name = self._ruleset("Bars", bars, "Rules that every bar of the archive meets", bars_rules())
        # No run evaluates these by itself: it would be billed each day, for files that rarely change.
        self._ruleset("History", history, "Rules that every superseded version of a bar meets", history_rules())
        self.contract = contract.Glue(
            job=job.job.job_name,
            workflow=job.workflow,
            database=self.database.database_name,
            bars_table=BARS,
            lake_crawler=self._lake_crawler(bars, history, actions).ref,
            warehouse_crawler=self._warehouse_crawler(connection, [job.job.job_name, visual.job.ref]).ref,
            jdbc_driver=storage.jdbc_driver_uri,
            jdbc_driver_sha256=versions.JDBC_DRIVER_SHA256,
            ruleset=self._ruleset_name,
            evaluation_role=self.reader.role_arn,
            evaluation_workers=environment.quality.workers,
            athena_workgroup=self._workgroup(),
            dpu_hour_dollars=dpu_hour_dollars(),
            worker_type=environment.glue.worker_type,
            max_workers=environment.glue.max_workers,
            timeout_minutes=environment.glue.timeout_minutes,
        )
        for output, value in (
            (outputs.GLUE_JOB, self.contract.job),
            (outputs.VISUAL_JOB, visual.job.ref),
            (outputs.GLUE_DATABASE, self.contract.database),
            (outputs.LAKE_CRAWLER, self.contract.lake_crawler),
            (outputs.WAREHOUSE_CRAWLER, self.contract.warehouse_crawler),
            (outputs.ATHENA_WORKGROUP, self.contract.athena_workgroup),
            (outputs.BARS_RULESET, self._ruleset_name),
        ):
            self.output(output, value)

    def allow_run(self, role: iam.IRole | iam.ManagedPolicy) -> None:
        """Allow the role to start the job's workflow, the crawlers and the evaluation of the rules, and to query."""
        found = self.contract
        for resource, name, actions in (
            # Not StartJobRun: its caller can replace the job's arguments and so run other code as the job's role.
            ("job", found.job, ["BatchStopJobRun", "GetJobRun"]),
            ("workflow", found.workflow, ["GetWorkflowRun", "StartWorkflowRun"]),
            ("crawler", found.lake_crawler, ["GetCrawler", "StartCrawler"]),
            ("crawler", found.warehouse_crawler, ["GetCrawler", "StartCrawler"]),
            (
                "dataQualityRuleset",
                self._ruleset_name,
                [
                    "GetDataQualityResult",
                    "GetDataQualityRulesetEvaluationRun",
                    "StartDataQualityRulesetEvaluationRun",
                ],
            ),
        ):
            arn = self.format_arn(service="glue", resource=resource, resource_name=name)
            allow(role, [f"glue:{action}" for action in actions], [arn])
        allow(role, ["glue:GetCrawlerMetrics"], ["*"])  # it has no narrower resource
        allow(role, ["iam:PassRole"], [self.reader.role_arn], {"StringEquals": {"iam:PassedToService": GLUE}})
        allow_catalog(
            role, found.database, ["GetDatabase", "GetPartitions", "GetTable"], tables=[BARS, HISTORY, ACTIONS]
        )
        workgroup = self.format_arn(service="athena", resource="workgroup", resource_name=found.athena_workgroup)
        query = ["GetQueryExecution", "GetQueryResults", "GetWorkGroup", "StartQueryExecution", "StopQueryExecution"]
        allow(role, [f"athena:{action}" for action in query], [workgroup])

    def _security_configuration(self) -> glue.SecurityConfiguration:
        key = self._keys.data
        return glue.SecurityConfiguration(
            self,
            "Security",
            security_configuration_name=f"barflow-{self.environment_config.name}",
            removal_policy=cdk.RemovalPolicy.DESTROY,
            cloud_watch_encryption=glue.CloudWatchEncryption.kms(key),
            job_bookmarks_encryption=glue.JobBookmarksEncryption.client_side_kms(key),
            s3_encryption=glue.S3Encryption.kms(key),
        )

    def _reader(self) -> iam.Role:
        """Return the role of the lake's crawler and of the evaluation of the rules."""
        role = glue_role(self, "Reader", key=self._keys.data)
        self._storage.grant(role, "crawler")
        allow_catalog(role, self.database.database_name, [*READ_CATALOG, *WRITE_CATALOG])
        return role

    def _warehouse_crawler_role(self, connection: glue.Connection, own_jobs: Sequence[str]) -> iam.Role:
        """Return the role of the warehouse's crawler, with what Glue requires for a driver of one's own.

        Such a crawler creates a job, runs it as its own role and deletes it. Its files are beside the driver.
        https://docs.aws.amazon.com/glue/latest/dg/console-connections-jdbc-drivers.html
        """
        role = glue_role(self, "WarehouseCrawlerRole", key=self._keys.data)
        self._storage.grant(role, "warehouse_crawler")
        allow_reading_secrets(role, self._keys.secrets, self._warehouse.reader_secret)
        allow_catalog(role, self.database.database_name, [*READ_CATALOG, *WRITE_CATALOG])
        reads = self.format_arn(service="glue", resource="connection", resource_name=connection.connection_name)
        allow(role, ["glue:GetConnection"], [self.format_arn(service="glue", resource="catalog"), reads])
        jobs = self.format_arn(service="glue", resource="job", resource_name="*")
        on_job = [f"glue:{action}" for action in ("CreateJob", "DeleteJob", "GetJob", "GetJobRun", "StartJobRun")]
        allow(role, on_job, [jobs])
        # The driver is third-party code. Deny it the jobs that have permissions of their own.
        ours = [self.format_arn(service="glue", resource="job", resource_name=name) for name in own_jobs]
        role.add_to_policy(iam.PolicyStatement(effect=iam.Effect.DENY, actions=on_job, resources=ours))
        allow(role, ["iam:PassRole"], [role.role_arn], {"StringEquals": {"iam:PassedToService": GLUE}})
        acknowledge(
            role,
            "Glue does not document the name of the job that a crawler with its own driver creates",
            f"AwsSolutions-IAM5[Resource::{arn_in_finding(self, jobs)}]",
        )
        return role

    def _bars_table(
        self, construct_id: str, name: str, description: str, columns: Sequence[tuple[str, str]]
    ) -> glue.S3Table:
        """Return a table of bars by symbol and month. The crawler adds partitions, never a column."""
        return glue.S3Table(
            self,
            construct_id,
            database=self.database,
            table_name=name,
            description=description,
            storage=glue.S3TableStorage.from_bucket(self._storage.lake),
            s3_prefix=f"{name}/",
            data_format=glue.DataFormat.PARQUET,
            columns=[glue.Column(name=column, type=TYPES[kind]) for column, kind in columns],
            partition_keys=[glue.Column(name=key, type=TYPES["string"]) for key in ("symbol", "month")],
        )

    def _actions_table(self) -> glue.S3Table:
        """Return the table of the corporate actions: one file per symbol, with every version."""
        return glue.S3Table(
            self,
            "Actions",
            database=self.database,
            table_name=ACTIONS,
            description="Splits and dividends with their versions; the current ones have no known_until",
            storage=glue.S3TableStorage.from_bucket(self._storage.lake),
            s3_prefix=f"{ACTIONS}/",
            data_format=glue.DataFormat.PARQUET,
            columns=[glue.Column(name=name, type=TYPES[kind]) for name, kind in ACTION_COLUMNS],
            partition_keys=[glue.Column(name="symbol", type=TYPES["string"])],
        )

    def _ruleset(self, construct_id: str, table: glue.S3Table, description: str, rules: str) -> str:
        """Create the rules of a table, and allow the reader to evaluate them. Return their name."""
        name = f"barflow-{self.environment_config.name}-{construct_id.lower()}"
        glue.DataQualityRuleset(
            self,
            f"{construct_id}Ruleset",
            ruleset_name=name,
            description=description,
            target_table=glue.DataQualityTargetTable.from_table(self.database, table),
            dqdl=glue.Dqdl.from_string(rules),
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        evaluate = ["GetDataQualityResult", "GetDataQualityRuleset", "GetDataQualityRulesetEvaluationRun"]
        arn = self.format_arn(service="glue", resource="dataQualityRuleset", resource_name=name)
        allow(self.reader, [f"glue:{action}" for action in (*evaluate, "PublishDataQuality")], [arn])
        return name

    def _allow_evaluations(self) -> None:
        """Allow the reader to run the programs with which Glue evaluates rules."""
        programs = f"arn:{self.partition}:s3:::aws-glue-ml-data-quality-assets-{self.region}/*"
        allow(self.reader, ["s3:GetObject"], [programs])
        acknowledge(
            self.reader,
            "programs for data quality that AWS publishes for this region",
            f"AwsSolutions-IAM5[Resource::{arn_in_finding(self, programs)}]",
        )

    def _lake_crawler(self, *tables: glue.S3Table) -> glue.CfnCrawler:
        """Return the crawler of the archive. It reads the tables' own prefixes, so manifests do not become tables."""
        target = glue.CfnCrawler.CatalogTargetProperty(
            database_name=self.database.database_name, tables=[table.table_name for table in tables]
        )
        crawler = self._crawler(
            "LakeCrawler",
            "adds new months and symbols of the archive",
            glue.CfnCrawler.TargetsProperty(catalog_targets=[target]),
            role=self.reader,
            configuration={
                "Version": 1.0,
                "CrawlerOutput": {
                    "Partitions": {"AddOrUpdateBehavior": "InheritFromTable"},
                    "Tables": {"AddOrUpdateBehavior": "MergeNewColumns"},
                },
            },
        )
        crawler.node.add_dependency(*tables)
        return crawler

    def _warehouse_crawler(self, connection: glue.Connection, own_jobs: Sequence[str]) -> glue.CfnCrawler:
        path = f"{DATABASE}/market/%"
        target = glue.CfnCrawler.JdbcTargetProperty(connection_name=connection.connection_name, path=path)
        return self._crawler(
            "WarehouseCrawler",
            "adds the warehouse's tables",
            glue.CfnCrawler.TargetsProperty(jdbc_targets=[target]),
            role=self._warehouse_crawler_role(connection, own_jobs),
            table_prefix=WAREHOUSE_PREFIX,
        )

    def _crawler(
        self,
        construct_id: str,
        purpose: str,
        targets: glue.CfnCrawler.TargetsProperty,
        *,
        role: iam.Role,
        configuration: dict[str, object] | None = None,
        table_prefix: str | None = None,
    ) -> glue.CfnCrawler:
        """Return a crawler that Airflow starts after each run. It logs a deleted table and does not remove it."""
        crawler = glue.CfnCrawler(
            self,
            construct_id,
            role=role.role_arn,
            description=f"Barflow {self.environment_config.name}: {purpose}",
            database_name=self.database.database_name,
            targets=targets,
            table_prefix=table_prefix,
            crawler_security_configuration=self.security.security_configuration_name,
            schema_change_policy=glue.CfnCrawler.SchemaChangePolicyProperty(
                update_behavior="UPDATE_IN_DATABASE", delete_behavior="LOG"
            ),
            configuration=self.to_json_string(configuration) if configuration else None,
        )
        crawler.node.add_dependency(role)
        return crawler

    def _workgroup(self) -> str:
        """Create the workgroup for queries of the archive: encrypted results and a limit of bytes. Return its name."""
        name = f"barflow-{self.environment_config.name}"
        athena.CfnWorkGroup(
            self,
            "Workgroup",
            name=name,
            description=f"Barflow {self.environment_config.name}: the archive",
            recursive_delete_option=True,  # deletes its query history; the results are in the lake's bucket
            work_group_configuration=athena.CfnWorkGroup.WorkGroupConfigurationProperty(
                enforce_work_group_configuration=True,
                publish_cloud_watch_metrics_enabled=True,
                bytes_scanned_cutoff_per_query=QUERY_BYTES,
                engine_version=athena.CfnWorkGroup.EngineVersionProperty(
                    selected_engine_version="Athena engine version 3"
                ),
                result_configuration=athena.CfnWorkGroup.ResultConfigurationProperty(
                    output_location=f"{self._storage.lake_uri}/{QUERIES}/",
                    encryption_configuration=athena.CfnWorkGroup.EncryptionConfigurationProperty(
                        encryption_option="SSE_KMS", kms_key=self._keys.data.key_arn
                    ),
                ),
            ),
        )
        return name


def bars_rules() -> str:
    """Return the rules of the bars as DQDL: the invariants of a Bar, and no bar twice."""
    return _rules("RowCount > 0", 'IsPrimaryKey "symbol" "ts"', *_invariants(glue_columns()))


def history_rules() -> str:
    """Return the rules of the superseded versions as DQDL: none twice, none superseded before it was known."""
    return _rules(
        'IsPrimaryKey "symbol" "ts" "known_from"',
        *_invariants(HISTORY_COLUMNS),
        'CustomSql "select count(*) from primary where known_from >= known_until" = 0',
    )


def _rules(*rules: str) -> str:
    return "Rules = [" + ", ".join(rules) + "]"


def _invariants(columns: Sequence[tuple[str, str]]) -> list[str]:
    return [
        *(f'IsComplete "{name}"' for name, _ in columns),
        *(f'ColumnValues "{name}" > 0' for name in PRICES),
        'ColumnValues "volume" >= 0',
        'ColumnValues "revision" >= 0',
        'CustomSql "select count(*) from primary where low > least(open, close) * (1 + 1e-12) '
        'or high * (1 + 1e-12) < greatest(open, close)" = 0',
        "CustomSql \"select count(*) from primary where month <> date_format(session_date, 'yyyy-MM')\" = 0",
    ]
