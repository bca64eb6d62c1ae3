"""The console command `barflow` in the test's process, and how a command ended."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import pytest

from barflow.cli.main import main


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def object(self) -> dict[str, Any]:
        """Return the one JSON object that a successful command printed."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1, self.out
        return dict(json.loads(self.out))

    @property
    def error(self) -> str:
        """Return the message of the error line, which must be the only one, and the last line."""
        assert "Traceback" not in self.err + self.out, self.err
        *before, last = self.err.splitlines()
        assert last.startswith("error: "), self.err
        assert not [line for line in before if line.startswith("error: ")], self.err
        return last.removeprefix("error: ")


def in_process(*arguments: object, settings: Mapping[str, str] | None = None, stdout: TextIO | None = None) -> Ended:
    """Run `barflow ARGUMENTS` in this process, by its entry point. It is faster than a process of its own.

    What it prints goes to ``stdout`` if that is given.
    """
    out, err = io.StringIO(), io.StringIO()
    redirected = contextlib.redirect_stdout(stdout or out), contextlib.redirect_stderr(err)
    with pytest.MonkeyPatch.context() as patch, redirected[0], redirected[1]:
        patch.setattr(sys, "argv", ["barflow", *map(str, arguments)])
        for name, value in (settings or {}).items():
            patch.setenv(name, value)
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
    return Ended(code or 0, out.getvalue(), err.getvalue())
