"""The commands `barflow verify` and `barflow compare`: check what is deployed and what is loaded."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from barflow.cli.common import Env, Json, State, log, opened, out, parse_day, print_json
from barflow.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from barflow.operations.checks import Check

Session = Annotated[str | None, typer.Option(help="Session to compare, such as 2025-07-02 (default: the newest).")]


def verify(
    env: Env,
    session: Session = None,
    only: Annotated[str | None, typer.Option(help="Run only these checks, such as tick,rows.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Start without a question.")] = False,
    as_json: Json = False,
) -> None:
    """Check a deployed environment with your AWS profile.

    It prints what it will do and what that costs, and asks before it starts. It runs the pipeline once, and removes
    its test messages and its cluster.
    """
    from barflow.operations.verify.deployed import Deployed
    from barflow.operations.verify.run import chosen_steps, describe, run

    day = parse_day(session, "--session").isoformat() if session else None
    steps = chosen_steps(only.split(",") if only else ())
    deployed = Deployed.open(env, log, day)
    log(f"`barflow verify` in {env} ({deployed.contract.region}):")
    for line in describe(deployed, steps):
        log(f"  {line}")
    if not yes:
        _ask()
    # If the process is terminated, the step cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    checks = list(run(deployed, steps))
    if failed := [check.name for check in checks if not check.ok]:
        log(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    if as_json:
        print_json({"ok": not failed, "checks": [check.to_json() for check in checks]})
    else:
        _show(checks)
    raise typer.Exit(1 if failed else 0)


def _ask() -> None:
    """Ask whether to start. Exit with code 1 on no. Raise BadInputError without a terminal."""
    if not can_answer():
        raise BadInputError(
            "there is no terminal to answer at. Nothing was started. Pass --yes to start without a question."
        )
    if not typer.confirm("Start?", err=True):
        log("nothing was started")
        raise typer.Exit(1)


def can_answer() -> bool:
    """Return whether a person can answer at a terminal."""
    return sys.stdin.isatty()


def _show(checks: Sequence[Check]) -> None:
    """Print a line per check, and what to do below each failed one."""
    from barflow.cli.terminal import BAD, OK, console

    shown = console()
    for check in checks:
        shown.print(OK if check.ok else BAD, end=" ")
        shown.print(f"{check.name:<11} {check.found}", soft_wrap=True)
        if not check.ok and check.fix:
            shown.print(f"  fix: {check.fix}", soft_wrap=True)


def compare(session: Session = None, state: State = None, as_json: Json = False) -> None:
    """Compare every warehouse row of one session with the archive.

    It computes the expected rows in plain Python, independently of the Glue job. It exits 1 if a value differs.
    """
    from barflow.lake.athena import open_archive
    from barflow.operations.verify.rows import compare as compare_rows

    day = parse_day(session, "--session") if session else None
    with opened(state, mongo=False) as stores:
        found = compare_rows(open_archive(stores.settings), stores.reader_dsn, day, stores.clock())
    if as_json:
        print_json(found.to_json())
    else:
        rows = ", ".join(f"{table} {count}" for table, count in found.rows.items())
        out.print(f"{found.session_date}: {rows}")
        for text in found.differences[:10]:
            out.print(f"differs: {text}")
        out.print(f"{len(found.differences)} values differ" if found.differences else "every row is equal")
    raise typer.Exit(1 if found.differences else 0)
