"""Settings of every command and program: the environment variables ``BARFLOW_…`` and ``TWELVEDATA_API_KEY``.

A secret setting contains the value itself or a reference, ``secretsmanager:NAME`` (or ``secretsmanager:NAME#KEY`` for
one key of a JSON secret), which barflow.secrets resolves on use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from barflow.errors import BadInputError

DEFAULT_SYMBOLS = ("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA")


class Settings(BaseSettings):
    """The settings of the hops. A constructor argument takes precedence over the environment variable."""

    model_config = SettingsConfigDict(env_prefix="BARFLOW_", extra="ignore", frozen=True, populate_by_name=True)

    env: str = Field("local", description="name of the environment: local, dev, staging, prod")
    symbols: Annotated[tuple[str, ...], NoDecode] = DEFAULT_SYMBOLS

    twelvedata_url: str = "https://api.twelvedata.com"
    twelvedata_api_key: SecretStr | None = Field(None, validation_alias="TWELVEDATA_API_KEY")
    credits_per_minute: int = Field(8, ge=1, description="API credits per minute of the plan; Basic has 8")
    credits_per_day: int | None = Field(800, ge=1, description="API credits per day of the plan; empty: no daily limit")
    batch_size: int = Field(8, ge=1, le=120, description="symbols per request; never more than the credits per minute")

    mongodb_uri: SecretStr | None = None
    mongodb_database: str = "barflow"
    warehouse_dsn: SecretStr | None = None
    lake_uri: str | None = Field(None, description="root of the archive: a folder or s3://bucket/prefix")
    athena_database: str | None = Field(None, description="Glue database of an archive on S3")
    athena_workgroup: str | None = Field(None, description="Athena workgroup for that archive; set both or neither")

    history_sessions: int = Field(20, ge=1, description="sessions that the first run of a symbol fetches")
    revision_sessions: int = Field(2, ge=1, description="sessions that each tick fetches again, to find corrections")
    staging_days: int = Field(90, ge=30, description="minimum days that a loaded session stays in MongoDB")
    alerts_file: Path | None = Field(None, description="TOML file of alert rules; empty: the built-in rules")
    sns_topic_arn: str | None = Field(None, description="SNS topic of alerts")
    slack_webhook: SecretStr | None = None
    slack_token: SecretStr | None = Field(None, description="token of a Slack bot; slack_channel names the channel")
    slack_channel: str | None = None
    slack_url: str = "https://slack.com/api/"
    dashboard_token: SecretStr | None = Field(None, description="token for reading the page from another host")
    lease_seconds: float = Field(30, gt=0, description="how long the lock of a dead run stays valid")

    def require(self, name: str) -> str:
        """Return a setting that the command needs. Raise BadInputError when it is not set."""
        value = getattr(self, name)
        if not value:
            raise BadInputError(f"BARFLOW_{name.upper()} is not set. Export it, or pass --state to use a state folder.")
        return str(value)

    @field_validator("symbols", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return parse_symbols(value) if isinstance(value, str) else value

    @field_validator("credits_per_day", "alerts_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value


def load_settings(**overrides: object) -> Settings:
    """Return the settings of this process. Raise BadInputError that names each wrong setting, never its value."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            f"{'BARFLOW_' + str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in error.errors()
        )
        raise BadInputError(f"settings are wrong: {problems}") from None


def parse_symbols(text: str) -> tuple[str, ...]:
    """Return the symbols of a comma-separated text: upper case, in order, without duplicates.

    ``"aapl, MSFT"`` gives ``("AAPL", "MSFT")``. Raises BadInputError for an empty list or an invalid symbol.
    """
    symbols = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    if not symbols:
        raise BadInputError(
            "no symbols given: name at least one, such as --symbols AAPL,MSFT or BARFLOW_SYMBOLS=AAPL,MSFT"
        )
    for symbol in symbols:
        if not all(char.isalnum() or char in ".-:/" for char in symbol) or len(symbol) > 24:
            raise BadInputError(f"{symbol!r} is not a symbol: use letters, digits and . - : /, such as AAPL or BRK.B")
    return symbols
