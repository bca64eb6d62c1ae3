"""How the Spark programs speak, and how a command runs one: progress on stderr, one JSON object as the last line
of stdout, an exit code.

An error is one line, also when it was raised in a Spark task and comes back wrapped in Java's stack.
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

Say = Callable[[str], None]
# Arguments of a job that are for AWS Glue itself, each with a value. It hands all of a job's arguments to the program.
GLUE_ARGUMENTS = re.compile(
    r"^--(JOB_|enable-|job-|extra-|additional-|python-modules-|continuous-log-|(TempDir|conf|library-set|scriptLocation)$)"
)
# What Spark and the JVM say of themselves at every start, and the program's error, which is raised instead.
_NOISE = re.compile(r"^(?:$|Setting default log level|To adjust logging level|.* WARN |WARNING: |error: )")
GIVES_BACK_SECONDS = 10.0
KINDS = (BadInputError, VendorRefusedError)
# What is wrapped in Spark's and Java's own words: the last one is where it began.
_CAUSE = re.compile(r"^(?:Caused by: )?(?:[\w$]+\.)*(\w+(?:Error|Exception)): (?!Traceback|Job aborted)(\S.*)$", re.M)
_IN_TASK = re.compile(r"^(?:barflow\.errors|barflow\.twelvedata)\.(\w+): (.*)$", re.MULTILINE)


def run_program(
    parser: argparse.ArgumentParser, argv: list[str] | None, work: Callable[[argparse.Namespace, Say], dict[str, Any]]
) -> int:
    """Parses, works, prints the result. Returns the exit code: 0, or that of the error.

    SIGTERM ends the work as Ctrl-C does: what the run holds is given back.
    """
    if threading.current_thread() is threading.main_thread():
        # By way of SIGINT: Spark's own handler of that cancels its jobs.
        signal.signal(signal.SIGTERM, _stop)
    try:
        result = work(parse_arguments(parser, argv), _say)
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
    say: Say,
    on_start: Callable[[subprocess.Popen[str]], None] = lambda child: None,
) -> dict[str, Any]:
    """Runs such a program as a child process and returns its result; what it says is passed on.

    Raises the error that the program ended with, of the same kind and with the same message.
    """
    last = told = ""
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
                    told = line.removeprefix("error: ")
                if not _NOISE.match(line):
                    say(line)
            output = child.stdout.read()
        except BaseException:
            child.terminate()
            # It gives back what it holds; after Ctrl-C Popen by itself waits for a quarter of a second only.
            with suppress(subprocess.TimeoutExpired):
                child.wait(GIVES_BACK_SECONDS)
            raise
    if child.returncode == 0:
        return dict(json.loads(output.splitlines()[-1]))
    if told:
        raise next((kind for kind in KINDS if kind.exit_code == child.returncode), BarflowError)(told)
    how = f"exit code {child.returncode}" if child.returncode > 0 else f"signal {-child.returncode}"
    raise BarflowError(
        f"{Path(command[1]).name} was ended by {how} after: {last or 'no word'}. What is stored stays. Run it again."
    )


def parse_arguments(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Takes Glue's own arguments for granted and refuses any other that the program does not know."""
    arguments, rest = parser.parse_known_args(argv)
    for before, item in pairwise(["", *rest]):
        names = (before, item.split("=")[0])  # what follows one of Glue's is its value, as in `--x --no-index`
        if item.startswith("--") and not any(map(GLUE_ARGUMENTS.match, names)):
            parser.error(f"unknown argument {names[1]}")  # its value may be a secret
    return arguments


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def as_known(error: BaseException) -> BarflowError:
    """Any error as one of ours, for a person or a ledger: itself, or the one inside what Spark raises for a task."""
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
    """The innermost error in one line; a DSN or URI in it loses its user part."""
    causes = _CAUSE.findall(str(error))
    kind, line = (
        causes[-1] if causes else (type(error).__name__, (str(error).strip().splitlines() or ["no message"])[0])
    )
    return re.sub(r"://[^@/\s]+@", "://…@", f"{kind}: {line[:300]}").rstrip(".")
