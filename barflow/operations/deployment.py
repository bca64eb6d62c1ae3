"""Deployments: read the runtime contract from SSM, and derive settings from it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from barflow.contract import RuntimeContract, parameter_name, parse
from barflow.errors import BadInputError, UnavailableError, aws_error_code
from barflow.pipeline.stores import Stores
from barflow.settings import Settings, load_settings


def read_contract(env: str) -> RuntimeContract:
    """Return the contract of an environment, with the caller's AWS profile or role.

    Raises BadInputError when the account and region have none, UnavailableError when the parameter cannot be read.
    """
    return parse(str(_parameter(env)["Value"]))


def deployed_at(env: str) -> datetime:
    """Return when a deployment last changed the contract (UTC). Raise as read_contract does."""
    changed: datetime = _parameter(env)["LastModifiedDate"]
    return changed


def _parameter(env: str) -> dict[str, Any]:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    name = parameter_name(env)
    try:
        found: dict[str, Any] = boto3.client("ssm").get_parameter(Name=name)["Parameter"]
    except (BotoCoreError, ClientError) as error:
        code = aws_error_code(error)
        if code == "ParameterNotFound":
            raise BadInputError(
                f"BARFLOW_ENV is {env} and this account and region have no {name}: deploy it with "
                f"`npx cdk deploy --all -c env={env}`, or select another account or region (AWS_PROFILE, AWS_REGION)"
            ) from None
        raise UnavailableError(
            f"BARFLOW_ENV is {env} and {name} cannot be read ({code}). Nothing was done. "
            "Check AWS_PROFILE and AWS_REGION, or set BARFLOW_ENV=local."
        ) from None
    return found


def open_stores(env: str) -> tuple[Stores, RuntimeContract | None]:
    """Return the stores of an environment and its contract.

    The environment ``local`` has no contract; its stores follow from the settings of this process. Raises
    as read_contract does.
    """
    if env == "local":
        return Stores(load_settings()), None
    contract = read_contract(env)
    return Stores(settings_of(contract), environment=contract.settings.environment()), contract


def settings_of(contract: RuntimeContract) -> Settings:
    """Return the settings that the deployment decides, and the rest from this process's environment variables.

    The warehouse's user may only read, see RuntimeContract.reader_settings.
    """
    return load_settings(**contract.reader_settings())
