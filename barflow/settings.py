"""Settings of every command and program: the environment variables ``BARFLOW_…`` and ``TWELVEDATA_API_KEY``.

A secret setting contains the value itself or a reference, ``secretsmanager:NAME`` (or ``secretsmanager:NAME#KEY`` for
one key of a JSON secret), which barflow.secrets resolves on use.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from barflow.errors import BadInputError
from barflow.symbol import parse_symbols
from barflow.text import clean

# A name that every MongoDB server takes: at most 63 bytes, without the characters that separate or quote names.
DATABASE_NAME = re.compile(r"""[^\s/\\."$*<>:|?]{1,63}""")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
DEFAULT_SYMBOLS = ("AAPL", "GOOGL", "TSLA", "MSFT", "NVDA")
# By how much a session may differ from the vendor's daily bar, unless a setting says otherwise. Two vendors' bars of
# July 2025 differ by at most 38 basis points in 76 sessions. Auctions and late trades change the volume.
MOST_BPS, MOST_VOLUME_PCT = 50.0, 50.0
# No user, query or fragment: they would hold a credential, and an address is no secret.
WEBHOOK_URL = re.compile(r"https://([a-z0-9]([a-z0-9.-]*[a-z0-9])?)(:[0-9]{1,5})?(/[\w.~!$&()*+;=:@%/-]*)?", re.ASCII)
MOST_WEBHOOKS = 5
# A channel's name, if there is one, and the service of a URL. The rest of the URL is a secret.
APPRISE_URL = re.compile(r"(?:([a-z][a-z0-9_]{0,31})=)?([a-z][a-z0-9]{1,31}):\S+", re.ASCII)
MOST_APPRISE_URLS = 10
PAGE_URL = re.compile(r"https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?/?", re.IGNORECASE)


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

    tick_minutes: int = Field(
        5, ge=1, description="minutes between the ticks of a session; other requests leave these ticks their credits"
    )

    actions_source: Literal["auto", "endpoint", "derived", "none"] = Field(
        "auto",
        description="where splits and dividends come from: endpoint (plans from Grow up), derived (splits from daily "
        "bars), auto (the endpoint if the plan has it, else derived) or none",
    )
    vendor_day_bps: float = Field(
        MOST_BPS, gt=0, description="basis points by which a price of a session may differ from Twelve Data's daily bar"
    )
    vendor_day_volume_pct: float = Field(
        MOST_VOLUME_PCT,
        gt=0,
        description="per cent by which the volume of a session may differ from Twelve Data's daily bar",
    )

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
    rejected_days: int = Field(365, ge=30, description="days that a rejected bar stays after it was last received")
    alerts_file: Path | None = Field(None, description="the alert rules; empty: the rules in the package")
    instruments_file: Path | None = Field(
        None, description="renames and listings of shares; empty: the file in the package"
    )
    sns_topic_arn: str | None = Field(None, description="the SNS topic that receives alerts")
    slack_webhook: SecretStr | None = Field(None, description="a Slack webhook that receives alerts and reports")
    slack_token: SecretStr | None = Field(None, description="a Slack bot token; set the Slack channel, too")
    slack_channel: str | None = Field(None, description="the Slack channel that the bot posts to")
    slack_url: str = Field("https://slack.com/api/", description="the Slack API")
    slack_digest_above: int = Field(
        10,
        ge=0,
        description="alerts of a tick that Slack, and each service of apprise, shows one by one; more are one digest",
    )
    apprise_url: SecretStr | None = Field(
        None,
        description="URLs of apprise, for people who receive alerts elsewhere than in Slack, separated by spaces, such "
        f"as team=discord://…; at most {MOST_APPRISE_URLS}",
    )
    webhook_url: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description=f"https addresses that receive alerts, separated by commas, at most {MOST_WEBHOOKS}"
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="the secret that signs webhooks, whsec_…; two of them, separated by a comma, while you renew it",
    )
    webhook_allow_private: bool = Field(
        False, description="true: also send webhooks to private and loopback addresses; never to link-local ones"
    )
    dashboard_token: SecretStr | None = Field(
        None,
        description="the token with which visitors sign in to the page; required on an address other than loopback",
    )
    page_url: str | None = Field(
        None,
        description="the URL at which visitors open the page, such as https://bars.example.com; it has no path. "
        "Requests for other host names are rejected. With https, set the proxies, too",
    )
    page_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="addresses or networks of the proxies in front of the page, separated by commas, such as "
        "10.20.0.0/26; the page uses forwarded headers from them only",
    )
    openlineage_url: str | None = Field(
        None,
        description="the OpenLineage backend that receives the lineage of each run, such as "
        "https://lineage.example.com, or a file such as file:lineage.jsonl; empty: no lineage",
    )
    openlineage_api_key: SecretStr | None = Field(
        None, description="the API key of the OpenLineage backend; sent only in a header"
    )
    lease_seconds: float = Field(30, gt=0, description="seconds until the lock of a dead run expires")

    @property
    def vendor_day_thresholds(self) -> tuple[float, float]:
        """Return by how much a session may differ from the vendor's daily bar: basis points, and per cent of volume."""
        return self.vendor_day_bps, self.vendor_day_volume_pct

    @property
    def apprise_urls(self) -> dict[str, SecretStr]:
        """Return the URLs of apprise, or references to them, by name: the one that they were given, or the service."""
        text = self.apprise_url.get_secret_value() if self.apprise_url else ""
        return {name: SecretStr(url) for name, url in _apprise_urls(text)}

    def require(self, name: str) -> str:
        """Return a setting that the command needs. Raise BadInputError when it is not set."""
        value = getattr(self, name)
        if not value:
            raise BadInputError(f"BARFLOW_{name.upper()} is not set. Export it, or pass --state to use a state folder.")
        return str(value)

    @field_validator("*", mode="before")
    @classmethod
    def _clean(cls, value: Any, info: ValidationInfo) -> Any:
        """Clean every text. An empty one means that the setting is not set; an empty daily limit means no limit."""
        if info.field_name == "symbols":
            return parse_symbols(clean(value) if isinstance(value, str) else ",".join(map(str, value)))
        secret = isinstance(value, SecretStr)
        text = value.get_secret_value() if secret else value
        if not isinstance(text, str):
            return value
        text = clean(text)
        if not text:
            return None if info.field_name == "credits_per_day" else cls.model_fields[str(info.field_name)].default
        return SecretStr(text) if secret else text

    @field_validator("twelvedata_url", "slack_url", "slack_webhook")
    @classmethod
    def _encrypted(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        address = urlsplit(value.get_secret_value() if isinstance(value, SecretStr) else value or "")
        if address.scheme == "http" and address.hostname not in LOOPBACK:
            raise ValueError("must be an https address, because it carries a secret; http is for this machine only")
        return value

    @field_validator("webhook_url", mode="before")
    @classmethod
    def _webhooks(cls, value: object) -> object:
        given = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(given, list | tuple) or not all(isinstance(item, str) for item in given):
            return given
        if not all((found := WEBHOOK_URL.fullmatch(item)) and _is_port(found[3]) for item in given):
            raise ValueError(
                "must be https:// addresses with a host name in lower case and a path, such as "
                "https://bot.example.com/alerts, separated by commas; without user, query or fragment"
            )
        if len(given) > MOST_WEBHOOKS or len(given) > len(set(given)):
            raise ValueError(f"must be at most {MOST_WEBHOOKS} addresses, each once")
        return tuple(given)

    @field_validator("apprise_url")
    @classmethod
    def _are_apprise_urls(cls, value: SecretStr | None) -> SecretStr | None:
        names = [name for name, _ in _apprise_urls(value.get_secret_value() if value else "")]
        if len(names) > MOST_APPRISE_URLS or len(names) > len(set(names)):
            raise ValueError(
                f"must be at most {MOST_APPRISE_URLS} URLs, each with a name of its own, such as team=discord://…"
            )
        return value

    @field_validator("page_url")
    @classmethod
    def _origin(cls, value: str | None) -> str | None:
        if value is not None and not PAGE_URL.fullmatch(value):
            raise ValueError("must be http:// or https:// and a host name, such as https://bars.example.com")
        return value and value.rstrip("/").lower()

    @field_validator("page_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        given = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        try:
            networks = [ip_network(item) for item in given]  # type: ignore[attr-defined]
        except ValueError:
            raise ValueError("must be addresses or networks such as 10.20.0.0/26, separated by commas") from None
        if any(network.prefixlen < 8 for network in networks):
            raise ValueError("must be networks of /8 or narrower: programs in them can forge a visitor's address")
        return tuple(map(str, networks))

    @field_validator("openlineage_url")
    @classmethod
    def _backend_or_file(cls, value: str | None) -> str | None:
        """Return the URL with a slash at its end, which names a folder, or the absolute path of the file."""
        if value is None:
            return None
        try:
            address = urlsplit(value)
            has_port = address.port != 0
        except ValueError:  # for an address or a port that is none
            address, has_port = urlsplit(""), False
        if address.scheme in ("http", "https"):
            safe = address.scheme == "https" or address.hostname in LOOPBACK
            if address.hostname and safe and has_port and not (address.username or address.query or address.fragment):
                return value.rstrip("/") + "/"
        elif address.path and not address.netloc and address.scheme in ("file", ""):
            return str(Path(str(cls._expand_home(address.path))).absolute())
        raise ValueError(
            "must be https:// and a host without a user, or a file such as file:lineage.jsonl; http is for this machine"
        )

    @field_validator("mongodb_database")
    @classmethod
    def _is_database_name(cls, value: str) -> str:
        if not DATABASE_NAME.fullmatch(value) or len(value.encode()) > 63:
            raise ValueError('must be a database name: 1 to 63 bytes without spaces and / \\ . " $ * < > : | ?')
        return value

    @field_validator("lake_uri", "alerts_file", "instruments_file")
    @classmethod
    def _expand_home(cls, value: str | Path | None) -> str | Path | None:
        """Replace ``~``, as a shell does: it leaves one in a quoted value or an env file alone."""
        if value is None or not str(value).startswith("~"):
            return value
        try:
            return type(value)(Path(value).expanduser())
        except RuntimeError:
            raise ValueError("must be a path; the home folder at its start does not exist") from None

    @field_validator("lake_uri")
    @classmethod
    def _is_lake(cls, value: str | None) -> str | None:
        # Not s3://KEY:SECRET@bucket either, because the URI is logged and is an argument of programs.
        if value and (re.match(r"s3a?:(?!//[^/@]+(/|$))", value) or re.match(r"(?!s3a?:|file:)\w+://", value)):
            raise ValueError("must be a folder or s3://bucket/prefix")
        return value


def _apprise_urls(text: str) -> list[tuple[str, str]]:
    """Return the name and the URL of each part of a text. Raise ValueError, without the text, for another form."""
    found = [(part, APPRISE_URL.fullmatch(part)) for part in text.split()]
    if not all(match for _, match in found):
        raise ValueError(
            "must be URLs of apprise or references to them, separated by spaces, each with or without a name of lower "
            "case letters, digits and _, such as team=discord://…"
        )
    return [(match[1] or match[2], part[match.start(2) :]) for part, match in found if match]


def _is_port(text: str | None) -> bool:
    return text is None or 0 < int(text[1:]) < 65536


def load_settings(**overrides: object) -> Settings:
    """Return the settings of this process. Raise BadInputError that names each wrong setting, never its value."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            f"{variable_of(str(problem['loc'][0]))} {_must(problem['msg'])}" for problem in error.errors()
        )
        raise BadInputError(f"settings are wrong: {problems}") from None


def variable_of(name: str) -> str:
    """Return the environment variable of a setting, named as its field or its alias."""
    field = Settings.model_fields.get(name)
    alias = field.validation_alias if field else name
    return str(alias) if alias else f"BARFLOW_{name.upper()}"


def _must(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should be", "must be")
