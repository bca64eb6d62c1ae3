"""The settings of every command and program: environment variables ``BARFLOW_…``, and the vendor's key.

A secret setting may hold the value itself or a reference, ``secretsmanager:NAME`` (or ``…NAME#KEY`` for one
key of a JSON secret), which barflow.secrets resolves when it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from barflow.errors import BadInputError

DEFAULT_SYMBOLS = ("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA")


class Settings(BaseSettings):
    """What the hops need to know. Constructor arguments win over the environment."""

    model_config = SettingsConfigDict(env_prefix="BARFLOW_", extra="ignore", frozen=True, populate_by_name=True)

    env: str = Field("local", description="the environment's name: local, dev, staging, prod")
    symbols: Annotated[tuple[str, ...], NoDecode] = DEFAULT_SYMBOLS

    twelvedata_url: str = "https://api.twelvedata.com"
    twelvedata_api_key: SecretStr | None = Field(None, validation_alias="TWELVEDATA_API_KEY")
    credits_per_minute: int = Field(8, ge=1, description="the plan's API credits a minute; Basic has 8")
    credits_per_day: int | None = Field(800, ge=1, description="the plan's credits a day; empty = no daily cap")
    batch_size: int = Field(8, ge=1, le=120, description="symbols in one request; never above the minute's credits")

    mongodb_uri: SecretStr | None = None
    mongodb_database: str = "barflow"
    warehouse_dsn: SecretStr | None = None
    lake_uri: str | None = Field(None, description="a folder or s3://bucket/prefix")
    athena_database: str | None = Field(None, description="the catalog's database of an archive on S3")
    athena_workgroup: str | None = Field(None, description="by which that archive is counted; both or neither")

    history_sessions: int = Field(20, ge=1, description="sessions that the first run of a symbol takes")
    revision_sessions: int = Field(2, ge=1, description="sessions that each tick takes again, to catch corrections")
    staging_days: int = Field(90, ge=30, description="days that a loaded session stays in MongoDB, at least")
    alerts_file: Path | None = Field(None, description="the rules of alerts; empty = those shipped")
    sns_topic_arn: str | None = Field(None, description="the topic that alerts go to")
    slack_webhook: SecretStr | None = None
    slack_token: SecretStr | None = Field(None, description="a bot's token; then slack_channel says where to")
    slack_channel: str | None = None
    slack_url: str = "https://slack.com/api/"
    dashboard_token: SecretStr | None = Field(None, description="who knows it may read the page from elsewhere")
    lease_seconds: float = Field(30, gt=0, description="how long a dead run keeps its lock on a hop")

    def require(self, name: str) -> str:
        """A setting that this command cannot do without. Raises BadInputError when it is not there."""
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
    """The settings of this process. Raises BadInputError naming each setting that is wrong, never its value."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            f"{'BARFLOW_' + str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in error.errors()
        )
        raise BadInputError(f"settings are wrong: {problems}") from None


def parse_symbols(text: str) -> tuple[str, ...]:
    """``"aapl, MSFT"`` → ``("AAPL", "MSFT")``: upper case, in order, each once. Raises BadInputError."""
    symbols = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    if not symbols:
        raise BadInputError(
            "no symbols given: name at least one, such as --symbols AAPL,MSFT or BARFLOW_SYMBOLS=AAPL,MSFT"
        )
    for symbol in symbols:
        if not all(char.isalnum() or char in ".-:/" for char in symbol) or len(symbol) > 24:
            raise BadInputError(f"{symbol!r} is not a symbol: letters, digits and . - : / only, such as AAPL or BRK.B")
    return symbols
