"""Settings of every command and program: the environment variables ``BARFLOW_…`` and ``TWELVEDATA_API_KEY``.

A secret setting contains the value itself or a reference, ``secretsmanager:NAME`` (or ``secretsmanager:NAME#KEY`` for
one key of a JSON secret), which barflow.secrets resolves on use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from barflow.errors import BadInputError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
DEFAULT_SYMBOLS = ("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA")


class Settings(BaseSettings):
    """The settings of the hops. A constructor argument takes precedence over the environment variable."""

    model_config = SettingsConfigDict(env_prefix="BARFLOW_", extra="ignore", frozen=True, populate_by_name=True)

    env: str = Field("local", description="the environment: local, dev, staging or prod")
    symbols: Annotated[tuple[str, ...], NoDecode] = Field(DEFAULT_SYMBOLS, description="symbols, separated by commas")

    twelvedata_url: str = Field("https://api.twelvedata.com", description="the Twelve Data API")
    twelvedata_api_key: SecretStr | None = Field(
        None, validation_alias="TWELVEDATA_API_KEY", description="the Twelve Data API key; sent only in a header"
    )
    credits_per_minute: int = Field(8, ge=1, description="API credits per minute of the plan; the Basic plan has 8")
    credits_per_day: int | None = Field(800, ge=1, description="API credits per day of the plan; empty: no daily limit")
    batch_size: int = Field(8, ge=1, le=120, description="symbols per request, at most the credits per minute")

    mongodb_uri: SecretStr | None = Field(None, description="the MongoDB server")
    mongodb_database: str = Field("barflow", description="the database in MongoDB")
    warehouse_dsn: SecretStr | None = Field(None, description="the PostgreSQL database of the warehouse")
    lake_uri: str | None = Field(None, description="the Parquet archive: a folder, or s3://bucket/prefix")
    athena_database: str | None = Field(None, description="the Glue database of an archive on S3")
    athena_workgroup: str | None = Field(
        None, description="the Athena workgroup that counts the archive; set it together with the database"
    )

    history_sessions: int = Field(20, ge=1, description="sessions that the first tick of a symbol fetches")
    revision_sessions: int = Field(2, ge=1, description="sessions that each tick fetches again, to find corrections")
    staging_days: int = Field(90, ge=30, description="days that a loaded session stays in MongoDB, at least")
    alerts_file: Path | None = Field(None, description="the alert rules; empty: the rules in the package")
    sns_topic_arn: str | None = Field(None, description="the SNS topic that receives alerts")
    slack_webhook: SecretStr | None = Field(None, description="a Slack webhook that receives alerts and reports")
    slack_token: SecretStr | None = Field(None, description="a Slack bot token; set the Slack channel, too")
    slack_channel: str | None = Field(None, description="the Slack channel that the bot posts to")
    slack_url: str = Field("https://slack.com/api/", description="the Slack API")
    dashboard_token: SecretStr | None = Field(
        None,
        description="the token with which visitors sign in to the page; required on an address other than loopback",
    )
    lease_seconds: float = Field(30, gt=0, description="seconds until the lock of a dead run expires")

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

    @field_validator("twelvedata_url", "slack_url", "slack_webhook")
    @classmethod
    def _encrypted(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        address = urlsplit(value.get_secret_value() if isinstance(value, SecretStr) else value or "")
        if address.scheme == "http" and address.hostname not in LOOPBACK:
            raise ValueError("must be an https address, because it carries a secret; http is for this machine only")
        return value

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
