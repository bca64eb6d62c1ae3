"""Every output of every stack: its key and what it means. Operators, tests and the runbook rely on the keys.

An output is an interface: to rename one, change the list in tests/stacks/test_outputs.py in the same commit, and say
so in the changelog.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Output:
    """One output: the stack that has it (Network for Barflow-dev-Network), its key there, and its meaning."""

    stack: str
    key: str
    meaning: str


NAT_ADDRESSES = Output("Network", "NatAddresses", "Public addresses of all traffic out, to allow in MongoDB Atlas")
VPC_ID = Output("Network", "VpcId", "The VPC of everything that runs")

TWELVEDATA_SECRET = Output("Secrets", "TwelveDataSecret", "Secret that holds the Twelve Data API key")
MONGODB_SECRET = Output("Secrets", "MongoDbSecret", "Secret that holds the MongoDB URI")
SLACK_SECRET = Output("Secrets", "SlackSecret", "Secret that holds the Slack bot token")
SSH_CONNECTION_SECRET = Output("Secrets", "SshConnectionSecret", "Secret of Airflow's SSH connection to the host")
SLACK_CONNECTION_SECRET = Output("Secrets", "SlackConnectionSecret", "Secret of Airflow's Slack connection")
AIRFLOW_LOGIN_SECRET = Output("Secrets", "AirflowLoginSecret", "Secret of the generated password of Airflow's page")
DASHBOARD_SECRET = Output("Secrets", "DashboardSecret", "Secret of the generated token of the analysts' page")

LAKE_BUCKET = Output("Storage", "LakeBucket", "Bucket of the Parquet archive and its manifests")
CODE_BUCKET = Output("Storage", "CodeBucket", "Bucket of the published programs")
LOGS_BUCKET = Output("Storage", "LogsBucket", "Bucket of logs: EMR's and the buckets' own access logs")
CODE_URI = Output("Storage", "CodeUri", "Where this deployment's programs lie; each deployed content has its own place")

DATABASE_ENDPOINT = Output("Database", "DatabaseEndpoint", "Host name of the warehouse")
DATABASE_ID = Output("Database", "DatabaseId", "RDS identifier of the warehouse, for restores")
DATABASE_ADMIN_SECRET = Output("Database", "DatabaseAdminSecret", "Secret of the warehouse's owner, rotated by RDS")
LOADER_SECRET = Output("Database", "LoaderSecret", "Secret of the user that loads the warehouse")
READER_SECRET = Output("Database", "ReaderSecret", "Secret of the user that may only read the warehouse")
MIGRATE_FUNCTION = Output("Database", "MigrateFunction", "Function that brings the warehouse's schema up to date")

ALERTS_TOPIC = Output("Alerts", "AlertsTopic", "Topic of price alerts, first in first out by symbol")
BOT_QUEUES = Output("Alerts", "BotQueues", "Queues of the bots, one each, by URL")
BOT_POLICIES = Output("Alerts", "BotPolicies", "Policies by which each bot reads its queue, in the queues' order")

INGEST_FUNCTION = Output("Ingestion", "IngestFunction", "Function of a tick; absent where Airflow's host fetches")
FAILED_TICKS_QUEUE = Output("Ingestion", "FailedTicksQueue", "Queue of the ticks that failed three times, to redrive")

EMR_SERVICE_ROLE = Output("Processing", "EmrServiceRole", "Role by which EMR makes and ends clusters")
EMR_NODE_ROLE = Output("Processing", "EmrNodeRole", "Role of the clusters' nodes: the lake, the MongoDB URI, logs")

GLUE_JOB = Output("Catalog", "GlueJob", "Job that aggregates and loads what was published")
VISUAL_JOB = Output("Catalog", "VisualJob", "Job to look at and to try in Glue Studio; it writes the sandbox alone")
GLUE_DATABASE = Output("Catalog", "GlueDatabase", "Database of the catalog: the archive and the warehouse's tables")
LAKE_CRAWLER = Output("Catalog", "LakeCrawler", "Crawler that enters new months and symbols of the archive")
WAREHOUSE_CRAWLER = Output("Catalog", "WarehouseCrawler", "Crawler that enters the warehouse's tables")
ATHENA_WORKGROUP = Output("Catalog", "AthenaWorkgroup", "Workgroup of queries on the archive, with its limit of bytes")
BARS_RULESET = Output("Catalog", "BarsRuleset", "Data-quality rules that the archive's bars are judged by")

HOST_ID = Output("Orchestration", "HostId", "Instance that runs Airflow, for Session Manager")
HOST_LOG = Output("Orchestration", "HostLog", "Log group of the host: its setup, its system and Airflow")
RUNTIME_CONTRACT = Output("Orchestration", "RuntimeContract", "SSM parameter that tells programs what is where")

OPERATIONS_TOPIC = Output("Observability", "OperationsTopic", "Topic of alarms: to Slack and the e-mail addresses")
BUSINESS_DASHBOARD = Output("Observability", "BusinessDashboard", "Dashboard of bars, freshness, loads and costs")
TECHNICAL_DASHBOARD = Output(
    "Observability", "TechnicalDashboard", "Dashboard of functions, queues, jobs, server, host"
)

OUTPUTS: tuple[Output, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Output))
