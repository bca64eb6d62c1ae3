"""Run Airflow's own `standalone` as on the host: without log servers, and a component that stops is started again.

Airflow binds the log servers of the scheduler and the triggerer to every address, and has no setting for it. The page
reads the logs from their files.
"""

from __future__ import annotations

import threading
from typing import Any

from airflow.cli.commands import standalone_command

RESTART_SECONDS = 1.0


class Component(standalone_command.SubCommand):
    """A component of Airflow that serves no logs and runs until it is asked to stop."""

    def __init__(self, parent: Any, name: str, command: list[str], env: dict[str, str]) -> None:
        """Add the option to the components that would serve logs."""
        options = ["--skip-serve-logs"] if name in ("scheduler", "triggerer") else []
        super().__init__(parent, name, [*command, *options], env)
        self._asked_to_stop = threading.Event()

    def run(self) -> None:
        """Run the component, and start it again when it stops by itself."""
        while not self._asked_to_stop.is_set():
            super().run()  # type: ignore[no-untyped-call]
            self._asked_to_stop.wait(RESTART_SECONDS)

    def stop(self) -> None:
        """Ask the component to stop."""
        self._asked_to_stop.set()
        super().stop()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    standalone_command.SubCommand = Component  # type: ignore[misc]
    standalone_command.StandaloneCommand().run()  # type: ignore[no-untyped-call]
