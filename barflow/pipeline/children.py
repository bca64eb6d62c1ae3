"""Run the Spark programs of the checkout as child processes.

A program writes progress to stderr and one JSON object as the last line of stdout (barflow.pipeline.program).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

from barflow.errors import BadInputError, BarflowError, VendorRefusedError
from barflow.pipeline.environment import own_environment, spark_environment
from barflow.pipeline.stores import Stores
from barflow.progress import Log

CHECKOUT = Path(__file__).parents[2]
# Lines that Spark and the JVM print at every start, and the program's error, which is raised instead.
_NOISE = re.compile(r"^(?:$|Setting default log level|To adjust logging level|.* WARN |WARNING: |error: )")
STOP_SECONDS = 10.0
KINDS = (BadInputError, VendorRefusedError)


def run_script(stores: Stores, name: str, log: Log, *arguments: str) -> dict[str, Any]:
    """Run a Spark program such as ``spark/bars_to_parquet.py`` on these stores. Return its result.

    The program gets the parent of its run's lineage, if the stores name one.

    Raises BadInputError if the installation does not contain it, else the error that it ended with.
    """
    path = CHECKOUT / name
    if not path.exists():
        raise BadInputError(f"{name} is not in this installation: run the command from a checkout of the project")
    environment = {**own_environment(), **spark_environment(), **stores.environment}
    parent = ["--lineage-parent", stores.lineage_parent] if stores.lineage_parent else []
    return run_child([sys.executable, str(path), *arguments, *parent], environment, log, stores.on_child)


def run_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Log,
    on_start: Callable[[subprocess.Popen[str]], None] = lambda child: None,
) -> dict[str, Any]:
    """Run a program as a child process, pass its progress on, and return its result.

    Raises the error that the program ended with: the same class and message.
    """
    with started(command, environment, on_start) as child:
        return wait_for(child, log)


@contextmanager
def started(
    command: Sequence[str],
    environment: Mapping[str, str],
    on_start: Callable[[subprocess.Popen[str]], None],
    *,
    stdin: int = subprocess.DEVNULL,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Start a program for a block. It is asked to stop if the block raises, and has ended after it."""
    with subprocess.Popen(
        command,
        env=dict(environment),
        cwd=cwd,
        stdin=stdin,
        stdout=PIPE,
        stderr=PIPE,
        encoding="utf-8",
        errors="replace",
    ) as child:
        on_start(child)
        try:
            yield child
        except BaseException:
            child.terminate()
            # Give it time to release its lease: after Ctrl-C, Popen itself waits only 0.25 s.
            with suppress(subprocess.TimeoutExpired):
                child.wait(STOP_SECONDS)
            raise


def wait_for(child: subprocess.Popen[str], log: Log, sent: str | None = None) -> dict[str, Any]:
    """Send a line if there is one, pass on the progress of a program until its end, and return its result.

    Raises the error that the program ended with: the same class and message.
    """
    assert child.stderr is not None
    assert child.stdout is not None
    if sent and child.stdin:
        with suppress(BrokenPipeError):  # it has ended: its error follows
            child.stdin.write(sent)
            child.stdin.close()
    last = failure = ""
    for line in map(str.rstrip, child.stderr):
        last = line or last
        if line.startswith("error: "):
            failure = line.removeprefix("error: ")
        if not _NOISE.match(line):
            log(line)
    output = child.stdout.read()
    code = child.wait()
    if code == 0:
        return dict(json.loads(output.splitlines()[-1]))
    if failure:
        raise next((kind for kind in KINDS if kind.exit_code == code), BarflowError)(failure)
    how = f"exit code {code}" if code > 0 else f"signal {-code}"
    assert isinstance(child.args, list)
    name = next(Path(item).name for item in child.args[1:] if item != "-m")
    raise BarflowError(f"{name} was ended by {how} after: {last or 'no output'}. What is stored stays. Run it again.")
