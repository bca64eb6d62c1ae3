"""Runtime contract: the typed model through which a deployment describes itself to its programs.

The stacks write it as JSON to the SSM parameter ``/barflow/ENV/runtime``; DAGs, functions and commands read it. So no
resource name is typed twice. It contains the names of secrets, never their values. This module imports nothing of
AWS, because the stacks import it while they are synthesized.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from barflow.errors import BadInputError

# Settings whose environment variable is not BARFLOW_ and the field's name.
VARIABLES = {"twelvedata_api_key": "TWELVEDATA_API_KEY"}


class Section(BaseModel):
    """Base of every part of the contract. A missing field is an error.

    An unknown field is ignored: during a deployment the old host reads the new contract until the new host is up. CDK
    writes no null: a field that may be None has a default and may be missing.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


class PipelineSettings(Section):
    """The fields of barflow.settings.Settings that a deployment decides. Secrets are references, not values."""

    env: str
    symbols: tuple[str, ...]
    twelvedata_url: str
    twelvedata_api_key: str
    credits_per_minute: int
    credits_per_day: int | None = None
    tick_minutes: int = 5
    mongodb_uri: str
    warehouse_dsn: str
    lake_uri: str
    sns_topic_arn: str
    slack_token: str
    slack_channel: str
    slack_digest_above: int = 10
    apprise_url: str | None = None
    webhook_url: tuple[str, ...] = ()
    webhook_secret: str | None = None
    webhook_allow_private: bool = False
    history_sessions: int
    revision_sessions: int
    staging_days: int
    rejected_days: int = 365
    openlineage_url: str | None = None
    openlineage_api_key: str | None = None

    def environment(self) -> dict[str, str]:
        """Return the settings as environment variables: ``BARFLOW_…`` and ``TWELVEDATA_API_KEY``."""
        return environment_variables(self.model_dump())


class Storage(Section):
    """The names of the buckets, and the URI of this deployment's published code (``s3://…/``, with the last slash)."""

    code_bucket: str
    logs_bucket: str
    code_uri: str


class Warehouse(Section):
    """The database instance and the names of its users' secrets (JSON: username, password, host, port, dbname).

    Airflow's database has a field of its own, because RDS writes the name of the instance's database to each secret.
    """

    instance_id: str
    reader_secret: str
    airflow_secret: str
    airflow_database: str
    max_storage_gb: int = 100


class Ingestion(Section):
    """The runner of ticks: a function on its own schedule, or the host by Airflow. Never both."""

    runner: Literal["lambda", "host"]
    function_name: str | None = None


class Emr(Section):
    """All that a process run needs to create its cluster and to add its step. ``hour_dollars`` is the list price."""

    release: str
    service_role: str
    instance_profile: str
    subnet_ids: tuple[str, ...]
    primary_security_group: str
    core_security_group: str
    service_security_group: str
    security_configuration: str
    log_uri: str
    bootstrap_uri: str
    packages_uri: str
    step_uri: str
    library_uri: str
    primary_instance: str
    core_instance: str
    core_count: int
    task_count: int
    spot_percent: int
    volume_gb: int
    idle_minutes: int
    step_timeout_minutes: int
    spark_python: str
    tags: dict[str, str]
    hour_dollars: float


class Glue(Section):
    """The catalog, the crawlers, the aggregating job, the data quality rules and Athena.

    ``workflow`` starts the job. ``jdbc_driver`` is the URI of the driver of the warehouse's crawler,
    ``dpu_hour_dollars`` the list price.
    """

    job: str
    workflow: str
    database: str
    bars_table: str
    lake_crawler: str
    warehouse_crawler: str
    jdbc_driver: str
    jdbc_driver_sha256: str
    ruleset: str
    evaluation_role: str
    evaluation_workers: int
    athena_workgroup: str
    dpu_hour_dollars: float
    worker_type: str = "G.1X"
    max_workers: int = 2
    timeout_minutes: int = 60


class Airflow(Section):
    """Airflow on the host; secrets by name. The schedules are cron expressions in New York time.

    With ``users_secret``, Airflow has users of its own instead of one; the secret is JSON: their passwords and roles.
    Behind a load balancer, ``url`` is the public URL (``https://NAME``) and ``proxies`` are the balancer's networks.
    """

    connections_prefix: str
    fernet_secret: str
    jwt_secret: str
    login_secret: str
    process_schedule: tuple[str, ...]
    quality_schedule: tuple[str, ...]
    listen: str
    port: int
    users_secret: str | None = None
    url: str | None = None
    proxies: tuple[str, ...] | None = None


class Dashboard(Section):
    """The analysts' page on the host: the secret of its token, and the address and port on which it listens.

    Behind a load balancer, ``url`` is the public URL (``https://NAME``) and ``proxies`` are the balancer's networks.
    """

    token_secret: str
    listen: str
    port: int
    url: str | None = None
    proxies: tuple[str, ...] | None = None


class RuntimeContract(Section):
    """The contract of one deployment."""

    env: str
    region: str
    settings: PipelineSettings
    storage: Storage
    warehouse: Warehouse
    ingestion: Ingestion
    emr: Emr
    glue: Glue
    airflow: Airflow
    dashboard: Dashboard

    def reader_settings(self) -> dict[str, Any]:
        """Return the settings of programs that only read the warehouse, by field of barflow.settings.Settings.

        The commands, the page and Airflow's tasks use them: the host may not load the warehouse, the Glue job does.
        """
        return self.settings.model_dump() | {
            "warehouse_dsn": secret_reference(f"{self.warehouse.reader_secret}#dsn"),
            "athena_database": self.glue.database,
            "athena_workgroup": self.glue.athena_workgroup,
        }


def environment_variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as the environment variables that barflow.settings reads.

    ``{"symbols": ("AAPL", "MSFT")}`` becomes ``{"BARFLOW_SYMBOLS": "AAPL,MSFT"}``; None becomes an empty value.
    """

    def as_text(value: object) -> str:
        if value is None:
            return ""
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return {VARIABLES.get(name, f"BARFLOW_{name.upper()}"): as_text(value) for name, value in settings.items()}


def parameter_name(env: str) -> str:
    """Return the name of the SSM parameter that contains the contract of an environment."""
    return f"/barflow/{env}/runtime"


def host_parameter_name(env: str) -> str:
    """Return the name of the SSM parameter that contains the instance id of an environment's host."""
    return f"/barflow/{env}/host"


def secret_reference(name: str) -> str:
    """Return the value of a setting that barflow.secrets replaces with the secret's own value on use."""
    return f"secretsmanager:{name}"


def parse(text: str) -> RuntimeContract:
    """Parse the JSON of a contract. Raise BadInputError that names the fields that do not fit."""
    try:
        return RuntimeContract.model_validate_json(text)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, item["loc"])) for item in error.errors()}))
        raise BadInputError(
            f"the runtime contract does not fit this version of barflow (fields: {fields}). "
            "Deploy the environment again, or run the version that deployed it."
        ) from None
