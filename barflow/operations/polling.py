"""Polling: wait until a step or a job on AWS has ended, and describe why it failed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from barflow.errors import BarflowError
from barflow.progress import Log

# Between two requests for the state of a cluster, step, job or crawler.
POLL_SECONDS = float(os.environ.get("BARFLOW_POLL_SECONDS", "30"))


@dataclass(frozen=True)
class Execution:
    """A step or a job run on AWS that ends by itself.

    ``read_state`` returns its state and, if it failed, the reason; ``failed`` lists the states of a failed end.
    ``logs`` is the place of its logs.
    """

    name: str
    read_state: Callable[[], tuple[str, str]]
    succeeded: str
    failed: tuple[str, ...]
    logs: str

    def wait(self, minutes: int, log: Log, sleep: Callable[[float], None]) -> None:
        """Wait for success and log every change of state.

        Raises BarflowError when it fails, or is not done after so many minutes.
        """
        last = ""
        for _ in range(int(minutes * 60 / POLL_SECONDS) + 1):
            state, reason = self.read_state()
            if state != last:
                log(f"{self.name}: {state}")
                last = state
            if state == self.succeeded:
                return
            if state in self.failed:
                raise self._failure(state, reason)
            sleep(POLL_SECONDS)
        raise BarflowError(
            f"the {self.name} was not done in {minutes} minutes. What readers see is unchanged. "
            f"Its logs: {self.logs}. Fix the cause, then run it again."
        )

    def failure(self) -> BarflowError:
        """Return the error that describes the present state."""
        return self._failure(*self.read_state())

    def _failure(self, state: str, reason: str) -> BarflowError:
        return BarflowError(
            f"the {self.name} is {state}: {reason.rstrip('.') or 'no reason given'}. "
            f"What readers see is unchanged. Its logs: {self.logs}. Fix the cause, then run it again."
        )
