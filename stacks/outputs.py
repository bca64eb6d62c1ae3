"""Every output of every stack: its key and its meaning. Operators, tests and the runbook rely on the keys.

To rename an output, change the list in tests/stacks/test_outputs.py in the same commit, and note it in the changelog.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Output:
    """An output: its stack (Network for Barflow-dev-Network), its key there, and its meaning."""

    stack: str
    key: str
    meaning: str


NAT_ADDRESSES = Output("Network", "NatAddresses", "Public addresses of outgoing traffic, to allow in MongoDB Atlas")
VPC_ID = Output("Network", "VpcId", "VPC of the functions, clusters, jobs, database and host")

TWELVEDATA_SECRET = Output("Secrets", "TwelveDataSecret", "Secret of the Twelve Data API key")
MONGODB_SECRET = Output("Secrets", "MongoDbSecret", "Secret of the MongoDB URI")
SLACK_SECRET = Output("Secrets", "SlackSecret", "Secret of the Slack bot token")
LINEAGE_SECRET = Output(
    "Secrets", "LineageSecret", "Secret of the OpenLineage backend's API key; only with lineage.api_key"
)
WEBHOOK_SECRET = Output("Secrets", "WebhookSecret", "Secret that signs webhooks; only with webhooks.urls")
APPRISE_SECRET = Output("Secrets", "AppriseSecret", "Secret of apprise's URLs; only with apprise")
SSH_CONNECTION_SECRET = Output("Secrets", "SshConnectionSecret", "Secret of Airflow's SSH connection to the host")
SLACK_CONNECTION_SECRET = Output("Secrets", "SlackConnectionSecret", "Secret of Airflow's Slack connection")
AIRFLOW_LOGIN_SECRET = Output("Secrets", "AirflowLoginSecret", "Secret of the password for Airflow's page")
AIRFLOW_USERS_SECRET = Output(
    "Secrets", "AirflowUsersSecret", "Secret of Airflow's users; only with network.airflow_ui_cidrs"
)
DASHBOARD_SECRET = Output("Secrets", "DashboardSecret", "Secret of the token for the analysts' page")

LAKE_BUCKET = Output("Storage", "LakeBucket", "Bucket of the Parquet archive and its manifests")
CODE_BUCKET = Output("Storage", "CodeBucket", "Bucket of the published programs")
LOGS_BUCKET = Output("Storage", "LogsBucket", "Bucket of EMR's and Airflow's logs and of S3 access logs")
CODE_URI = Output("Storage", "CodeUri", "Programs of this deployment; each content has its own prefix")
JDBC_DRIVER = Output("Storage", "JdbcDriver", "Location of the warehouse crawler's JDBC driver, which you install")
JDBC_DRIVER_SHA256 = Output("Storage", "JdbcDriverSha256", "SHA-256 of that driver")

DATABASE_ENDPOINT = Output("Database", "DatabaseEndpoint", "Host name of the warehouse")
DATABASE_ID = Output("Database", "DatabaseId", "RDS identifier of the warehouse, for restores")
DATABASE_ADMIN_SECRET = Output("Database", "DatabaseAdminSecret", "Secret of the warehouse's owner, rotated by RDS")
LOADER_SECRET = Output("Database", "LoaderSecret", "Secret of the user that loads the warehouse")
READER_SECRET = Output("Database", "ReaderSecret", "Secret of the user that only reads the warehouse")
MIGRATE_FUNCTION = Output("Database", "MigrateFunction", "Function that migrates the warehouse's schema")

ALERTS_TOPIC = Output("Alerts", "AlertsTopic", "FIFO topic of price alerts, in order per symbol")
BOT_QUEUES = Output("Alerts", "BotQueues", "URLs of the bots' queues, one per bot")
BOT_POLICIES = Output("Alerts", "BotPolicies", "Policies that allow a bot to read its queue, in the queues' order")

INGEST_FUNCTION = Output("Ingestion", "IngestFunction", "Function that runs a tick; absent when Airflow's host ingests")
FAILED_TICKS_QUEUE = Output("Ingestion", "FailedTicksQueue", "Queue of the ticks that failed three times, to redrive")

EMR_SERVICE_ROLE = Output("Processing", "EmrServiceRole", "Role that EMR uses to create and terminate clusters")
EMR_NODE_ROLE = Output("Processing", "EmrNodeRole", "Role of the clusters' nodes: the lake, the MongoDB URI, logs")

GLUE_JOB = Output("Catalog", "GlueJob", "Job that aggregates published bars and loads the warehouse")
VISUAL_JOB = Output("Catalog", "VisualJob", "Visual job for Glue Studio; it writes only the sandbox")
GLUE_DATABASE = Output("Catalog", "GlueDatabase", "Glue database of the archive's and the warehouse's tables")
LAKE_CRAWLER = Output("Catalog", "LakeCrawler", "Crawler that adds new months and symbols of the archive")
WAREHOUSE_CRAWLER = Output("Catalog", "WarehouseCrawler", "Crawler that adds the warehouse's tables")
ATHENA_WORKGROUP = Output("Catalog", "AthenaWorkgroup", "Workgroup for queries of the archive, with a limit of bytes")
BARS_RULESET = Output("Catalog", "BarsRuleset", "Data quality ruleset for the archive's bars")

HOST_ID = Output("Orchestration", "HostId", "Instance that runs Airflow, for Session Manager")
HOST_LOG = Output("Orchestration", "HostLog", "Log group of the host: its setup, its system and Airflow")
BALANCER_NAME = Output(
    "Orchestration", "BalancerName", "Name for the DNS records of the pages; only with a load balancer"
)
RUNTIME_CONTRACT = Output("Orchestration", "RuntimeContract", "SSM parameter of the runtime contract")

OPERATIONS_TOPIC = Output("Observability", "OperationsTopic", "Topic of alarms, for Slack and the e-mail addresses")
UNPOSTED_QUEUE = Output("Observability", "UnpostedMessagesQueue", "Queue of the messages that Slack did not accept")
BUSINESS_DASHBOARD = Output("Observability", "BusinessDashboard", "Dashboard of bars, freshness, loads and costs")
TECHNICAL_DASHBOARD = Output(
    "Observability", "TechnicalDashboard", "Dashboard of functions, queues, jobs, database and host"
)

OUTPUTS: tuple[Output, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Output))
