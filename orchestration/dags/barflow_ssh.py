"""How does a task run a command of barflow's on the host? Through SSH, and it fails with what the command said."""

from __future__ import annotations

from typing import Any

from airflow.providers.ssh.operators.ssh import SSHOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

# The command's exit codes for bad input and for what the vendor refused: no other try would mend them.
FINAL = (2, 3)


class BarflowOverSsh(SSHOperator):
    """A command through the connection `barflow_ssh`. Fails with the command's error line and its exit code."""

    def __init__(self, **options: Any) -> None:
        # What it prints is in the log; of hundreds of symbols it would fill Airflow's database.
        super().__init__(ssh_conn_id="barflow_ssh", do_xcom_push=False, **options)

    def raise_for_status(self, exit_status: int, stderr: bytes, context: Any = None) -> None:
        if exit_status:
            lines = stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            error = AirflowFailException if exit_status in FINAL else AirflowException
            raise error(f"`{self.command}` ended with {exit_status}: {lines[-1].removeprefix('error: ')}")
