"""The command `barflow doctor`: check this machine, its settings, and the services that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barflow.cli.checks import report_checks
from barflow.cli.common import Json, State
from barflow.errors import BadInputError

if TYPE_CHECKING:
    from barflow.operations.checks import Check


def doctor(
    state: State = None,
    vendor: Annotated[
        bool, typer.Option("--vendor/--no-vendor", help="Call Twelve Data, which costs one API credit.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Check this machine, its settings and its services.

    It prints one line per check (✓ fine, ✗ something would fail, – not checked), and below it what to do. It leaves
    nothing behind, shows no secret, and exits 1 if something would fail.
    """
    from barflow.cli.rooms import embedded_stores
    from barflow.market.sessions import utc_now
    from barflow.operations.doctor.run import run

    try:
        embedded = bool(embedded_stores())
    except BadInputError:
        embedded = False
    checks = run(state or Path(".barflow"), utc_now, vendor=vendor, embedded=embedded)
    report_checks(checks, _show, as_json=as_json)


def _show(check: Check) -> None:
    """Print a check on one line, and what to do on the next one."""
    from barflow.cli.terminal import BAD, OK, SKIPPED, console

    shown = console()
    shown.print(BAD if not check.ok else OK if check.checked else SKIPPED, end=" ")
    shown.print(f"{check.name:<15} {check.found}", soft_wrap=True)
    if check.fix:
        shown.print(f"  {'fix' if not check.ok else 'note'}: {check.fix}", soft_wrap=True)
