"""The protocol between the Spark programs and the commands that run them.

A program writes progress to stderr, one JSON object as the last line of stdout, and returns an exit code. An error is
one line, also when it was raised in a Spark task and comes back inside a Java stack trace.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE
from typing import Any

from barflow import errors
from barflow.errors import BadInputError, BarflowError, VendorRefusedError
from barflow.progress import Log

# Arguments that AWS Glue reads itself, each with a value. Glue passes all arguments of a job on to the program.
GLUE_ARGUMENTS = re.compile(
    r"^--(JOB_|enable-|job-|extra-|additional-|python-modules-|continuous-log-|(TempDir|conf|library-set|scriptLocation)$)"
)
# Lines that Spark and the JVM print at every start, and the program's error, which is raised instead.
_NOISE = re.compile(r"^(?:$|Setting default log level|To adjust logging level|.* WARN |WARNING: |error: )")
STOP_SECONDS = 10.0
KINDS = (BadInputError, VendorRefusedError)
# Causes inside a Spark or Java message; the last one is the origin.
_CAUSE = re.compile(r"^(?:Caused by: )?(?:[\w$]+\.)*(\w+(?:Error|Exception)): (?!Traceback|Job aborted)(\S.*)$", re.M)
_IN_TASK = re.compile(r"^(?:barflow\.errors|barflow\.twelvedata)\.(\w+): (.*)$", re.MULTILINE)


def run_program(
    parser: argparse.ArgumentParser, argv: list[str] | None, work: Callable[[argparse.Namespace, Log], dict[str, Any]]
) -> int:
    """Parse the arguments, run the work, print its result. Return the exit code: 0, or that of the error.

    SIGTERM stops the work as Ctrl-C does, so the run releases its lease or lock.
    """
    if threading.current_thread() is threading.main_thread():
        # Through SIGINT: Spark's own handler for it cancels the jobs.
        signal.signal(signal.SIGTERM, _stop)
    try:
        result = work(parse_arguments(parser, argv), _log)
    except KeyboardInterrupt:
        print("error: stopped. What is stored stays, and the next run goes on from there.", file=sys.stderr, flush=True)
        return 130
    except Exception as error:
        known = as_known(error)
        if os.environ.get("BARFLOW_DEBUG"):
            traceback.print_exc()
        print(f"error: {known}", file=sys.stderr, flush=True)
        return known.exit_code
    print(json.dumps(result), flush=True)
    return 0


def _stop(*_: object) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def run_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Log,
    on_start: Callable[[subprocess.Popen[str]], None] = lambda child: None,
) -> dict[str, Any]:
    """Run a program as a child process, pass its progress on, and return its result.

    Raises the error that the program ended with: the same class and message.
    """
    last = failure = ""
    with subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, text=True
    ) as child:
        on_start(child)
        try:
            assert child.stderr is not None
            assert child.stdout is not None
            for line in map(str.rstrip, child.stderr):
                last = line or last
                if line.startswith("error: "):
                    failure = line.removeprefix("error: ")
                if not _NOISE.match(line):
                    log(line)
            output = child.stdout.read()
        except BaseException:
            child.terminate()
            # Give it time to release its lease: after Ctrl-C, Popen itself waits only 0.25 s.
            with suppress(subprocess.TimeoutExpired):
                child.wait(STOP_SECONDS)
            raise
    if child.returncode == 0:
        return dict(json.loads(output.splitlines()[-1]))
    if failure:
        raise next((kind for kind in KINDS if kind.exit_code == child.returncode), BarflowError)(failure)
    how = f"exit code {child.returncode}" if child.returncode > 0 else f"signal {-child.returncode}"
    raise BarflowError(
        f"{Path(command[1]).name} was ended by {how} after: {last or 'no output'}. What is stored stays. Run it again."
    )


def parse_arguments(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the arguments. Ignore those of Glue itself; exit with code 2 for any other unknown one."""
    arguments, rest = parser.parse_known_args(argv)
    for before, item in pairwise(["", *rest]):
        names = (before, item.split("=")[0])  # an argument after one of Glue's is its value, as in `--x --no-index`
        if item.startswith("--") and not any(map(GLUE_ARGUMENTS.match, names)):
            parser.error(f"unknown argument {names[1]}")  # its value may be a secret
    return arguments


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def as_known(error: BaseException) -> BarflowError:
    """Return any error as a BarflowError for users and ledgers: itself, or the one inside a Spark task's error."""
    if isinstance(error, BarflowError):
        return error
    found = _IN_TASK.findall(str(error))
    if not found:
        return BarflowError(
            f"stopped by {_cause(error)}. What readers see is unchanged. "
            "Run it again; set BARFLOW_DEBUG=1 to see where."
        )
    name, message = found[-1]
    kind = getattr(errors, name, BarflowError)
    return kind(message) if issubclass(kind, BarflowError) else BarflowError(message)


def _cause(error: BaseException) -> str:
    """Return the innermost error in one line, with the user part of any DSN or URI removed."""
    causes = _CAUSE.findall(str(error))
    kind, line = (
        causes[-1] if causes else (type(error).__name__, (str(error).strip().splitlines() or ["no message"])[0])
    )
    return re.sub(r"://[^@/\s]+@", "://…@", f"{kind}: {line[:300]}").rstrip(".")
