"""Run Airflow's own `standalone` without its log servers, as on the host.

Airflow binds the log servers of the scheduler and the triggerer to every address, and has no setting for it. The page
reads the logs from their files.
"""

from __future__ import annotations

from typing import Any

from airflow.cli.commands import standalone_command


class WithoutLogServer(standalone_command.SubCommand):
    """A component of Airflow that serves no logs."""

    def __init__(self, parent: Any, name: str, command: list[str], env: dict[str, str]) -> None:
        """Add the option to the components that would serve logs."""
        options = ["--skip-serve-logs"] if name in ("scheduler", "triggerer") else []
        super().__init__(parent, name, [*command, *options], env)


if __name__ == "__main__":
    standalone_command.SubCommand = WithoutLogServer  # type: ignore[misc]
    standalone_command.StandaloneCommand().run()  # type: ignore[no-untyped-call]
