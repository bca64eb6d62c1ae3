"""Which contract do tests of tasks work with? One of the right form whose names are made up."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel

from barflow.contract import RuntimeContract, secret_reference

KNOWN: dict[str, Any] = {
    "env": "dev",
    "region": "us-east-1",
    "symbols": ("AAPL", "MSFT"),
    "twelvedata_api_key": secret_reference("barflow/dev/twelvedata"),
    "mongodb_uri": secret_reference("barflow/dev/mongodb"),
    "warehouse_dsn": secret_reference("barflow/dev/loader#dsn"),
    "lake_uri": "s3://lake",
    "slack_token": secret_reference("barflow/dev/slack"),
    "slack_channel": "#barflow",
    "sns_topic_arn": "arn:aws:sns:us-east-1:123456789012:alerts",
    "log_uri": "s3://logs/emr/",
    "runner": "lambda",
    "release": "emr-7.9.0",
    "tags": {"barflow:env": "dev"},
    "primary_instance": "m6g.xlarge",
    "core_instance": "m6g.xlarge",
    "staging_days": 90,
}
BY_KIND: dict[Any, Any] = {int: 10, float: 1.5, str: "name"}


def made_up_contract() -> RuntimeContract:
    """Every field that has no value above has one of its kind."""
    return RuntimeContract.model_validate(_made_up(RuntimeContract))


def _made_up(model: type[BaseModel]) -> dict[str, Any]:
    return {name: _value(name, field.annotation) for name, field in model.model_fields.items()}


def _value(name: str, kind: Any) -> Any:
    if name in KNOWN:
        return KNOWN[name]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _made_up(kind)
    if get_origin(kind) is tuple:
        return (f"{name}-1",)
    kinds = get_args(kind) or (kind,)
    return f"{name}-1" if kinds[0] is str else BY_KIND[kinds[0]]
