"""A deployed environment as its checks see it: the contract, the stacks' outputs, and clients of the caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from barflow.contract import RuntimeContract
from barflow.errors import BadInputError, BarflowError, UnavailableError, aws_error_code
from barflow.market.sessions import utc_now
from barflow.operations.checks import missing_permission
from barflow.operations.deployment import read_contract
from barflow.operations.polling import POLL_SECONDS
from barflow.progress import Log

PARTS = ("Secrets", "Database", "Alerts", "Orchestration", "Observability")
# States of a command on the host that has not ended.
RUNNING = {"Pending", "InProgress", "Delayed", "Cancelling"}
DELIVERY_SECONDS = 120
LAMBDA_SECONDS = 15 * 60 + 10  # the longest run of a function, and its answer


class NotAsExpectedError(BarflowError):
    """A check that fails: what it found, and what to do."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.fix = fix


@dataclass
class Deployed:
    """The environment that is verified. ``poll`` is the number of seconds between two requests for a state.

    ``session`` is the session date to compare (ISO), or None for the newest; ``started`` is when the checks began.
    """

    env: str
    contract: RuntimeContract
    outputs: dict[str, dict[str, str]]
    deployed_at: datetime
    make_client: Callable[[str], Any]
    log: Log
    session: str | None = None
    sleep: Callable[[float], None] = time.sleep
    poll: float = min(POLL_SECONDS, 5)
    started: datetime = field(default_factory=utc_now)
    _clients: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, env: str, log: Log, session: str | None = None) -> Deployed:
        """Return an environment of the caller's account and region.

        Raises BadInputError if it is not deployed, UnavailableError if AWS does not answer.
        """
        import boto3
        from botocore.config import Config

        contract = read_contract(env)
        # A tick answers when it is done. If the call timed out before, botocore would run it again.
        patient = Config(read_timeout=LAMBDA_SECONDS)
        clients = boto3.Session(region_name=contract.region)
        cloudformation = clients.client("cloudformation")
        outputs, deployed_at = {}, utc_now()
        for part in PARTS:
            with aws_errors(f"the stack Barflow-{env}-{part}"):
                (stack,) = cloudformation.describe_stacks(StackName=f"Barflow-{env}-{part}")["Stacks"]
            outputs[part] = {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", ())}
            deployed_at = min(deployed_at, stack["CreationTime"])
        return cls(
            env, contract, outputs, deployed_at, lambda service: clients.client(service, config=patient), log, session
        )

    def client(self, service: str) -> Any:
        """Return the client of a service, one per service."""
        if service not in self._clients:
            self._clients[service] = self.make_client(service)
        return self._clients[service]

    def output(self, part: str, key: str) -> str:
        """Return an output of a stack. Raise BadInputError if another version of the stack is deployed, without it."""
        try:
            return self.outputs[part][key]
        except KeyError:
            raise BadInputError(
                f"Barflow-{self.env}-{part} has no output {key}. Deploy the environment again with this version."
            ) from None

    def wait_for(self, look: Callable[[], Any], seconds: float) -> Any:
        """Return the first true value that ``look`` returns, or its last one after so many seconds."""
        deadline = time.monotonic() + seconds
        while not (found := look()) and time.monotonic() < deadline:
            self.sleep(self.poll)
        return found

    def run_on_host(self, command: str, minutes: int = 15) -> tuple[int, str, str]:
        """Run a shell command on Airflow's host through Session Manager. Return its exit code, stdout and stderr.

        AWS returns at most 24 000 characters. The command is cancelled if this process stops or waits too long. Raises
        NotAsExpectedError if the host does not run it.
        """
        ssm, host = self.client("ssm"), self.output("Orchestration", "HostId")
        sent = ssm.send_command(
            DocumentName="AWS-RunShellScript",
            InstanceIds=[host],
            TimeoutSeconds=DELIVERY_SECONDS,
            Parameters={
                "commands": [f"PATH=/usr/local/bin:$PATH {command}"],
                "executionTimeout": [str(60 * minutes)],
            },
        )
        command_id = sent["Command"]["CommandId"]

        def ended() -> Any:
            try:
                found = ssm.get_command_invocation(CommandId=command_id, InstanceId=host)
            except ssm.exceptions.InvocationDoesNotExist:  # right after the command was sent
                return None
            return None if found["Status"] in RUNNING else found

        found = None
        try:
            found = self.wait_for(ended, DELIVERY_SECONDS + 60 * minutes)
        finally:
            if found is None:
                ssm.cancel_command(CommandId=command_id)
        if found is None or found["ResponseCode"] < 0:
            state = found["StatusDetails"] if found else "still running"
            raise NotAsExpectedError(
                f"the host {host} did not run `{command}`: {state}",
                f"aws ssm describe-instance-information --filters Key=InstanceIds,Values={host}",
            )
        return found["ResponseCode"], found["StandardOutputContent"], found["StandardErrorContent"]


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Raise an AWS error inside the block as one line that names the missing permission, if that is the reason.

    Raises NotAsExpectedError for a permission, else UnavailableError.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        if permission := missing_permission(error):
            raise NotAsExpectedError(
                f"the profile has no permission {permission}",
                f"allow {permission} to the profile, then run `barflow verify` again",
            ) from None
        raise UnavailableError(f"{what}: the call to AWS failed ({aws_error_code(error)})") from None
