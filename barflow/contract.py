"""What a deployment tells its programs: one typed model, kept as JSON in the SSM parameter ``/barflow/ENV/runtime``.

The stacks write it; DAGs, functions and commands read it. So no resource's name is typed twice. It names secrets
and never holds one. Nothing of AWS is imported here: the stacks import this module while they are built.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from barflow.errors import BadInputError


class Section(BaseModel):
    """Unknown and missing fields are errors, so writer and reader cannot drift apart. CDK writes no null: what may be
    None may be missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PipelineSettings(Section):
    """The fields of barflow.settings.Settings that a deployment decides. Secrets are references, not values."""

    env: str
    symbols: tuple[str, ...]
    twelvedata_url: str
    twelvedata_api_key: str
    credits_per_minute: int
    credits_per_day: int | None = None
    mongodb_uri: str
    warehouse_dsn: str
    lake_uri: str
    sns_topic_arn: str
    slack_token: str
    slack_channel: str
    history_sessions: int
    revision_sessions: int
    staging_days: int

    def environment(self) -> dict[str, str]:
        """As the variables that a program reads: BARFLOW_…, and TWELVEDATA_API_KEY."""
        values = {f"BARFLOW_{name.upper()}": value for name, value in self.model_dump().items()}
        values["TWELVEDATA_API_KEY"] = values.pop("BARFLOW_TWELVEDATA_API_KEY")
        values["BARFLOW_SYMBOLS"] = ",".join(self.symbols)
        values["BARFLOW_CREDITS_PER_DAY"] = "" if self.credits_per_day is None else self.credits_per_day
        return {name: str(value) for name, value in values.items()}


class Storage(Section):
    """Buckets by name, and where the published code of this deployment lies (``s3://…/``, ending in a slash)."""

    lake_bucket: str
    code_bucket: str
    logs_bucket: str
    code_uri: str


class Warehouse(Section):
    """The database server: its address and the names of its secrets (JSON: username, password, host, port, dbname)."""

    host: str
    port: int
    instance_id: str
    database: str
    admin_secret: str
    loader_secret: str
    reader_secret: str
    airflow_secret: str


class Ingestion(Section):
    """Who fetches: a function invoked by a schedule, or the host by Airflow. Never both."""

    runner: Literal["lambda", "host"]
    function_name: str | None = None
    dead_letter_queue_url: str | None = None


class Emr(Section):
    """All that creating the cluster of a process run takes, and its one step. ``hour_dollars`` is its list price."""

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
    """The catalog and the aggregating job. ``ruleset`` judges ``bars_table``; ``quality_role`` is who evaluates it."""

    job: str
    database: str
    bars_table: str
    ruleset: str
    quality_role: str
    lake_crawler: str
    warehouse_crawler: str
    connection: str
    athena_workgroup: str
    dpu_hour_dollars: float


class Airflow(Section):
    """What the host needs to run Airflow; secrets by name. ``process_schedule``: cron expressions in New York time."""

    connections_prefix: str
    fernet_secret: str
    jwt_secret: str
    login_secret: str
    process_schedule: tuple[str, ...]
    listen: str
    port: int


class Dashboard(Section):
    """The analysts' page on the host: the secret that holds its token, and the address and port that it listens on."""

    token_secret: str
    listen: str
    port: int


class RuntimeContract(Section):
    """One deployment, whole."""

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


def parameter_name(env: str) -> str:
    """The SSM parameter that holds the contract of an environment."""
    return f"/barflow/{env}/runtime"


def secret_reference(name: str) -> str:
    """A setting's value that barflow.secrets resolves to the secret's own when it is used."""
    return f"secretsmanager:{name}"


def parse(text: str) -> RuntimeContract:
    """The contract out of its JSON. Raises BadInputError naming the fields that do not fit."""
    try:
        return RuntimeContract.model_validate_json(text)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, item["loc"])) for item in error.errors()}))
        raise BadInputError(
            f"the runtime contract does not fit this version of barflow (fields: {fields}). "
            "Deploy the environment again, or run the version that deployed it."
        ) from None
