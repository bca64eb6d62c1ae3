"""What a deployment tells: its runtime contract out of the SSM parameter, and the settings that follow from it."""

from __future__ import annotations

from barflow.contract import RuntimeContract, parameter_name, parse, secret_reference
from barflow.errors import BadInputError, UnavailableError
from barflow.pipeline.stores import Stores
from barflow.settings import Settings, load_settings


def read_contract(env: str) -> RuntimeContract:
    """The contract of an environment, by the caller's AWS profile or role.

    Raises BadInputError when there is none, UnavailableError when AWS cannot be asked.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    name = parameter_name(env)
    try:
        found = boto3.client("ssm").get_parameter(Name=name)
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        if code == "ParameterNotFound":
            raise BadInputError(
                f"BARFLOW_ENV is {env} and this account and region have no {name}: deploy it with "
                f"`npx cdk deploy --all -c env={env}`, or choose account and region (AWS_PROFILE, AWS_REGION)"
            ) from None
        raise UnavailableError(
            f"BARFLOW_ENV is {env} and {name} cannot be read ({code}). Nothing was done. "
            "Check AWS_PROFILE and AWS_REGION, or set BARFLOW_ENV=local."
        ) from None
    return parse(str(found["Parameter"]["Value"]))


def open_stores(env: str) -> tuple[Stores, RuntimeContract | None]:
    """What runs an environment's hops, and its contract; a local one has none, and the process's own settings.

    Raises as read_contract does.
    """
    if env == "local":
        return Stores(load_settings()), None
    contract = read_contract(env)
    return Stores(settings_of(contract), environment=contract.settings.environment()), contract


def settings_of(contract: RuntimeContract) -> Settings:
    """The settings that a deployment decides; the process's own environment decides the others.

    The warehouse is that of the user who may only read: the Glue job loads it, and the host may not.
    """
    athena = {"athena_database": contract.glue.database, "athena_workgroup": contract.glue.athena_workgroup}
    reader = {"warehouse_dsn": secret_reference(f"{contract.warehouse.reader_secret}#dsn")}
    return load_settings(**contract.settings.model_dump() | athena | reader)
