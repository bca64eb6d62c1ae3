"""The protocol between the Spark programs and the commands that run them.

A program writes progress to stderr, one JSON object as the last line of stdout, and returns an exit code. An error is
one line, also when it was raised in a Spark task and arrives inside a Java stack trace.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from barflow import errors
from barflow.errors import BadInputError, BarflowError, UnavailableError, aws_error_code
from barflow.progress import Log
from barflow.text import redacted, visible

# Arguments that AWS Glue reads itself, each with a value. Glue passes all arguments of a job on to the program.
GLUE_ARGUMENTS = re.compile(
    r"^--(JOB_|enable-|job-|extra-|additional-|python-modules-|custom-log|(TempDir|conf|library-set|scriptLocation)$)"
)
# The properties of a Glue workflow run: the run id of its job, and the run of OpenLineage that started it.
RUN_ID_PROPERTY, LINEAGE_PARENT_PROPERTY = "run_id", "lineage_parent"
RUN_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
# Causes inside a Spark or Java message; the last one is the origin.
_CAUSE = re.compile(r"^(?:Caused by: )?(?:[\w$]+\.)*(\w+(?:Error|Exception)): (?!Traceback|Job aborted)(\S.*)$", re.M)
_IN_TASK = re.compile(r"^(?:barflow\.errors|barflow\.twelvedata)\.(\w+): (.*)$", re.MULTILINE)


class WorkflowRun(NamedTuple):
    """What the run of a Glue workflow gives its job: a run id, and the parent of its lineage. Each may be missing."""

    run_id: str | None
    lineage_parent: str | None


def run_program(
    parser: argparse.ArgumentParser, argv: list[str] | None, work: Callable[[argparse.Namespace, Log], dict[str, Any]]
) -> int:
    """Parse the arguments, run the work and print its result. Return the exit code: 0, or that of the error.

    SIGTERM stops the work as Ctrl-C does, so the run releases its lease or lock.
    """
    if threading.current_thread() is threading.main_thread():
        # Through SIGINT: Spark's own handler for it cancels the jobs.
        signal.signal(signal.SIGTERM, _stop)
    try:
        result = work(parse_arguments(parser, argv), _log)
    except KeyboardInterrupt:
        print("error: stopped. What is stored stays, and the next run resumes from there.", file=sys.stderr, flush=True)
        return 130
    except Exception as error:
        known = as_known(error)
        if os.environ.get("BARFLOW_DEBUG"):
            _log(traceback.format_exc())
        _log(f"error: {' '.join(str(known).splitlines())}")
        return known.exit_code
    print(json.dumps(result), flush=True)
    return 0


def _stop(*_: object) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def parse_arguments(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the arguments. Ignore those of Glue itself; exit with code 2 for any other unknown one."""
    arguments, rest = parser.parse_known_args(argv)
    for before, item in pairwise(["", *rest]):
        names = (before, item.split("=")[0])  # an argument after one of Glue's is its value, as in `--x --no-index`
        if item.startswith("--") and not any(map(GLUE_ARGUMENTS.match, names)):
            parser.error(f"unknown argument {names[1]}")  # its value may be a secret
    return arguments


def read_workflow_run(workflow: str, workflow_run: str) -> WorkflowRun:
    """Return what a Glue workflow run gives its job.

    It is in properties of the workflow run, because the caller of a workflow cannot set an argument of the job.
    Raises BadInputError if the run id is not one, UnavailableError if the properties cannot be read.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = boto3.client("glue").get_workflow_run_properties(Name=workflow, RunId=workflow_run)["RunProperties"]
    except (BotoCoreError, ClientError) as error:
        raise UnavailableError(
            f"cannot read the properties of the workflow run {workflow_run} ({aws_error_code(error)}). Nothing was "
            "loaded. Check the job's role, then run it again."
        ) from None
    run_id: str | None = found.get(RUN_ID_PROPERTY)
    if run_id is not None and not RUN_ID.fullmatch(run_id):
        raise BadInputError(
            f"{RUN_ID_PROPERTY} of the workflow run {workflow_run} must be up to 64 letters, digits and dashes. "
            "Nothing was loaded. Start the workflow again with another one."
        )
    return WorkflowRun(run_id, found.get(LINEAGE_PARENT_PROPERTY))


def _log(text: str) -> None:
    print(visible(redacted(text), keep="\n"), file=sys.stderr, flush=True)


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
    """Return the innermost error in one line, without secrets."""
    text = redacted(str(error))
    causes = _CAUSE.findall(text)
    kind, line = causes[-1] if causes else (type(error).__name__, (text.strip().splitlines() or ["no message"])[0])
    return f"{kind}: {line[:300]}".rstrip(".")
