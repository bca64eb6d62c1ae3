"""SSH operator of the DAGs: run a `barflow` command on the host and fail with the command's own error."""

from __future__ import annotations

from typing import Any

from airflow.providers.ssh.operators.ssh import SSHOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

# The command's exit codes for bad input and refusals of the vendor: a retry would fail again.
FINAL = (2, 3)


class BarflowOverSsh(SSHOperator):
    """Runs a command over the connection ``barflow_ssh``. Fails with the command's error line and exit code."""

    def __init__(self, **options: Any) -> None:
        # No XCom: the output is in the log, and with hundreds of symbols it would fill Airflow's database.
        super().__init__(ssh_conn_id="barflow_ssh", do_xcom_push=False, **options)

    def raise_for_status(self, exit_status: int, stderr: bytes, context: Any = None) -> None:
        """Raise the command's last error line unless it succeeded. Exit codes 2 and 3 prevent a retry."""
        if exit_status:
            lines = stderr.decode(errors="replace").strip().splitlines() or ["it printed no error"]
            error = AirflowFailException if exit_status in FINAL else AirflowException
            raise error(f"`{self.command}` ended with exit code {exit_status}: {lines[-1].removeprefix('error: ')}")
